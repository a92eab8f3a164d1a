"""Models of libraries that others wrote, as their users build them: for tests/project/test_peers.py and
bench/swap_peers.py, by `make test-peers` and `make table-peers`.

    BUILD[name](size)    (a model, x, loss) with loss(model, x) a number

size: "small" for a test, "usual" for times. The libraries are imported where they are asked for.
"""

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops

N, D = {"small": 64, "usual": 256}, {"small": 6, "usual": 64}
WIDE = {"small": 300, "usual": 1024}  # 300: products of so many numbers are cut by the room, smaller ones are not


class Autoencoder(nn.Module):
    """Tokens (N, T, D) -> a quantiser between two linear layers"""

    def __init__(self, size, **kwargs):
        from vector_quantize_pytorch import VectorQuantize

        super().__init__()
        d, codes = {"small": (6, 10), "usual": (64, 512)}[size]
        self.down, self.up = nn.Linear(2 * d, d), nn.Linear(d, 2 * d)
        self.quantise = VectorQuantize(d, codes, **kwargs)
        self.shape = {"small": (3, 7), "usual": (16, 256)}[size] + (2 * d,)

    def forward(self, x):
        z_q, index, loss = self.quantise(self.down(x))
        return F.mse_loss(self.up(z_q), x) + loss


def vector_quantize(**kwargs):
    def build(size):
        theirs = Autoencoder(size, **kwargs)
        return theirs, torch.randn(theirs.shape), lambda theirs, x: theirs(x)

    return build


def of_density(build):
    """A flow: its loss is -log p(x), mean over the rows."""

    def with_inputs(size):
        theirs, log_prob = build(D[size], (WIDE[size], WIDE[size]))
        return theirs, torch.randn(N[size], D[size]), lambda theirs, x: -log_prob(theirs, x).mean()

    return with_inputs


@of_density
def zuko_maf(features, hidden):
    import zuko

    return zuko.flows.MAF(features, transforms=3, hidden_features=hidden), lambda flow, x: flow().log_prob(x)


@of_density
def zuko_nsf(features, hidden):
    import zuko

    return zuko.flows.NSF(features, transforms=2, hidden_features=hidden), lambda flow, x: flow().log_prob(x)


@of_density
def nflows_maf(features, hidden):
    from nflows import distributions, flows, transforms

    each = [transforms.MaskedAffineAutoregressiveTransform(features, hidden[0], num_blocks=1) for _ in range(2)]
    theirs = flows.Flow(transforms.CompositeTransform(each), distributions.StandardNormal([features]))
    return theirs, lambda flow, x: flow.log_prob(x)


@of_density
def nflows_coupling(features, hidden):
    from nflows import distributions, flows, transforms
    from nflows.nn import nets

    network = lambda inputs, outputs: nets.ResidualNet(inputs, outputs, hidden[0] // 4)
    each = [transforms.AffineCouplingTransform((torch.arange(features) + i) % 2, network) for i in range(4)]
    theirs = flows.Flow(transforms.CompositeTransform(each), distributions.StandardNormal([features]))
    return theirs, lambda flow, x: flow.log_prob(x)


@of_density
def normflows_block(features, hidden):
    import normflows

    each = []
    for _ in range(4):
        network = normflows.nets.MLP([features // 2, hidden[0] // 4, features], init_zeros=False)
        each += [normflows.flows.AffineCouplingBlock(network), normflows.flows.Permute(features, mode="swap")]
    theirs = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(features), each)
    return theirs, lambda flow, x: flow.log_prob(x)


def inverse_by_room(block, z):
    """normflows' AffineCouplingBlock.inverse, which log_prob asks, with the operator in it"""
    z1, z2 = z.chunk(2, 1)
    out = block.flows[1].param_map(z1)
    x, logdet = ops.affine_coupling_inverse(z2, out[:, 1::2], out[:, 0::2])
    return torch.cat([z1, x], 1), logdet


@of_density
def normflows_masked(features, hidden):
    import normflows

    network = lambda: normflows.nets.MLP([features, hidden[0] // 4, features], init_zeros=False)
    each = [normflows.flows.MaskedAffineFlow((torch.arange(features) + i) % 2, network(), network()) for i in range(4)]
    theirs = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(features), each)
    return theirs, lambda flow, x: flow.log_prob(x)


@of_density
def pythae_maf(features, hidden):
    from pythae.models.normalizing_flows import MAF, MAFConfig

    theirs = MAF(MAFConfig(input_dim=(features,), n_made_blocks=2, n_hidden_in_made=2, hidden_size=hidden[0],
                          include_batch_norm=False))

    def log_prob(theirs, x):
        out = theirs(x)
        return out.log_abs_det_jac - out.out.square().sum(1) / 2

    return theirs, log_prob


@of_density
def pythae_made(features, hidden):
    from pythae.models.normalizing_flows import MADE, MADEConfig

    theirs = MADE(MADEConfig(input_dim=(features,), output_dim=(features,), hidden_sizes=list(hidden)))

    def log_prob(theirs, x):
        out = theirs(x)
        return -((x - out.mu).square() * (-out.log_var).exp() + out.log_var).sum(1) / 2

    return theirs, log_prob


def pythae_vqvae(**kwargs):
    def build(size):
        from pythae.models import VQVAE, VQVAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder

        class Encoder(BaseEncoder):
            def __init__(self, d):
                super().__init__()
                self.net = nn.Conv2d(1, d, 4, stride=4)

            def forward(self, x):
                return ModelOutput(embedding=self.net(x))

        class Decoder(BaseDecoder):
            def __init__(self, d):
                super().__init__()
                self.net = nn.ConvTranspose2d(d, 1, 4, stride=4)

            def forward(self, z):
                return ModelOutput(reconstruction=self.net(z))

        n, side, d, codes = {"small": (3, 12, 6, 10), "usual": (64, 32, 64, 512)}[size]
        config = VQVAEConfig(input_dim=(1, side, side), latent_dim=d, num_embeddings=codes, **kwargs)
        return (VQVAE(config, encoder=Encoder(d), decoder=Decoder(d)), torch.rand(n, 1, side, side),
                lambda theirs, x: theirs({"data": x}).loss)

    return build


def pythae_pixelcnn(size):
    from pythae.models.normalizing_flows import PixelCNN, PixelCNNConfig

    n, side, wide = {"small": (3, 5, 4), "usual": (16, 28, 32)}[size]
    theirs = PixelCNN(PixelCNNConfig(input_dim=(1, side, side), n_embeddings=16, n_layers=4, kernel_size=5))
    return theirs, torch.randint(16, (n, 1, side, side)).float(), lambda theirs, x: theirs({"data": x}).loss


@torch.no_grad()
def pythae_draws(theirs, n):
    """As pythae's PixelCNNSampler draws: a pass for each pixel"""
    _, H, W = theirs.model_config.input_dim
    z = torch.zeros(n, 1, H, W)
    for k in range(H):
        for l in range(W):
            out = theirs({"data": z}).out.squeeze(2)
            z[:, :, k, l] = torch.multinomial(F.softmax(out[:, :, k, l], dim=-1), 1).float()
    return z


def zuko_large(size):
    """One MADE of the size of an MNIST's"""
    import zuko

    theirs = zuko.flows.MAF(784, transforms=1, hidden_features=(1000, 1000))
    return theirs, torch.randn(256, 784), lambda flow, x: -flow().log_prob(x).mean()


BUILD = {
    "vector-quantize-pytorch, moving averages": vector_quantize(),
    "vector-quantize-pytorch, learnt codes": vector_quantize(learnable_codebook=True, ema_update=False),
    "vector-quantize-pytorch, cosine": vector_quantize(use_cosine_sim=True),
    "zuko MAF": zuko_maf,
    "zuko NSF": zuko_nsf,
    "nflows MAF": nflows_maf,
    "nflows coupling": nflows_coupling,
    "normflows coupling": normflows_block,
    "normflows masked coupling": normflows_masked,
    "pythae MAF": pythae_maf,
    "pythae MADE": pythae_made,
    "pythae VQ-VAE": pythae_vqvae(),
    "pythae VQ-VAE, moving averages": pythae_vqvae(use_ema=True),
    "pythae PixelCNN": pythae_pixelcnn,
}
LARGE = {"zuko MAF, 784 - 1000 - 1000": zuko_large}  # for times alone
DRAWN = ["zuko MAF", "zuko NSF", "zuko MAF, 784 - 1000 - 1000"]  # by swap(..., sampling=True)
