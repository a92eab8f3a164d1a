"""Tests of NADE: it is a probability, a pixel depends only on earlier ones, its sampler draws from it and completes
images, and it learns."""

import itertools
import math

import pytest
import torch
from check_models import completes, differentiable, follows, probability, space

from genmini import data, kernels
from genmini.models.nade import NADE
from genmini.train import evaluate, fit

MODELS = {
    "two levels": dict(hidden=20),
    "random order": dict(hidden=7, order="random"),
    "three levels": dict(hidden=20, levels=3),
    "four levels, given order": dict(hidden=9, levels=4, order=[4, 0, 2, 1, 3]),
}
each = pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)


def nade(shape=5, seed=3, scale=3.0, **settings):
    """Untrained, with weights large enough that its conditionals are far from even."""
    torch.manual_seed(seed)
    model = NADE(shape, **settings).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * (p + 0.3 * torch.randn_like(p)))
    return model.eval()


def plainly(model, x):
    """(1)-(3) of the model, without (4): every h_d from the beginning. Logits in order, (N, D, rows of V a pixel)."""
    x = x.reshape(len(x), model.D)[:, model.order]
    bits = torch.stack([x >= l for l in range(1, model.levels)], 2).flatten(1).to(model.W.dtype)
    D, wide, rows = model.D, model.levels - 1, len(model.b) // model.D
    l = []
    for d in range(D):
        h = torch.sigmoid(model.c + bits[:, : d * wide] @ model.W[:, : d * wide].T)
        l.append(h @ model.V[d * rows : (d + 1) * rows].T + model.b[d * rows : (d + 1) * rows])
    return torch.stack(l, 1)


@each
def test_probabilities_sum_to_one(settings):
    probability(nade(**settings))


@each
def test_logits_are_those_of_separate_networks(settings):
    """Also: p(x_d = 1) is one sigmoid of V_d h_d + b_d, not two."""
    model = nade(**settings)
    wanted = plainly(model, space(model))
    wanted = (wanted[..., 0] if model.levels == 2 else wanted)[:, model.order.argsort()]
    torch.testing.assert_close(model.logits(space(model)), wanted)


@each
def test_logits_see_exactly_what_comes_before_in_the_order(settings):
    model = nade(**settings)
    x = torch.randint(model.levels, (1, model.D))
    others = x.repeat(model.D, 1)
    others[range(model.D), range(model.D)] = (others[range(model.D), range(model.D)] + 1) % model.levels
    # [flipped, predicted]
    changed = (model.logits(others) - model.logits(x)).abs().reshape(model.D, model.D, -1).amax(-1) > 1e-12
    assert torch.equal(changed[model.order][:, model.order], torch.ones(model.D, model.D).triu(1).bool())


@each
def test_samples_follow_log_prob(settings):
    follows(nade(3, scale=2.0, **{**settings, "order": [2, 0, 1]}))


@each
def test_the_same_noise_gives_the_naive_sample(settings):
    """A pixel is the number of levels whose cumulative probability, under logits computed anew, its u passes."""
    model, u = nade(**settings), torch.rand(50, 5, dtype=torch.float64)
    x = model.sample(50, u=u)
    assert torch.equal(x, model.sample(50, u=u))
    l = plainly(model, x)
    for d, pixel in enumerate(model.order.tolist()):
        below = torch.sigmoid(-l[:, d]) if model.levels == 2 else l[:, d].softmax(-1).cumsum(-1)[:, :-1]
        assert torch.equal(x[:, pixel].long(), (u[:, d, None] >= below).sum(1))


@each
def test_completion_keeps_what_is_known(settings):
    completes(nade(**settings))


@each
def test_gradcheck(settings):
    model = nade(4, **{**settings, "order": "natural", "hidden": 3})
    x = torch.randint(model.levels, (3, 4))
    differentiable(model, x)


@pytest.mark.parametrize("rung", kernels.rungs("nade"))
def test_the_model_runs_on_the_gpu_kernels(rung):
    model = nade(hidden=20, order="random")
    results = []
    for backend in ("reference", "cpu", "emulated"):
        with kernels.use(backend, rung if backend == "emulated" else None):
            log_p = model.log_prob(space(model))
            results.append((log_p, *torch.autograd.grad(log_p.square().sum(), list(model.parameters()))))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b)


def test_dropout_silences_whole_units():
    model = nade(hidden=8, dropout=0.5).train()
    torch.manual_seed(1)
    noisy = model.logits(space(model))
    torch.manual_seed(1)
    kept = model.dropout(torch.ones_like(model.c))
    with torch.no_grad():
        model.V.mul_(kept)
    assert sorted(set(kept.tolist())) == [0, 2] and torch.equal(noisy, model.eval().logits(space(model)))


def test_images_and_dtypes():
    model = NADE((2, 3), hidden=8)
    x = torch.randint(2, (7, 2, 3))
    assert torch.equal(model.log_prob(x), model.log_prob(x.to(torch.uint8)))
    assert torch.equal(model.log_prob(x), model.log_prob(x.float().flatten(1)))
    assert (model.log_prob(x).shape == (7,) and model.sample(2).shape == (2, 2, 3)
            and model.log_prob(x[:0]).shape == (0,))
    assert NADE(1).log_prob(torch.tensor([[0], [1]])).exp().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("wrong", [dict(order="backwards"), dict(order=[0, 1, 1]), dict(levels=1)])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NADE(3, **wrong)


def test_it_learns_the_digits():
    """A short training beats what a model without hidden units (FVSBN) reaches, on images that it has not seen."""
    torch.manual_seed(0)
    train, valid, test = (data.load("digits-threshold", split) for split in data.SPLITS)
    model = NADE(train.shape, hidden=200)
    before, _ = evaluate(model, test)
    history = fit(model, train, valid, steps=1000, rate=2e-3, progress=False)
    after, error = evaluate(model, test)
    assert before > 40 and after < 20.4 and history.valid < 20.4 and 0 < error < 1


# ---- all orders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 3])
def test_in_any_order_the_weights_go_with_their_pixels(levels):
    """By loops over pixels: each that comes before adds its columns, the first of which says that it has been seen."""
    model = nade(4, hidden=6, levels=levels, order="random", resample=True)
    rows, bits, at = 1 if levels == 2 else levels, levels, model.order.argsort().tolist()
    columns, V, b = model.W.view(6, 4, bits), model.V.view(4, rows, 6), model.b.view(4, rows)
    x = space(model)
    for order in ([2, 0, 3, 1], [0, 1, 2, 3], model.order.tolist()):
        wanted, a = torch.zeros(len(x), 4, rows).double(), model.c.expand(len(x), -1)
        for pixel in order:
            wanted[:, pixel] = a.sigmoid() @ V[at[pixel]].T + b[at[pixel]]
            a = a + columns[:, at[pixel], 0] + sum((x[:, pixel] >= l)[:, None] * columns[:, at[pixel], l]
                                                   for l in range(1, levels))
        torch.testing.assert_close(model.logits(x, torch.tensor(order)), wanted.squeeze(2))
        assert model.log_prob(x, order=torch.tensor(order)).exp().sum().item() == pytest.approx(1)
    assert torch.equal(model.log_prob(x), model.log_prob(x, order=model.order)), "in eval mode it has one order"


def test_resampled_the_weights_learn_every_order():
    """Copies of one bit cost log 2 in whatever order."""
    bit = torch.randint(2, (256, 1), generator=torch.Generator().manual_seed(0))
    x = torch.cat([bit, bit, 1 - bit, bit], 1).to(torch.uint8)
    worst = {}
    for resample in (True, False):
        torch.manual_seed(1)
        model = NADE(4, 16, order="random", resample=resample)
        optimiser = torch.optim.Adam(model.parameters(), 0.05)
        for _ in range(300):
            optimiser.zero_grad()
            (-model.log_prob(x)).mean().backward()
            optimiser.step()
        orders = map(torch.tensor, itertools.permutations(range(4)))
        worst[resample] = max(-model.log_prob(x, order=order).mean().item() for order in orders) if resample else (
            -model.log_prob(x).mean().item())
    share = bit.double().mean().item()
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert worst[False] < entropy + 0.05 and worst[True] < entropy + 0.1, (worst, entropy)


def test_orders_are_drawn_anew_where_the_order_is_random():
    with pytest.raises(ValueError, match="it is for order='random', got 'natural'"):
        NADE(4, resample=True)
    with pytest.raises(ValueError, match="resample must be True or False, got 2"):  # which would be two more bits
        NADE(4, order="random", resample=2)
    model = nade(5, hidden=6, order="random", resample=True).train()
    x = space(model)
    assert len({model.log_prob(x)[3].item() for _ in range(20)}) > 10
