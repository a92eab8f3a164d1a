"""The two priors of DALL-E 2: what codes an image may have that a text describes, p(z | y).

Ramesh et al., "Hierarchical Text-Conditional Image Generation with CLIP Latents", 2022, section 2.2.

    Denoiser    z_t = a_t sqrt(d) z + s_t e,   e ~ N(0, I);   F(z_t, t, y) estimates sqrt(d) z            (1)
                loss = |F - sqrt(d) z|^2 / d,   t uniform on 1 ... T                        (2)
                F <- F(z_t, t) + g (F(z_t, t, y) - F(z_t, t))                               (3)
    Numbers     r = V (z - m),   V Cov[z] V^T diagonal, of the D' largest variances         (4)
                k_j = how many of B - 1 edges r_j is above: each k_j is equally frequent in train         (5)
                log p(k | y) = sum_j log softmax(a_j(k_<j, y))_k_j                          (6)
                a <- a() + g (a(y) - a())                                                   (7)
                z ~ m + V^T c,   c_j the median of the r_j in train that have this k_j      (8)

A code z has d numbers and the length 1, so that the numbers of sqrt(d) z vary by about 1, as the noise does; a drawn z
is made to have the length 1, too. Both priors are transformers, and read the text as CLIP has it: w, its code, and
h_1 ... h_l, one vector a word and one for its end. In training the text is hidden from a share of the examples: a
learnt vector stands in the place of w, and no h is read. (3) and (7) ask both ways.

In (1) the transformer reads a learnt vector, the time, z_t, w and the words; F is what the first of them becomes. The
paper has the text first and lets each vector read what stands before it; here the words come last, so that what fills a
row moves none of the others. In (6) the text comes first, in a row of full length, and the numbers k after it, and each
reads only what stands before it.

    network: genmini/nets/transformer.py    samplers: genmini/samplers.py
    used by: genmini/models/dalle2.py    test: tests/models/test_dalle2_priors.py
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops, outputs
from genmini.nets.transformer import Transformer
from genmini.nets.unet import sinusoids
from genmini.samplers import sampler
from genmini.schedule import tables


class Text(NamedTuple):
    """What CLIP has of N texts."""

    w: torch.Tensor  # (N, d)
    h: torch.Tensor  # (N, l, E)
    mask: torch.Tensor  # (N, l): where there is an h


class Prior(nn.Module):
    """latent: d; words: E; width: of the transformer; hide: the share of texts that are hidden in training"""

    def __init__(self, latent, words, width, hide):
        super().__init__()
        self.latent, self.hide = latent, hide
        self.of_words, self.of_text = nn.Linear(words, width), nn.Linear(latent, width)
        self.none = nn.Parameter(torch.randn(width))  # in the place of a hidden w

    def begin(self, z):
        """Take what is not learnt step by step of codes (N, d) of train."""

    def read(self, text, hidden):
        """The text as vectors (N, 1 + l, width), and which of them are read; it is hidden where hidden (N,) is true."""
        w = torch.where(hidden[:, None], self.none, self.of_text(math.sqrt(self.latent) * text.w))
        mask = torch.cat([torch.ones_like(hidden[:, None]), text.mask & ~hidden[:, None]], 1)
        return torch.cat([w[:, None], self.of_words(text.h)], 1), mask

    def loss(self, z, text):
        """Codes (N, d) and their texts -> (N,) in `unit`. In eval mode nothing is hidden, and the draws of (1) are the
        same at each call."""
        generator = None if self.training else torch.Generator(z.device).manual_seed(0)
        hidden = torch.rand(len(z), generator=generator, device=z.device) < self.hide * self.training
        return self._loss(z, text, hidden, generator)


class Denoiser(Prior):
    unit = "squared error"

    def __init__(self, latent, words, length, width, blocks, heads, dropout, hide, T, schedule, sampler, draws,
                 device=None, dtype=None):
        """length: of the longest text; width, blocks, heads, dropout: of the transformer; T, schedule: of (1); sampler,
        draws: its name and steps."""
        super().__init__(latent, words, width, hide)
        self.T, self.how, self.draws, self.frequencies = T, sampler, draws, max(1, width // 2)
        self.of_time = nn.Sequential(nn.Linear(2 * self.frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.of_z, self.first = nn.Linear(latent, width), nn.Parameter(torch.randn(width))
        self.reader = Transformer(4 + length, width, blocks, heads, dropout=dropout)
        self.out = nn.Linear(width, latent)
        self.to(device=device, dtype=dtype)
        a, s = tables(schedule, T)
        self.register_buffer("a", a.to(self.first.device), persistent=False)  # float64, whatever the dtype is
        self.register_buffer("s", s.to(self.first.device), persistent=False)

    def F(self, z_t, a, s, text, hidden):
        """z_t (N, d) at the time a, s, each (N,) or (1,) -> the estimate of sqrt(d) z, (N, d)"""
        log_snr = (2 * (a / s).log()).expand(len(z_t))
        time = self.of_time(sinusoids(log_snr, self.frequencies).to(z_t.dtype))
        read, mask = self.read(text, hidden)
        own = torch.stack([self.first.expand_as(time), time, self.of_z(z_t)], 1)
        mask = torch.cat([mask[:, :1].expand(-1, 3), mask], 1)
        return self.out(self.reader(torch.cat([own, read], 1), mask)[:, 0])  # (1)

    def _loss(self, z, text, hidden, generator):
        N, z_0 = len(z), math.sqrt(self.latent) * z
        u = (torch.arange(N, device=z.device) + torch.rand(N, generator=generator, device=z.device)) / max(1, N)
        t = 1 + (self.T * u).long().clamp(max=self.T - 1)
        noise = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        z_t, _ = ops.q_sample(z_0, t, self.a, self.s, noise, target="x0")  # (1)
        return (self.F(z_t, self.a[t], self.s[t], text, hidden) - z_0).square().mean(1)  # (2)

    def step(self, text, guidance):
        """The `step` of genmini/samplers.py"""
        shown = torch.zeros(len(text.w), dtype=torch.bool, device=text.w.device)

        def step(z, t, r, eta=0.0):
            a, s = (torch.full((1,), v, dtype=torch.float64, device=z.device) for v in t)
            out = self.F(z, a, s, text, shown)
            other = None if guidance == 1 else self.F(z, a, s, text, ~shown)
            return ops.ddim_step(z, out, *t, *r, "x0", other, guidance, eta=eta)  # (3)

        return step

    @torch.no_grad()
    def sample(self, text, guidance=1.0):
        """A draw of z for each text, (N, d)"""
        t = torch.linspace(self.T, 0, self.draws + 1, dtype=torch.float64).round().long()
        path = list(zip(self.a[t].tolist(), self.s[t].tolist(), strict=True))
        return F.normalize(sampler(self.how)(self.step(text, guidance), torch.randn_like(text.w), path), dim=1)


class Numbers(Prior):
    unit = "nats"

    def __init__(self, latent, words, length, width, blocks, heads, dropout, hide, directions, bins,
                 device=None, dtype=None):
        """length to dropout: as of a Denoiser; directions: D', at most d; bins: B"""
        super().__init__(latent, words, width, hide)
        self.length, self.J, self.bins = length, min(directions, latent), bins
        self.E = nn.Embedding(bins + 1, width)  # the last one is the start's
        self.reader = Transformer(1 + length + self.J, width, blocks, heads, causal=True, dropout=dropout)
        self.out = nn.Linear(width, bins)
        self.p = outputs.Levels(bins, dim=-1)
        self.register_buffer("m", torch.zeros(latent))
        self.register_buffer("V", torch.eye(self.J, latent))
        levels = torch.linspace(-1, 1, 2 * bins + 1).expand(self.J, -1)
        self.register_buffer("edges", levels[:, 2:-1:2].clone())  # (D', B - 1)
        self.register_buffer("c", levels[:, 1::2].clone())  # (D', B)
        self.to(device=device, dtype=dtype)

    def begin(self, z):
        if len(z) < 2:
            raise ValueError(f"the autoregressive prior needs the codes of 2 images or more, got {len(z)}")
        z = z.double()
        variance, U = torch.linalg.eigh(z.T.cov().view(self.latent, self.latent))  # rising
        V = U[:, variance.argsort(descending=True)[: self.J]].T
        r = (z - z.mean(0)) @ V.T  # (4)
        levels = r.quantile(torch.arange(1, 2 * self.bins, device=r.device).to(r) / (2 * self.bins), dim=0).T
        for name, value in dict(m=z.mean(0), V=V, edges=levels[:, 1::2], c=levels[:, ::2]).items():
            getattr(self, name).copy_(value)

    def numbers(self, z):
        """(N, d) -> k (N, D') int64"""
        r = (z - self.m) @ self.V.T  # (4)
        return (r[:, :, None] > self.edges).sum(2)  # (5)

    def code(self, k):
        """(N, D') -> z (N, d)"""
        c = self.c.expand(len(k), -1, -1).gather(2, k[:, :, None])[:, :, 0]
        return F.normalize(self.m + c @ self.V, dim=1)  # (8)

    def F(self, k, text, hidden):
        """k_1 ... k_j-1 (N, j - 1) -> a_1 ... a_j, (N, j, B)"""
        fill = self.length - text.h.shape[1]
        text = Text(text.w, F.pad(text.h, (0, 0, 0, fill)), F.pad(text.mask, (0, fill)))
        read, mask = self.read(text, hidden)
        own = self.E(torch.cat([torch.full_like(text.mask[:, :1], self.bins, dtype=torch.long), k], 1))
        mask = torch.cat([mask, torch.ones_like(own[:, :, 0], dtype=torch.bool)], 1)
        return self.out(self.reader(torch.cat([read, own], 1), mask)[:, -own.shape[1] :])

    def log_p(self, k, text, hidden):
        """(N, D') -> (N,) in nats"""
        return self.p.log_p(self.F(k[:, :-1], text, hidden), k).sum(1)  # (6)

    def _loss(self, z, text, hidden, generator):
        return -self.log_p(self.numbers(z), text, hidden)

    @torch.no_grad()
    def draw(self, text, guidance=1.0):
        """k of each text, (N, D')"""
        N, device = len(text.w), text.w.device
        shown, k = torch.zeros(N, dtype=torch.bool, device=device), torch.zeros(N, 0, dtype=torch.long, device=device)
        for _ in range(self.J):
            a = self.F(k, text, shown)[:, -1]
            if guidance != 1:
                other = self.F(k, text, ~shown)[:, -1]
                a = other + guidance * (a - other)  # (7)
            k = torch.cat([k, self.p.draw(a, torch.rand(N, device=device))[:, None].long()], 1)
        return k

    def sample(self, text, guidance=1.0):
        """A draw of z for each text, (N, d)"""
        return self.code(self.draw(text, guidance))
