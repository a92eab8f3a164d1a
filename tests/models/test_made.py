"""Tests of MADE: it is a probability, a pixel depends only on earlier ones, its sampler draws from it, and it
learns."""

import itertools
import math

import pytest
import torch
from check import drawn_from
from check_models import completes, differentiable, follows, probability, space

from genmini import data, kernels
from genmini.models.made import MADE
from genmini.train import evaluate, fit

MODELS = {
    "one layer": dict(hidden=(20,)),
    "no hidden layer, direct": dict(hidden=(), direct=True),
    "deep, direct, random order": dict(hidden=(17, 40, 9), direct=True, order="random"),
    "fewer units than pixels": dict(hidden=(2,)),
    "three levels": dict(hidden=(20, 20), levels=3, direct=True),
    "four levels, given order": dict(hidden=(30,), levels=4, order=[4, 0, 2, 1, 3]),
}
each = pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)


def made(shape=5, seed=3, scale=3.0, **settings):
    """Untrained, with weights large enough that its conditionals are far from even."""
    torch.manual_seed(seed)
    model = MADE(shape, **settings).double()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model.eval()


@each
def test_probabilities_sum_to_one(settings):
    probability(made(**settings))


@each
def test_logits_see_exactly_what_comes_before_in_the_order(settings):
    """The Jacobian of the logits over the bits that enter is strictly triangular in the order, and full below the
    diagonal where there are enough units."""
    model = made(**settings)
    L, D = model.levels, model.D
    torch.manual_seed(0)
    seen = torch.zeros(D, D, dtype=torch.bool)  # [predicted, looked at], in pixel order
    for x in torch.randint(L, (40, 1, D), dtype=torch.float64):
        if L == 2:
            jacobian = torch.autograd.functional.jacobian(lambda x: model.logits(x)[0], x)[:, 0]
        else:  # levels are not differentiated: change one pixel at a time
            others = x.repeat(D, 1)
            others[range(D), range(D)] = (others[range(D), range(D)] + 1) % L
            # products of matrices round by their shapes
            jacobian = (model.logits(others) - model.logits(x)).abs().amax(-1).T > 1e-12
        seen |= jacobian != 0
    seen = seen[model.orders[0]][:, model.orders[0]]
    assert not seen.triu().any()
    if settings["hidden"] != (2,):
        assert torch.equal(seen, torch.ones(D, D).tril(-1).bool())


@each
def test_samples_follow_log_prob(settings):
    follows(made(3, scale=2.0, **{**settings, "order": [2, 0, 1]}))


@each
def test_the_same_noise_gives_the_naive_sample(settings):
    """A pixel is the number of levels whose cumulative probability its u passes."""
    model, u = made(**settings), torch.rand(50, 5, dtype=torch.float64)
    x = model.sample(50, u=u)
    assert torch.equal(x, model.sample(50, u=u)) and torch.equal(x, model.sample_naive(50, u=u))
    for d, pixel in enumerate(model.orders[0].tolist()):
        a = model.logits(x)[:, pixel]
        below = torch.sigmoid(-a)[:, None] if model.levels == 2 else a.softmax(-1).cumsum(-1)[:, :-1]
        assert torch.equal(x[:, pixel].long(), (u[:, d, None] >= below).sum(1))


@each
def test_completion_keeps_what_is_known(settings):
    model = made(**settings)
    completes(model)
    u, x = torch.rand(50, 5, dtype=torch.float64), torch.randint(model.levels, (50, 5))
    assert torch.equal(model.sample(50, u=u, x=x, known=3), model.sample_naive(50, u=u, x=x, known=3))


# ---- several masks ---------------------------------------------------------------------------------------------------

MIXTURES = {
    "several masks": dict(hidden=(20, 11), masks=3),
    "several orders, direct": dict(hidden=(20,), masks=4, order="random", direct=True),
    "three levels": dict(hidden=(20,), levels=3, masks=2, order="random"),
}
each_mixture = pytest.mark.parametrize("settings", MIXTURES.values(), ids=MIXTURES)


@each_mixture
def test_a_mixture_averages_probabilities(settings):
    model = made(**settings)
    x, K = space(model), settings["masks"]
    each = torch.stack([model.log_prob(x, mask=k) for k in range(K)])
    assert (each.exp().sum(1) - 1).abs().max() < 1e-12
    assert all((a - b).abs().max() > 0.1 for a, b in itertools.combinations(each, 2)), (
        "the test wants masks that differ")
    torch.testing.assert_close(model.log_prob(x).exp(), each.exp().mean(0))
    assert abs(model.log_prob(x).exp().sum().item() - 1) < 1e-12
    model.log_prob(x).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_averaged_logits_are_no_probability():
    """The mean of logits over masks, which a well-known implementation reports, does not sum to one over the space."""
    model = made(masks=4, hidden=(20,), order="random", scale=6.0)
    x = space(model)
    logits = torch.stack([model.logits(x, k) for k in range(4)]).mean(0)
    log_p = -torch.nn.functional.binary_cross_entropy_with_logits(logits, x.double(), reduction="none").sum(1)
    assert abs(log_p.exp().sum().item() - 1) > 0.02


@each_mixture
def test_every_mask_looks_only_backwards(settings):
    model = made(**settings)
    x = torch.randint(model.levels, (1, model.D))
    others = x.repeat(model.D, 1)
    others[range(model.D), range(model.D)] = (others[range(model.D), range(model.D)] + 1) % model.levels
    for k, order in enumerate(model.orders):
        # [changed, predicted]
        changed = (model.logits(others, k) - model.logits(x, k)).abs().reshape(model.D, model.D, -1).amax(-1) > 1e-12
        assert not changed[order][:, order].tril().any() and changed.any()


@each_mixture
def test_samples_follow_the_mixture(settings):
    model, n = made(3, scale=2.0, **settings), 20000
    x = model.sample(n)
    seen = torch.bincount((x.long() * model.levels ** torch.arange(2, -1, -1)).sum(1), minlength=model.levels**3)
    wanted = n * model.log_prob(space(model)).exp()
    drawn_from(seen, wanted)


@each_mixture
def test_a_mixture_draws_as_the_naive_sampler(settings):
    model, u = made(**settings), torch.rand(60, 6, dtype=torch.float64)
    x = model.sample(60, u=u)
    assert torch.equal(x, model.sample_naive(60, u=u)) and torch.equal(x, model.sample(60, u=u))
    mask = (u[:, -1] * settings["masks"]).long()
    assert len(mask.unique()) == settings["masks"]
    for n in (0, 7, 31):  # each row from its own mask alone
        k, row = mask[n].item(), x[n : n + 1]
        order, a = model.orders[k], model.logits(row, k)[0]
        for d, pixel in enumerate(order.tolist()):
            below = torch.sigmoid(-a[pixel])[None] if model.levels == 2 else a[pixel].softmax(-1).cumsum(-1)[:-1]
            assert row[0, pixel] == (u[n, d] >= below).sum()


def test_a_mixture_completes_by_the_posterior_of_its_masks():
    """p(rest | known) is that of the mixture: a chi-square over the completions of one beginning."""
    model, n = made(4, scale=2.0, hidden=(12,), masks=3), 20000
    begun = torch.tensor([[1, 0, 0, 0]], dtype=torch.uint8).expand(n, 4)
    x = model.sample(n, x=begun, known=2)
    assert torch.equal(x[:, :2], begun[:, :2])
    rest = space(model)[8:12]
    p = model.log_prob(rest).softmax(0)
    seen = torch.bincount(x[:, 2].long() * 2 + x[:, 3].long(), minlength=4)
    assert ((seen - n * p) ** 2 / (n * p)).sum() < 3 + 4.5 * math.sqrt(6)
    with pytest.raises(ValueError, match="known = 2 pixels: the orders of the masks differ"):
        made(6, masks=5, order="random").sample(2, x=torch.zeros(2, 6), known=2)
    with pytest.raises(ValueError, match="known must count numbers of x, 0 to 4, got 2 and no x"):
        model.sample(2, known=2)
    with pytest.raises(ValueError, match=r"u must have shape \(2, 5\)"):
        model.sample(2, u=torch.rand(2, 4))


def test_training_takes_one_mask_at_a_time():
    model = made(masks=3, hidden=(20,), order="random").train()
    each = [model.log_prob(space(model), mask=k) for k in range(3)]
    drawn = [model.log_prob(space(model)) for _ in range(30)]
    hits = [sum(torch.equal(d, e) for d in drawn) for e in each]
    assert sum(hits) == 30 and min(hits) > 0


@pytest.mark.parametrize("settings", [dict(hidden=(20, 11)),
                                      dict(hidden=(20,), masks=2, order="random", levels=3, direct=True)], ids=str)
def test_resampled_every_batch_has_a_probability_of_its_own(settings):
    model = made(4, resample=True, **settings).train()
    each = [model.log_prob(space(model)) for _ in range(12)]
    for log_p in each:
        assert abs(log_p.exp().sum().item() - 1) < 1e-12
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.combinations(each, 2)), (
        "12 of more than a thousand masks, none twice")
    one = model.eval().log_prob(space(model))
    assert (torch.equal(one, model.log_prob(space(model)))
            and abs(one.exp().sum().item() - 1) < 1e-12), "judged by the masks that are kept"


def test_resampled_the_weights_learn_every_order():
    """Of copies of one bit, judged in all 24 orders, the worst order costs a fraction of what it costs otherwise if
    training drew orders anew. (It still costs something: the weights are not told which pixels are seen, and an unseen
    one looks like a 0.)"""
    torch.manual_seed(0)
    bit = torch.randint(2, (512, 1))
    # one bit of information: log p = -log 2, in whatever order
    x = torch.cat([bit, bit, 1 - bit, bit], 1).to(torch.uint8)
    excess = {}
    for resample in (True, False):
        torch.manual_seed(1)
        model = MADE(4, (64,), order="random", resample=resample)
        optimiser = torch.optim.Adam(model.parameters(), 0.02)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0, 600)
        for _ in range(600):
            optimiser.zero_grad()
            (-model.log_prob(x)).mean().backward()
            optimiser.step()
            schedule.step()
        orders = [[1 + torch.tensor(order).argsort()[model.orders[0]], model.m1[0]]
                  for order in itertools.permutations(range(4))]
        excess[resample] = max(-model._log_p(x, mask).sum(1).mean().item() - math.log(2) for mask in orders)
    assert excess[True] < excess[False] / 5, excess


def test_masks_travel_with_the_weights():
    model, other = made(masks=3, order="random"), made(masks=3, order="random", seed=4)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.log_prob(space(model)), other.log_prob(space(model)))


# ---- learning --------------------------------------------------------------------------------------------------------


@each
def test_gradients_flow_to_every_weight_that_lives(settings):
    model = made(**settings)
    (-model.log_prob(space(model))).logsumexp(0).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name


def test_gradcheck():
    model = made(4, hidden=(6,), direct=True)
    x = torch.randint(2, (3, 4)).double()
    differentiable(model, x)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU Triton compiles in this process and cannot interpret")
@pytest.mark.parametrize("rung", kernels.rungs("masked_linear"))
def test_the_model_runs_on_the_gpu_kernels(rung):
    """Whole likelihood and gradient through the emulated kernels of masked_linear, against the reference."""
    model = made(hidden=(20,), direct=True, order="random")
    x, results = space(model), []
    for backend in ("reference", "emulated"):
        with kernels.use(backend, rung if backend == "emulated" else None):
            log_p = model.log_prob(x)
            results.append((log_p, *torch.autograd.grad(log_p.square().sum(), list(model.parameters()))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_images_and_dtypes():
    model = MADE((2, 3), hidden=8)
    x = torch.randint(2, (7, 2, 3))
    assert torch.equal(model.log_prob(x), model.log_prob(x.to(torch.uint8)))
    assert torch.equal(model.log_prob(x), model.log_prob(x.float().flatten(1)))
    assert (model.log_prob(x).shape == (7,) and model.sample(2).shape == (2, 2, 3)
            and model.log_prob(x[:0]).shape == (0,))
    assert MADE(1).log_prob(torch.tensor([[0], [1]])).exp().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("wrong", [dict(order="backwards"), dict(order=[0, 1, 1]), dict(order=[1, 2, 3]),
                                   dict(levels=1), dict(masks=0)])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MADE(3, **wrong)


@pytest.fixture
def one_thread():
    """Run on one thread: matrices so small are faster so, and no other process's threads slow them down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_it_learns_the_digits(one_thread):
    """A short training beats independent pixels by far, on unseen images."""
    torch.manual_seed(0)
    train, valid, test = (data.load("digits-threshold", split) for split in data.SPLITS)
    p = (train.x.double().sum(0) + 0.5) / (len(train) + 1)
    independent = -(test.x * p.log() + (1 - test.x.double()) * (1 - p).log()).sum((1, 2)).mean().item()
    model = MADE(train.shape, hidden=(200,))
    before, _ = evaluate(model, test)
    history = fit(model, train, valid, steps=1000, rate=2e-3, progress=False)
    after, error = evaluate(model, test)
    assert before > 40 and independent > 24 and 0 < error < 1
    assert after < 20.4 and history.valid < 20.4  # what a model without hidden units (FVSBN) reaches
    assert history.rows[0]["valid"] > history.rows[-1]["valid"]
