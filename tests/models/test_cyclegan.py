"""CycleGAN: its losses against the formulas, gradients that reach one player alone, the law of the pool, translations
that go to the other set, what judges, and resumed bits."""

import math

import pytest
import torch
from check_models import resumes, rows

from genmini import checkpoint, data
from genmini.models._model import Batch
from genmini.models.cyclegan import BODIES, LOSSES, CycleGAN
from genmini.models.gan import energy_distance

TRAIN, VALID, TEST = (data.load("digits-unpaired", split) for split in data.SPLITS)


def small(shape=(4, 4), levels=5, **settings):
    torch.manual_seed(0)
    plain = dict(width=3, blocks=1, cycle=2.0, identity=0.5, pool=4, r1=0.7, noise=0.0, dtype=torch.float64)
    model = CycleGAN(shape, levels, **plain | settings)
    with torch.no_grad():  # a ResNet gives 0 at first
        for parameter in model.T.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def two_sets(n=6, shape=(4, 4), levels=5):
    x = torch.randint(levels, (n, *shape), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return x, torch.arange(n) % 2


def by_hand(model, x, k):
    """L'' of one image x of the set k, in Python: its terms"""
    v = 2 * x.double()[None] / (model.levels - 1) - 1
    image = lambda v: v.view(1, *(1,) * (4 - v.dim()), *v.shape[1:])
    T = [lambda v, net=net: net(image(v)).tanh().view_as(v) for net in model.T]
    a = [net(T[k](v))[0, 0].item() for net in model.discriminators][1 - k]
    flat = lambda v: v.flatten().tolist()
    apart = lambda w: sum(abs(p - q) for p, q in zip(flat(w), flat(v), strict=True)) / v.numel()
    adversarial = (a - 1) ** 2 if model.settings["loss"] == "least-squares" else math.log(1 + math.exp(-a))
    return [adversarial, apart(T[1 - k](T[k](v))), apart(T[1 - k](v))]


# ---- the losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 6)])
@torch.no_grad()
def test_the_translators_loss_is_that_of_the_formulas(shape, body, loss):
    """(1) to (4), (6) and (7), image by image; and the update is the mean over a batch of both sets."""
    model = small(shape, loss=loss, body=body)
    x, y = two_sets(shape=shape)
    expected = torch.tensor([by_hand(model, each, k) for each, k in zip(x, y.tolist(), strict=True)],
                            dtype=torch.float64)
    parts = model.figures(x, y)
    assert list(parts) == ["adversarial", "cycle", "identity"]
    torch.testing.assert_close(torch.stack(list(parts.values()), 1), expected, rtol=1e-13, atol=1e-14)
    total = parts["adversarial"] + 2 * parts["cycle"] + 0.5 * parts["identity"]
    torch.testing.assert_close(model.loss(x, y), total, rtol=1e-14, atol=0)
    torch.testing.assert_close(next(model.updates(Batch(x, y)))[1], total.mean(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_discriminators_loss_is_that_of_the_formula(loss):
    """(5): each image against its own set, each w against the set that it is to be of, and the penalty of the slope."""
    model = small(loss=loss)
    x, y = two_sets()
    v, y = model.x_0_and_y(x, y)
    w = torch.rand(6, 4, 4, dtype=torch.float64)
    found = model.discriminator_loss(v, w, y)
    for n, k in enumerate(y.tolist()):
        a, b = (model.discriminators[i](u[n : n + 1])[0, 0].item() for i, u in ((k, v), (1 - k, w)))
        slope = torch.autograd.functional.jacobian(lambda v, k=k: model.discriminators[k](v[None])[0, 0], v[n].detach())
        if loss == "least-squares":
            expected = (a - 1) ** 2 + b**2
        else:
            expected = math.log(1 + math.exp(-a)) + math.log(1 + math.exp(b))
        expected += 0.35 * slope.square().sum().item()
        assert found[n].item() == pytest.approx(expected, rel=1e-12)


def test_each_player_alone_gets_the_gradient_of_its_loss():
    """Each update names all weights of one player, and its loss moves them; the discriminators' loss does not depend on
    the translators' weights."""
    model, names = small(), []
    for name, loss, parameters in model.updates(Batch(*two_sets())):
        parameters, names = list(parameters), [*names, name]
        mine, other = model.T, model.discriminators
        if name == "discriminators":
            mine, other = other, mine
            reached = torch.autograd.grad(loss, list(other.parameters()), allow_unused=True, retain_graph=True)
            assert not any(torch.is_tensor(grad) for grad in reached)
        assert list(map(id, parameters)) == list(map(id, mine.parameters()))
        assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(loss, parameters))
    assert names == ["translators", "discriminators"]


def test_without_weights_the_terms_move_nothing():
    """With lambda_cycle = lambda_identity = 0 the gradient is that of the adversarial term alone."""
    model = small(cycle=0.0, identity=0.0)
    x, y = two_sets()
    grads = [torch.autograd.grad(loss, list(model.T.parameters()), retain_graph=True)
             for loss in (model.loss(x, y).sum(), model.figures(x, y)["adversarial"].sum())]
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_a_batch_of_one_set_is_learnt_from():
    """The other set's networks get a gradient of 0 from the terms that they are not in, and no NaN."""
    for k in range(2):
        model = small()
        for _, loss, parameters in model.updates(Batch(two_sets()[0], torch.full((6,), k))):
            grads = torch.autograd.grad(loss, list(parameters))
            assert loss.isfinite() and all(grad.isfinite().all() for grad in grads)


def test_noise_is_as_wide_as_its_levels():
    model = small(noise=1.0)
    v = torch.zeros(1000, 4, 4, dtype=torch.float64)
    apart = model.seen(v).abs()
    assert 0.99 / 4 < apart.max() <= 1 / 4
    # four standard errors of the mean of uniform numbers: 6 seeds in 100,000
    assert apart.mean().item() == pytest.approx(1 / 8, rel=4 / (3 * apart.numel()) ** 0.5)
    assert torch.equal(small().seen(v), v)


# ---- there and back --------------------------------------------------------------------------------------------------


def test_an_image_goes_to_the_other_set_alone_or_among_others():
    """The way is that of its own y, whatever the order and the others of the batch; levels there and back."""
    model = small((8, 8), 17)
    x, y = two_sets(10, (8, 8), 17)
    w, back = model.translate(x, y), model.reconstruct(x, y)
    assert 0 <= w.min() and w.max() <= 16 and w.shape == x.shape
    order = torch.randperm(10)
    torch.testing.assert_close(model.translate(x[order], y[order]), w[order], rtol=1e-13, atol=0)
    for n in range(10):
        torch.testing.assert_close(model.translate(x[n : n + 1], y[n].item())[0], w[n], rtol=1e-13, atol=0)
        there = 2 * w[n : n + 1] / 16 - 1
        torch.testing.assert_close(model.in_levels(model.w(there, 1 - y[n : n + 1]))[0], back[n], rtol=1e-12, atol=0)
    assert not torch.allclose(model.translate(x, y), model.translate(x, 1 - y))
    assert torch.equal(model.translate(x.flatten(1), y), w)


def test_d_is_what_the_discriminator_of_the_set_gives():
    x, y = two_sets()
    for loss, f in (("least-squares", lambda a: a), ("non-saturating", torch.sigmoid)):
        model = small(loss=loss)
        v, _ = model.x_0_and_y(x, y)
        expected = torch.stack([f(model.discriminators[k](v[n : n + 1])[0, 0]) for n, k in enumerate(y.tolist())])
        torch.testing.assert_close(model.d(x, y), expected, rtol=1e-13, atol=0)


# ---- the pool --------------------------------------------------------------------------------------------------------


def numbered(first, n):
    """n images, each full of its own number"""
    return torch.arange(first, first + n, dtype=torch.float64)[:, None, None].expand(n, 4, 4)


def test_the_pool_fills_and_then_swaps():
    """While there is room images come back as they are. Then each image comes back itself, or another in whose place it
    is kept: what goes in comes out or is kept, once, and stays in its own set."""
    model = small(pool=4)
    first = model.replayed(numbered(0, 6), torch.tensor([0, 0, 0, 1, 0, 1]))
    assert torch.equal(first, numbered(0, 6)) and model.pooled.tolist() == [4, 2]
    assert model.pool[0, :, 0, 0].tolist() == [0, 1, 2, 4] and model.pool[1, :2, 0, 0].tolist() == [3, 5]
    torch.manual_seed(0)
    inside, came = {0, 1, 2, 4}, 0
    for step in range(100, 400, 3):
        out = model.replayed(numbered(step, 3), torch.zeros(3, dtype=torch.int64))[:, 0, 0].tolist()
        kept = set(model.pool[0, :, 0, 0].tolist())
        assert kept | set(out) == inside | {step, step + 1, step + 2} and not kept & set(out) and len(kept) == 4
        inside, came = kept, came + sum(image < step for image in out)
    assert came > 0 and model.pool[1, :2, 0, 0].tolist() == [3, 5] and model.pooled.tolist() == [4, 2]


def test_half_of_the_images_are_swapped_at_even_places():
    """Of 4000 images half come back themselves, and every place is as likely: five standard errors of each share."""
    model, n = small(pool=4), 4000
    torch.manual_seed(0)
    model.replayed(numbered(0, 4), torch.zeros(4, dtype=torch.int64))
    same, places = 0, torch.zeros(4)
    for i in range(n):
        before = model.pool[0, :, 0, 0].clone()
        out = model.replayed(numbered(10 + i, 1), torch.zeros(1, dtype=torch.int64))
        same += out[0, 0, 0].item() == 10 + i
        places += model.pool[0, :, 0, 0] != before
    assert abs(same / n - 1 / 2) < 5 * math.sqrt(1 / 4 / n)
    swaps = n - same
    assert places.sum() == swaps and ((places / swaps - 1 / 4).abs() < 5 * math.sqrt(3 / 16 / swaps)).all()


def test_the_discriminators_see_the_pool():
    """The second update is of the images that the pool gives, made before the translators' step."""
    model, seen = small(pool=4), []
    loss = model.discriminator_loss
    model.discriminator_loss = lambda v, w, y: seen.append(w) or loss(v, w, y)
    x, y = two_sets()
    with torch.no_grad():
        w = model.w(*model.x_0_and_y(x, y))
    updates = model.updates(Batch(x, y))
    next(updates)
    with torch.no_grad():
        for parameter in model.T.parameters():
            parameter.zero_()
    next(updates)
    torch.testing.assert_close(seen[0], w, rtol=1e-13, atol=0)  # there was room for all
    assert model.pooled.tolist() == [3, 3] and not seen[0].requires_grad
    torch.testing.assert_close(model.pool[1, :3], w[::2], rtol=1e-13, atol=0)  # X became Y


# ---- what is judged --------------------------------------------------------------------------------------------------


def test_judging_is_the_distance_of_both_ways_and_what_is_lost():
    model = small((8, 8), 17, noise=1.0)
    before = torch.get_rng_state()
    found = model.valid_loss(VALID.x, VALID.y)
    accuracy = model.report(VALID.x, VALID.y)["accuracy"]
    assert torch.equal(torch.get_rng_state(), before)
    v = [2 * VALID.x[VALID.y == k].double() / 16 - 1 for k in range(2)]
    with torch.no_grad():
        w = [model.T[k](v[k][:, None]).tanh()[:, 0] for k in range(2)]
        back = [(model.T[1 - k](w[k][:, None]).tanh()[:, 0] - v[k]).abs() for k in range(2)]
        pairs = [a > b for net, real, made in zip(model.discriminators, v, w[::-1], strict=True)
                 for a in net(real) for b in net(made)]
    expected = sum(energy_distance(w[k].flatten(1), v[1 - k].flatten(1)) for k in range(2)) + 2 * torch.cat(back).mean()
    assert found == pytest.approx(expected.item(), rel=1e-12)
    assert accuracy == pytest.approx(sum(pairs).item() / len(pairs), abs=1e-12) and len(pairs) == 2 * 100 * 100
    with pytest.raises(ValueError, match="valid has images of one set alone, 4 of set 1"):
        model.valid_loss(VALID.x[:4], torch.ones(4, dtype=torch.int64))


def test_a_game_that_the_discriminators_win_is_said_to_be():
    rows = [dict(accuracy=a) for a in (0.5, 0.96, 0.97, 0.98)]
    assert small().warning(rows).startswith("the discriminators win: they rank 98% of unseen images above translations")
    assert small().warning(rows[:3]) == small().warning(rows[2:]) == ""


@pytest.mark.parametrize("settings, words", [
    (dict(body="unet"), "body must be 'resnet' or 'coder', got 'unet'"),
    (dict(loss="wgan"), "loss must be 'least-squares' or 'non-saturating', got 'wgan'"),
    (dict(cycle=-1.0), "cycle must be at least 0, got -1.0"), (dict(identity=math.inf), "identity must be at least 0"),
    (dict(pool=0), "pool must be at least 1, got 0"), (dict(r1=-0.1), "r1 must be at least 0, got -0.1"),
    (dict(shape=(3, 8)), r"sides of at least 4, even ones for body 'coder', got \(3, 8\)"),
    (dict(shape=(5, 4), body="coder"), r"even ones for body 'coder', got \(5, 4\)"),
])
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        small(**settings)


def test_panels_show_both_sets_what_they_become_and_what_comes_back():
    model = small((8, 8), 17).eval()
    shown, columns = model.panels({"test": TEST})
    x, w, back = shown.values()
    n = torch.cat([(TEST.y == k).nonzero()[:32, 0] for k in range(2)])
    assert columns == 8 and torch.equal(x, TEST.x[n]) and list(shown)[0] == "X and Y (test)"
    assert torch.equal(w, model.translate(x, TEST.y[n])) and torch.equal(back, model.reconstruct(x, TEST.y[n]))


# ---- the whole game --------------------------------------------------------------------------------------------------

LOOP = dict(steps=9, every=3, batch=16, betas=(0.5, 0.9), ema=0.5)


@pytest.mark.parametrize("stop", [1, 7])
def test_a_game_resumes_to_the_same_bits(tmp_path, stop):
    """Both optimisers, the average, and the pool, which has room after one step and swaps after seven."""
    of_digits = dict(shape=(8, 8), levels=17, pool=20, noise=1.0, dtype=torch.float32)
    whole, again, state = resumes(lambda: small(**of_digits), TRAIN, VALID, LOOP, stop=stop, folder=tmp_path)
    assert state["descents"].keys() == {"translators", "discriminators"}
    assert (state["model"]["pooled"].sum() == 16) if stop == 1 else (state["model"]["pooled"] == 20).all()
    assert rows(tmp_path / "parts")[0].keys() >= {"train translators", "train discriminators", "valid", "accuracy"}
    kept = checkpoint.load(tmp_path / "parts")
    assert torch.equal(kept.pool, again.pool) and (kept.pooled == 20).all()
    assert torch.equal(kept.translate(TEST.x, TEST.y), whole.translate(TEST.x, TEST.y))
