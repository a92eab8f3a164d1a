"""Whole models of other libraries, with the bodies, the sizes and the weights of one of genmini's.

    THEIRS[model, recipe]    (library, build), and build(model) is (a module, loss): loss(x) a number, as model.loss(x)

`make bench` installs the libraries into .venv-peers. Two cannot be made equal, and are not there:

* denoising-diffusion-pytorch (2.3.4): its U-Net normalises the channels of each pixel by their root of squares after a
  convolution, where ours normalises groups of eight before it, and adds linear attention with learnt keys at the larger
  sizes; its loss around our U-Net would be the row of plain PyTorch. It imports torchvision, accelerate, ema-pytorch
  and pytorch-fid.
* normflows' couplings of images: its split by a checkerboard packs each half side by side, so that a convolution sees
  other neighbours than in ours, and its masked coupling takes s and t from two networks, ours from one. Flows as their
  authors write them are in bench/swap_peers.py.
"""

import copy
import importlib.util

import torch
from torch import nn


def pythae_vae(vae):
    """Its VAE around our encoder and decoder."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = vae.encoder

        def forward(self, x):
            mu, log_var = self.net(x, None).chunk(2, 1)
            return ModelOutput(embedding=mu, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = vae.f

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z, None).sigmoid())

    config = VAEConfig(input_dim=vae.shape, latent_dim=vae.latent, reconstruction_loss="bce")
    theirs = VAE(config, encoder=Encoder(), decoder=Decoder())
    return theirs, lambda x: theirs({"data": vae.v_of(x)}).loss


def vector_quantize(vqvae):
    """Our VQ-VAE around its quantiser, in training of the codes."""
    from vector_quantize_pytorch import VectorQuantize

    mine = vqvae.codebook
    sites = vqvae.N * mine.weight.shape[1]  # its loss is a mean, ours a sum
    quantiser = VectorQuantize(mine.weight.shape[1], vqvae.K, decay=mine.decay, commitment_weight=mine.beta * sites,
                               threshold_ema_dead_code=0, rotation_trick=False)
    quantiser._codebook.embed.data.copy_(mine.weight)
    quantiser._codebook.embed_avg.data.copy_(mine.weight)
    quantiser._codebook.cluster_size.data.fill_(1)
    theirs = nn.ModuleList([vqvae.f, quantiser, vqvae.g])

    def loss(x):
        z = vqvae.z(x)  # (N, h, w, D)
        z_q, _, distance = quantiser(z.flatten(1, 2))
        value = distance + distance.detach() / mine.beta  # ours has the term of the codes, too: here it has no gradient
        return vqvae.nll(x, z_q.view_as(z)).mean() + value

    return theirs, loss


def normflows_blocks(realnvp):
    """Couplings of points of the plane, each with a network of one number, that of the half that passes."""
    import normflows as nf

    class Bounded(nn.Module):
        """(t, s) for the other number, as its AffineCoupling takes them"""

        def __init__(self, coupling, other):
            super().__init__()
            body, self.b = coupling.net.body, coupling.net.b
            enter, *layers = copy.deepcopy(body.layers)
            enter.weight, enter.in_features = nn.Parameter(enter.weight[:, 1 - other, None].clone()), 1
            out = nn.Linear(body.out.in_features, 2)
            with torch.no_grad():
                for mine, its in ((out.weight, body.out.weight), (out.bias, body.out.bias)):
                    mine.copy_(its[[2 + other, other]])
            self.net = nn.Sequential(*(part for layer in (enter, *layers) for part in (layer, nn.SiLU())), out)

        def forward(self, x):
            t, s = self.net(x).chunk(2, 1)
            return torch.cat([t, self.b * (s / self.b).tanh()], 1)

    flows = []
    for norm, coupling in zip(*2 * [iter(realnvp.f[0])], strict=True):
        const, other = nf.flows.AffineConstFlow((2,)), int(coupling.mask[0])
        const.s.data.copy_(norm.s), const.t.data.copy_(norm.t)
        block = nf.flows.AffineCouplingBlock(Bounded(coupling, other), split_mode="channel" if other else "channel_inv")
        flows += [nf.flows.Reverse(const), nf.flows.Reverse(block)]  # its own direction is that of samples
    theirs = nf.NormalizingFlow(nf.distributions.DiagGaussian(2, trainable=False), flows[::-1])
    return theirs, lambda x: -theirs.log_prob(x).mean()


THEIRS = {("vae", "mnist"): ("pythae", pythae_vae),
          ("vqvae", "digits"): ("vector-quantize-pytorch", vector_quantize),
          ("vqvae", "mnist"): ("vector-quantize-pytorch", vector_quantize),
          ("realnvp", "moons"): ("normflows", normflows_blocks)}


def installed(library):
    return importlib.util.find_spec(library.replace("-", "_")) is not None
