"""A transformer: attention adds to each vector of a sequence a mean of the others, and a perceptron changes it.

Vaswani et al., "Attention Is All You Need", 2017; with the norms before what they are for (Xiong et al., "On Layer
Normalization in the Transformer Architecture", 2020).

    Transformer(L, width)    h (N, l, width), l <= L -> (N, l, width)

    h <- h + position                                             one vector for each of L places, learnt
    h <- h + W softmax(q k^T / sqrt(d)) v                         in each block; q, k, v are linear in norm(h), and
                                                                  `heads` such sums of d numbers lie side by side
    h <- h + W gelu(V norm(h))
    norm(h)

`causal`: a vector reads itself and those before it, as MADE's masks have it, and its result depends on no later one.
mask (N, l) is true where there is something to read: in each row somewhere, or its result is not a number. A causal
transformer needs none for what fills the end of a row, because nothing before reads that.

`sided`: of the heads, one half reads a vector itself and those before it, the other half itself and those after it.
Head i of each half takes |l - m| / (2 4^i) from the score of vector m for vector l, i = 0, 1, ..., so that near vectors
count for more (Press, Smith, Lewis, "Train Short, Test Long", 2022). In "a circle left of a square" the words "left of"
stand after the circle and before the square. The two halves read them by other weights, so that what they say of either
noun is linear in what is read. To heads that read both sides it is an exclusive or, of the side and of the word, and
the gradient of that is small for a long time. For the same reason the attention of a sided block adds something at
initialisation. A vector that the mask leaves out reads itself.

Attention is PyTorch's own, which stores no l x l matrix where it can do without: there is no room for it here.

    used by: language.py, clip.py, dalle2.py, _priors.py and _painters.py of genmini/models
    test: tests/models/test_transformer.py
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from genmini.nets.unet import zero
from genmini.settings import share, whole


class Transformer(nn.Module):
    """blocks: how many; heads: sums that each attention takes, of width / heads numbers. What a block adds is 0 at
    initialisation, unless it is sided."""

    def __init__(self, L, width=96, blocks=4, heads=4, causal=False, dropout=0.0, sided=False):
        super().__init__()
        whole(L=L, width=width, heads=heads)
        whole(0, blocks=blocks)
        share(dropout=dropout)
        if width % heads:
            raise ValueError(f"width must be a multiple of heads = {heads}, got {width}")
        if sided and (causal or heads % 2):
            raise ValueError(f"sided needs an even number of heads that are not causal, got heads = {heads}"
                             + " and causal" * causal)
        self.position = nn.Parameter(0.02 * torch.randn(L, width))
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(blocks))
        self.norm, self.causal, self.sided, self.heads = nn.LayerNorm(width), causal, sided, heads
        if sided:
            for block in self.blocks:
                nn.init.normal_(block.qkv.weight[2 * width :], std=width**-0.5)  # of v
                nn.init.normal_(block.out.weight, std=2 * width**-0.5)

    def forward(self, h, mask=None, inputs=None):
        """inputs: a list, which gets the input of each block"""
        l = h.shape[1]
        h = h + self.position[:l]
        seen, causal = None, self.causal
        if mask is not None:
            seen, causal = mask[:, None, None], False  # (N, heads, l that reads, l that is read)
            if self.causal:
                seen = seen & torch.ones(l, l, dtype=torch.bool, device=h.device).tril()
        if self.sided:
            seen, causal = sides(l, self.heads, h, seen), False
        for block in self.blocks:
            if inputs is not None:
                inputs.append(h)
            h = block(h, seen, causal)
        return self.norm(h)

    def next(self, h, l, past):
        """The result of a causal transformer at place l, for the vectors there, (N, width) -> (N, width). past: a list
        for each block, empty at first, which keeps the keys and the values of the places before."""
        h = (h + self.position[l])[:, None]
        for block, kept in zip(self.blocks, past, strict=True):
            h = block(h, None, False, kept)
        return self.norm(h)[:, 0]


def sides(l, heads, like, seen=None):
    """What is added to the scores of sided heads, (1 or N, heads, l, l): -infinity where nothing is read"""
    place = torch.arange(l, device=like.device)
    after = place[:, None] - place  # by how much the one that reads comes later
    slope = (0.5 / 4.0 ** torch.arange(heads // 2, device=like.device)).repeat(2)[:, None, None]
    may = torch.stack([after >= 0, after <= 0]).repeat_interleave(heads // 2, 0)[None]
    may = may if seen is None else may & seen | (after == 0)
    return (-after.abs() * slope).to(like).where(may, -math.inf)


class Block(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), zero(nn.Linear(width, width))
        self.between, self.V, self.W = (nn.LayerNorm(width), nn.Linear(width, 4 * width),
                                        zero(nn.Linear(4 * width, width)))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h, seen, causal, past=None):
        q, k, v = self.qkv(self.norm(h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, l, d)
        if past is not None:
            past[:] = k, v = [torch.cat(both, 2) for both in zip(past, (k, v), strict=True)] if past else [k, v]
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal)
        h = h + self.dropout(self.out(a.transpose(1, 2).flatten(2)))
        return h + self.dropout(self.W(F.gelu(self.V(self.between(h)))))
