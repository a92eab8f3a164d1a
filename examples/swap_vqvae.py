"""A VQ-VAE as it stands in many a tutorial, trained with its quantiser computed by the room nearest_code.

    python examples/swap_vqvae.py --out vqvae.png
"""

import torch
import torch.nn.functional as F
from beside import arguments, beside, digits
from torch import nn


class VectorQuantizer(nn.Module):
    def __init__(self, K, D, beta=0.25):
        super().__init__()
        self.K, self.D, self.beta = K, D, beta
        self.embedding = nn.Embedding(K, D)
        self.embedding.weight.data.uniform_(-1 / K, 1 / K)

    def forward(self, z):
        z = z.permute(0, 2, 3, 1).contiguous()
        flat = z.view(-1, self.D)
        e = self.embedding.weight
        distances = (flat**2).sum(1, keepdim=True) + (e**2).sum(1) - 2 * flat @ e.t()
        index = distances.argmin(1).unsqueeze(1)
        one_hot = torch.zeros(len(index), self.K, device=z.device).scatter_(1, index, 1)
        z_q = (one_hot @ e).view(z.shape)
        loss = F.mse_loss(z_q, z.detach()) + self.beta * F.mse_loss(z_q.detach(), z)
        z_q = z + (z_q - z).detach()
        p = one_hot.mean(0)
        perplexity = torch.exp(-(p * torch.log(p + 1e-10)).sum())
        return loss, z_q.permute(0, 3, 1, 2).contiguous(), perplexity, one_hot


class VQVAE(nn.Module):
    def __init__(self, K, D, width=32):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, D, 1))
        self.quantizer = VectorQuantizer(K, D)
        self.decoder = nn.Sequential(nn.Conv2d(D, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, x):
        loss, z_q, perplexity, _ = self.quantizer(self.encoder(x.view(-1, 1, 8, 8)))
        return self.decoder(z_q).flatten(1), loss


def loss(model, x):
    y, of_codes = model(x)
    return F.mse_loss(y, x) + of_codes


if __name__ == "__main__":
    how = arguments(__doc__, batch=64, codes=512, dimension=64)
    torch.manual_seed(0)
    beside(VQVAE(how.codes, how.dimension), loss, digits(how.batch), how.steps, how.out)
