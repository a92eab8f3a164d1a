"""Tests of VQVAE: its gradients stop where the course stops them, its bound is a bound, and its counts are right."""

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from check import drawn_from
from check_models import space

from genmini import data, models
from genmini.models.vqvae import VQVAE
from genmini.train import fit

SMALL = dict(K=8, dim=3, width=4, blocks=1, prior_width=4, prior_blocks=1)
TINY = {  # all images and all codes can be listed: 3^4 of both, or 2^4 images and 3^2 codes
    "levels": dict(shape=(2, 2), levels=3, **SMALL | dict(K=3, halvings=0)),
    "binary, a class": dict(shape=(2, 2), levels=2, classes=2, **SMALL | dict(K=3, halvings=0)),
    "colours, halved": dict(shape=(2, 2, 2), levels=2, **SMALL | dict(K=5, halvings=1)),
}
each = pytest.mark.parametrize("settings", TINY.values(), ids=TINY)


def vqvae(seed=1, with_prior=False, **settings):
    """In float64, untrained, with codes that are chosen and a prior that is not flat."""
    torch.manual_seed(seed)
    model = VQVAE(**settings).double()
    with torch.no_grad():
        for p in (*model.g.parameters(), *model.prior.parameters()):
            p.copy_(2 * (p + 0.2 * torch.randn_like(p)))
        x = space(model)
        z = model.z(x, 0 if model.classes else None).flatten(0, 2)
        model.codebook.weight.copy_(z[:: len(z) // model.K][: model.K])
    if with_prior:
        # of two classes, one is twice the other
        model.begin("prior", dataclasses.replace(TRAIN, x=x, y=(torch.arange(len(x)) % 3 == 0).long()))
    return model.eval()


TRAIN, VALID, TEST = (data.load("digits-threshold", split) for split in data.SPLITS)


# ---- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [0.0, 0.99])
def test_first_and_second_gradients_are_those_of_the_stopped_graph(average):
    """The loss and its gradients are (1) to (3) by hand with `detach`, and so is the gradient of a random combination
    of gradients, up to two orders of summation."""
    torch.manual_seed(0)
    model, x = (VQVAE((8, 8), levels=17, beta=0.3, average=average, **SMALL).double().train(),
                data.load("digits", "valid").x[:6])
    with torch.no_grad():
        z = model.z(x)
        model.codebook.weight.copy_(z.flatten(0, 2)[:: len(z) * 16 // model.K][: model.K]
                                    + 0.1 * torch.randn(model.K, 3))

    def by_hand():
        z, e = model.z(x), model.codebook.weight.clone()
        e = e[(z[..., None, :] - e).square().sum(-1).argmin(-1)]
        a = model.g((z + (e - z).detach()).movedim(-1, 1)).unflatten(1, (1, 17))
        nll = F.cross_entropy(a[:, 0], x.long(), reduction="none").flatten(1).sum(1)
        moved = 0 if average else (z.detach() - e).square().flatten(1).sum(1)
        return (nll + moved + 0.3 * (z - e.detach()).square().flatten(1).sum(1)
                + (e - z).detach().square().flatten(1).sum(1) * bool(average))

    parameters = [*model.f.parameters(), *model.g.parameters(), *model.codebook.parameters()]
    assert len(list(model.codebook.parameters())) == (not average)
    wanted, v = by_hand(), [torch.randn_like(p) for p in parameters]
    got = model.loss(x)
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=0)
    orders = []
    for loss in (got, wanted):
        first = torch.autograd.grad(loss.sum(), parameters, create_graph=True)
        second = torch.autograd.grad(sum((g * w).sum() for g, w in zip(first, v, strict=True)), parameters,
                                     allow_unused=True)
        orders.append([*first, *(torch.zeros(()) if g is None else g for g in second)])
    for one, other in zip(*orders, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert all(g.abs().max() > 1e-6 for g in orders[0][: len(parameters)])


def test_the_stages_learn_apart():
    """The first leaves the prior, the second the rest: no gradient, no bit, not even a running average."""
    model = VQVAE((8, 8), **SMALL)
    for stage, learns in (("codes", lambda name: not name.startswith("prior")),
                          ("prior", lambda name: name.startswith("prior"))):
        model.begin(stage, TRAIN)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        fit(model, TRAIN, VALID, steps=3, every=3, decay=0.1, progress=False)
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert moved and all(learns(name) for name in moved), moved
        assert "codebook.weight" in moved or stage == "prior"


# ---- the bound -------------------------------------------------------------------------------------------------------


def all_codes(model):
    return torch.tensor(list(itertools.product(range(model.K), repeat=model.N))).view(-1, *model.grid)


def log_p_of_x(model, y):
    """log sum_k p(k | y) p(x | k, y) of every x, by listing both."""
    k = all_codes(model)
    log_p_k, e = model.log_p(k, y), model.codebook.weight[k]
    assert abs(log_p_k.exp().sum().item() - 1) < 1e-9
    return torch.stack([(log_p_k - model.nll(one.expand(len(k), *model.shape), e, y)).logsumexp(0)
                        for one in space(model)])


def listed(model):
    """The same without a class: their mixture."""
    if not model.classes:
        return log_p_of_x(model, None)
    return torch.stack([log_p_of_x(model, y) + model.frequency[y].log() for y in range(model.classes)]).logsumexp(0)


@each
@pytest.mark.parametrize("with_prior", [False, True])
def test_the_bound_holds(settings, with_prior):
    """log p(x) over all codes is a probability, and at least the bound, which is its one term of the nearest codes;
    given each class, and given none."""
    model = vqvae(with_prior=with_prior, **settings)
    x = space(model)
    for y in [None, *range(model.classes)]:
        log_p = listed(model) if y is None else log_p_of_x(model, y)
        assert abs(log_p.exp().sum().item() - 1) < 1e-9
        bound = model.log_prob(x, y)
        assert (bound <= log_p).all()
        if y is None and model.classes:
            continue
        k = torch.cdist(model.z(x, y), model.codebook.weight).argmin(-1)
        term = [model.log_p(k[n : n + 1], y) - model.nll(x[n : n + 1], model.codebook.weight[k[n : n + 1]], y)
                for n in range(len(x))]
        torch.testing.assert_close(bound, torch.cat(term))
        figures = model.figures(x, y)
        torch.testing.assert_close(figures["elbo"], bound)
        torch.testing.assert_close(figures["reconstruction"] + figures["kl"], -bound)
        torch.testing.assert_close(figures["kl-uniform"], torch.full_like(bound, model.N * math.log(model.K)))
        if not with_prior:
            torch.testing.assert_close(figures["kl"], figures["kl-uniform"])


def test_classes_are_as_frequent_as_in_the_data():
    model = vqvae(with_prior=True, **TINY["binary, a class"])
    torch.testing.assert_close(model.frequency, torch.tensor([10 / 16, 6 / 16], dtype=torch.float64))


@each
@pytest.mark.parametrize("with_prior", [False, True])
def test_samples_follow_p_of_x(settings, with_prior):
    """It holds for the last class, too."""
    model = vqvae(with_prior=with_prior, **settings)
    n = 8000
    for y in [None, model.classes - 1][: 1 + bool(model.classes)]:
        p, drawn = listed(model) if y is None else log_p_of_x(model, y), model.sample(n, y=y)
        assert drawn.shape == (n, *model.shape) and drawn.dtype == torch.uint8
        cell = (drawn.flatten(1).long() * model.levels ** torch.arange(model.D - 1, -1, -1)).sum(1)
        drawn_from(torch.bincount(cell, minlength=len(p)), n * p.exp())


def test_the_decoder_misses_codes_in_training_alone():
    """If every code is missed, the decoder learns nothing of x, and its encoder gets gradients by the codes' losses
    alone."""
    x = VALID.x[:20]
    for miss in (0.0, 1.0):
        torch.manual_seed(0)
        model = VQVAE((8, 8), **SMALL | dict(miss=miss, beta=0.0)).train()
        model.loss(x).sum().backward()
        assert (model.f.out.weight.grad.abs().max() > 0) == (miss == 0)
    whole = VQVAE((8, 8), **SMALL)
    whole.load_state_dict(model.state_dict())
    assert torch.equal(model.eval().log_prob(x), whole.eval().log_prob(x))


@each
def test_mean_images_have_the_mean_of_the_samples(settings):
    """E[x] by listing, against 4000 mean images: within five standard errors, of at most (L-1) / 2 / sqrt(4000)."""
    model = vqvae(with_prior=True, **settings)
    p = listed(model).exp()
    wanted = (p.view(-1, *[1] * len(model.shape)) * space(model)).sum(0)
    error = 5 * (model.levels - 1) / 2 / 4000**0.5
    torch.testing.assert_close(model.sample(4000, mean=True).mean(0), wanted, atol=error, rtol=0)


@each
def test_the_mean_image_is_that_of_the_samples(settings):
    """By listing p(x | k) over all x."""
    model = vqvae(**settings)
    x, k, y = space(model), all_codes(model)[:4], 1 if model.classes else None
    for one in k:
        p = (-model.nll(x, model.codebook.weight[one].expand(len(x), *model.grid, -1), y)).exp()
        torch.testing.assert_close(model.decode_codes(one[None], y)[0],
                                   (p.view(-1, *[1] * len(model.shape)) * x).sum(0))
    codes = model.codes(x, y)
    torch.testing.assert_close(model.reconstruct(x, y), model.decode_codes(codes, y))
    assert codes.shape == (len(x), *model.grid) and codes.dtype == torch.int64


# ---- counts ----------------------------------------------------------------------------------------------------------


def test_the_report_is_a_count():
    """Perplexity, usage and dead codes of some images, against a dictionary of counts."""
    torch.manual_seed(0)
    model = VQVAE((8, 8), **SMALL | dict(K=40, revive=1))
    model.train().loss(TRAIN.x[:100])  # puts codes on images
    model.loss(TRAIN.x[:100])
    for x in (VALID.x, VALID.x[:3]):
        counts = {}
        for k in model.codes(x).flatten().tolist():
            counts[k] = counts.get(k, 0) + 1
        p = [count / sum(counts.values()) for count in counts.values()]
        report = model.eval().report(x)
        entropy = -sum(q * math.log(q) for q in p)  # in float32 a sum of so many terms
        within = (len(p) + 4) * 2**-24 * (1 + entropy)
        assert report["perplexity"] == pytest.approx(math.exp(entropy), rel=within)
        assert report["usage"] == pytest.approx(len(counts) / 40) and report["dead"] == 40 - len(counts)
        assert 1 < report["perplexity"] < len(counts)


@pytest.mark.parametrize("average", [0.0, 0.99])
def test_dead_codes_come_back(average):
    """All codes but one begin far from every image. If they are revived, most are used; if they never are, one is."""
    used = {}
    for revive in (0, 5):
        torch.manual_seed(0)
        model = VQVAE((8, 8), **SMALL | dict(K=32, average=average, revive=revive))
        with torch.no_grad():
            model.codebook.weight[1:] = 1e3
            if average:
                model.codebook.total.copy_(model.codebook.weight)
        model.begin("codes", TRAIN)
        history = fit(model, TRAIN, VALID, steps=60, every=60, progress=False)
        used[revive] = history.rows[-1]["usage"]
    assert used[0] == 1 / 32 and used[5] > 0.5, used


def test_the_recipe_uses_its_codes():
    """After an eighth of the first stage, 80% of 128 codes are the nearest of some image of train, though all began
    near 0."""
    recipe, (train, valid) = (models.recipes("vqvae")["digits"],
                              (data.load("digits", split) for split in ("train", "valid")))
    model = VQVAE(train.shape, levels=17, **recipe["model"])
    model.begin("codes", train)
    fit(model, train, valid, **recipe["train"] | dict(steps=250, every=250), progress=False)
    assert model.K == 128 and len(model.codes(train.x).unique()) >= 0.8 * 128


@pytest.mark.parametrize("dim", [1, 2])
def test_a_codebook_may_be_a_line_or_a_plane(dim):
    model = VQVAE((8, 8), **SMALL | dict(dim=dim))
    model.begin("prior", TRAIN)
    assert model.eval().sample(2).shape == (2, 8, 8) and model.log_prob(VALID.x).isfinite().all()


@pytest.mark.parametrize("average", [0.0, 0.99])
def test_the_prior_takes_codes_by_their_number_along_one_axis(average):
    """Shuffled codes on a line are sorted along it, with all that belongs to them; they decode to the same images."""
    torch.manual_seed(3)
    model = VQVAE((8, 8), **SMALL | dict(average=average)).double()
    place, line = torch.randperm(8).double(), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    with torch.no_grad():
        model.codebook.weight.copy_(place[:, None] * line + 0.01 * torch.randn(8, 3))
        model.codebook.idle.copy_(place)
        if average:
            model.codebook.count.copy_(place)
            model.codebook.total.copy_(model.codebook.weight * place[:, None])
    before, weight, at = model.reconstruct(VALID.x), model.codebook.weight.detach().clone(), place.argsort()
    model.begin("prior", TRAIN)
    place = model.codebook.idle
    assert torch.equal(place.diff().abs(), torch.ones(7, dtype=torch.int64))
    assert torch.equal(model.codebook.weight, weight[at[place]])
    if average:
        assert torch.equal(model.codebook.count, place.double())
        torch.testing.assert_close(model.codebook.total, model.codebook.weight * place[:, None])
    torch.testing.assert_close(model.reconstruct(VALID.x), before)


def test_what_cannot_be_is_said():
    for settings, says in ((dict(shape=(7, 8)), "2 must divide them"),
                           (dict(shape=(8, 8), K=1), "K must be at least 2"),
                           (dict(shape=(8,)), r"\(H, W\) or \(C, H, W\)")):
        with pytest.raises(ValueError, match=says):
            VQVAE(**settings)
    with pytest.raises(ValueError, match="without classes"):
        vqvae(with_prior=True, **TINY["levels"]).sample(2, y=1)
    with pytest.raises(ValueError, match="y is missing: a class 0 ... 1"):
        model = vqvae(**TINY["binary, a class"])
        model.codes(space(model))
