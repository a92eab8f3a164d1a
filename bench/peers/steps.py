"""Whole models of other libraries, with the bodies, the sizes and the weights of one of genmini's.

    THEIRS[model, recipe]    (library, build), and build(model) is (a module, loss): loss(x) a number, as model.loss(x)

`make bench` installs the libraries into .venv-peers; denoising-diffusion-pytorch needs torchvision, and is not there.
Models of flows are in bench/swap_peers.py: halves, bounds and orders of their couplings are not those of ours.
"""

import importlib.util

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


THEIRS = {("vae", "mnist"): ("pythae", pythae_vae),
          ("vqvae", "digits"): ("vector-quantize-pytorch", vector_quantize)}


def installed(library):
    return importlib.util.find_spec(library.replace("-", "_")) is not None
