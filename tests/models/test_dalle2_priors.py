"""Laws of the two priors of DALL-E 2: probabilities sum to one and draws follow them, numbers are equally frequent and
their codes are near, padding has no effect, guidance 1 is the conditional model, and a prior learns the code of a text.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from check import drawn_from

from genmini.models._priors import Denoiser, Numbers, Text

LENGTH, WORDS = 5, 6
SIZES = dict(length=LENGTH, words=WORDS, width=8, blocks=1, heads=2, dropout=0.0, hide=0.25)
TIMES = dict(T=100, schedule="cosine", sampler="dpm", draws=5)


def texts(N, latent, l=LENGTH):
    torch.manual_seed(1)
    mask = torch.arange(l) < torch.randint(1, l + 1, (N, 1))
    return Text(F.normalize(torch.randn(N, latent).double(), dim=1), torch.randn(N, l, WORDS).double(), mask)


def denoiser(latent=4, **settings):
    """In float64, with random weights everywhere"""
    return filled(Denoiser(latent, **SIZES | TIMES | settings, dtype=torch.float64))


def numbers(latent=4, directions=2, bins=3, **settings):
    return filled(Numbers(latent, **SIZES | settings, directions=directions, bins=bins, dtype=torch.float64))


def filled(prior):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.normal_(std=0.6)
    return prior.eval()


each = pytest.mark.parametrize("make", [denoiser, numbers])


# ---- both ------------------------------------------------------------------------------------------------------------


@each
def test_what_fills_a_row_has_no_effect(make):
    prior, text, z = make(), texts(6, 4), F.normalize(torch.randn(6, 4).double(), dim=1)
    loss = prior.loss(z, text)
    assert loss.shape == (6,) and not text.mask.all() and text.mask.any(0).all()
    other = text._replace(h=torch.where(text.mask[:, :, None], text.h, 100.0))
    assert torch.equal(prior.loss(z, other), loss)
    short, fits = Text(text.w, text.h[:, :3], text.mask[:, :3]), text.mask.sum(1) <= 3
    assert fits.any()
    torch.testing.assert_close(prior.loss(z, short)[fits], loss[fits], atol=1e-12, rtol=1e-12)
    changed = text._replace(h=text.h + F.pad(torch.ones(1, 1, WORDS).double(), (0, 0, 0, LENGTH - 1)))
    assert (prior.loss(z, changed) != loss).all()


@each
def test_a_hidden_text_is_not_read_and_a_share_is_hidden_in_training_alone(make):
    prior, N, seen = make(), 2000, []
    text, other = texts(N, 4), texts(2 * N, 4)
    other = Text(*(part[N:] for part in other))
    z = F.normalize(torch.randn(N, 4).double(), dim=1)
    hidden = torch.arange(N) % 2 == 0
    alike = lambda one, two: (one == two).flatten(1).all(1)
    vectors, masks = zip(prior.read(text, hidden), prior.read(other, hidden), strict=True)
    assert torch.equal(alike(vectors[0][:, :1], vectors[1][:, :1]), hidden)
    assert masks[0][hidden].sum(1).eq(1).all() and torch.equal(masks[0][~hidden, 1:], text.mask[~hidden])
    read = prior.read
    prior.read = lambda text, hidden: (seen.append(hidden), read(text, hidden))[1]
    with torch.no_grad():
        prior.train().loss(z, text)
        first = prior.eval().loss(z, text)
        assert torch.equal(prior.loss(z, text), first)  # the same draws
    assert abs(seen[0].double().mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / N) and not seen[1].any()


@each
def test_codes_that_are_drawn_have_length_one(make):
    z = make().sample(texts(7, 4), guidance=2.0)
    assert z.shape == (7, 4) and make().sample(texts(0, 4)).shape == (0, 4)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(7).double(), atol=1e-12, rtol=0)


# ---- by diffusion ----------------------------------------------------------------------------------------------------


def test_the_loss_is_the_error_of_the_estimate():
    """(1), (2) by hand, of the times and the noise that eval mode draws."""
    prior, text, z = denoiser(), texts(3, 4), F.normalize(torch.randn(3, 4).double(), dim=1)
    generator = torch.Generator().manual_seed(0)
    torch.rand(3, generator=generator)  # that hide texts
    t = 1 + (100 * (torch.arange(3) + torch.rand(3, generator=generator)) / 3).long()
    noise = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    a, s = prior.a[t, None], prior.s[t, None]
    out = prior.F(a * 2 * z + s * noise, a[:, 0], s[:, 0], text, torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(prior.loss(z, text), (out - 2 * z).square().mean(1), atol=1e-12, rtol=1e-12)


def test_guidance_1_is_the_prior_of_the_text_and_0_that_of_none():
    prior, text, z, t, r = denoiser(), texts(2, 4), torch.randn(2, 4).double(), (0.6, 0.8), (0.8, 0.6)
    with torch.no_grad():
        at = lambda g, text=text: prior.step(text, g)(z, t, r)
        other = text._replace(w=-text.w, h=-text.h)
        conditional, unconditional = at(1), at(0)
        assert (conditional - unconditional).abs().max() > 1e-3
        torch.testing.assert_close(at(0, other), unconditional, atol=1e-12, rtol=1e-12)  # it reads no text
        for w in (1 + 1e-9, 3.0):
            far = unconditional + w * (conditional - unconditional)
            torch.testing.assert_close(at(w), far, atol=1e-12, rtol=1e-12)


def learnt(prior, steps, rate):
    """Two texts of one word, and two codes: the prior learns which belongs to which -> cosines with either, (N, 2)"""
    torch.manual_seed(0)
    z = F.normalize(torch.randn(2, 4), dim=1)
    h, w = torch.randn(2, 1, WORDS), F.normalize(torch.randn(2, 4), dim=1)
    of = lambda n: Text(w[n], h[n], torch.ones(len(n), 1, dtype=torch.bool))
    n = torch.arange(32) % 2
    prior.begin(z[n])
    adam = torch.optim.Adam(prior.parameters(), rate)
    for _ in range(steps):
        adam.zero_grad()
        prior.train().loss(z[n], of(n)).mean().backward()
        adam.step()
    return prior.eval().sample(of(n)) @ z.T, n


@pytest.mark.parametrize("make", [lambda: Denoiser(4, **SIZES | TIMES), lambda: Numbers(4, **SIZES, directions=1,
                                                                                       bins=2)])
def test_it_learns_the_code_of_each_text(make):
    torch.manual_seed(3)
    cosines, n = learnt(make(), steps=300, rate=1e-2)
    assert cosines.min() < 0.5  # the codes differ
    assert (cosines.gather(1, n[:, None]) > 0.97).double().mean() > 0.9  # numbers are drawn, and a few are wrong


# ---- number by number ------------------------------------------------------------------------------------------------

EVERY = torch.cartesian_prod(torch.arange(3), torch.arange(3))


def test_probabilities_sum_to_one_and_draws_follow_them():
    """Of all 9 pairs of numbers, given two texts, and none."""
    prior, two = numbers(), texts(2, 4)
    for hidden in (False, True):
        for k in range(2):
            text = Text(*(part[k : k + 1].expand(9, *part.shape[1:]) for part in two))
            p = prior.log_p(EVERY, text, torch.full((9,), hidden)).exp()
            assert abs(p.sum().item() - 1) < 1e-12 and p.max() > 2 * p.min()
            some = Text(*(part[:1].expand(20_000, *part.shape[1:]) for part in text))
            drawn = prior.draw(some, guidance=0 if hidden else 1)
            drawn_from(torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9), 20_000 * p.detach())


def test_guidance_changes_the_logits_of_each_number():
    """(7), of the first number by hand"""
    prior, one = numbers(directions=1, bins=6), texts(1, 4)
    some = Text(*(part.expand(20_000, *part.shape[1:]) for part in one))
    k = torch.zeros(1, 0, dtype=torch.long)
    with torch.no_grad():
        a, other = (prior.F(k, one, torch.tensor([hidden]))[0, 0] for hidden in (False, True))
    p = (other + 2 * (a - other)).softmax(0)
    assert (p - a.softmax(0)).abs().max() > 0.01
    drawn_from(torch.bincount(prior.draw(some, guidance=2.0)[:, 0], minlength=6), 20_000 * p)


def test_no_number_reads_itself_or_a_later_one():
    prior, text, none = numbers(directions=4), texts(1, 4), torch.tensor([False])
    k = torch.tensor([[0, 2, 1]])
    a = prior.F(k, text, none)
    for j in range(3):
        other = prior.F(k.index_fill(1, torch.tensor(j), 0 if k[0, j] else 1), text, none)
        assert torch.equal(other[:, : j + 1], a[:, : j + 1]) and (other[:, j + 1 :] != a[:, j + 1 :]).all()


def test_numbers_are_equally_frequent_along_the_widest_directions():
    """(4), (5), (8): 600 codes, 200 of each number of each direction; the code of these numbers is near."""
    torch.manual_seed(2)
    z = F.normalize(torch.tensor([1.0, 0, 0, 0]) + torch.randn(600, 4) * torch.tensor([0.1, 0.05, 0.6, 0.3]), dim=1)
    prior = Numbers(4, **SIZES, directions=2, bins=3)
    prior.begin(z)
    k = prior.numbers(z)
    assert k.shape == (600, 2) and all(torch.bincount(k[:, j]).tolist() == [200] * 3 for j in range(2))
    assert prior.V.abs().argmax(1).tolist() == [2, 3]
    # V is rounded to float32, and so are the products and their sum of 4: of sizes that add up to 1
    torch.testing.assert_close(prior.V @ prior.V.T, torch.eye(2), atol=6 * 2**-24, rtol=0)
    r = (z - z.mean(0)) @ prior.V.T
    # the same two codes are the middle of the 600 and of these 200; another product of 4 terms of at most 1 gave theirs
    torch.testing.assert_close(r[k[:, 0] == 1, 0].quantile(0.5), prior.c[0, 1], atol=2 * 6 * 2**-24, rtol=0)
    coarse = (prior.code(k) * z).sum(1).mean()
    fine = Numbers(4, **SIZES, directions=4, bins=100)
    fine.begin(z)
    assert 0.9 < coarse < (fine.code(fine.numbers(z)) * z).sum(1).mean() and coarse < 0.99
    assert ((fine.code(fine.numbers(z)) * z).sum(1) > 0.99).all()
