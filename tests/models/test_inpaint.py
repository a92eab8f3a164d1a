"""Tests of `inpaint` and `log_hidden`: draws and probabilities of what a mask hides, against all x of small models; the
known is kept and the hidden not read; planted mistakes, which the same checks must see."""

import pytest
import torch
from check_inpaint import check_draws, check_hidden, example, follows, mask, truth
from check_models import small, space
from planted import planted

from genmini import data, models
from genmini.models import _ordered
from genmini.models._model import Cannot

SMALL = {
    "fvsbn": lambda: models.find("fvsbn")((2, 3), dtype=torch.float64),
    "nade": lambda: models.find("nade")((2, 3), hidden=4, order=[4, 0, 2, 5, 1, 3], dtype=torch.float64),
    "made": lambda: models.find("made")((2, 3), hidden=8, dtype=torch.float64),
    "made, 3 masks": lambda: models.find("made")((2, 3), hidden=8, masks=3, dtype=torch.float64),
    "made, 3 levels": lambda: models.find("made")((2, 2), hidden=8, levels=3, dtype=torch.float64),
    "pixelcnn": lambda: models.find("pixelcnn")((2, 3), width=4, blocks=1, dtype=torch.float64),
    "pixelcnn, mixture": lambda: models.find("pixelcnn")((2, 2), levels=3, width=4, blocks=1, output="mixture",
                                                         components=2, dtype=torch.float64),
    "pixelrnn": lambda: models.find("pixelrnn")((2, 3), width=4, layers=1, dtype=torch.float64),
}
each_small = pytest.mark.parametrize("name", SMALL)
each_fast = pytest.mark.parametrize("name", [name for name in SMALL if name != "pixelrnn"])


def peaked(name, scale=1.0, **others):
    """The small model, of weights so large that its numbers depend on each other"""
    torch.manual_seed(7)
    model = (SMALL | others)[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((scale if parameter.ndim > 1 else 0.5) * torch.randn_like(parameter))
    return model


# ---- models that draw one number after another -----------------------------------------------------------------------


@each_fast
@pytest.mark.parametrize("hides", ["first", "last", "left"])
def test_draws_follow_the_conditional_distribution(name, hides):
    model = peaked(name)
    known = mask(model, hides)
    check_draws(model, known, example(model), particles=8)
    check_draws(model, known, example(model), particles=32, sweeps=0)  # the particles alone


@each_small
@pytest.mark.parametrize("hides", ["last", "left"])
def test_sweeps_alone_lead_to_the_conditional_distribution(name, hides):
    model = peaked(name)
    check_draws(model, mask(model, hides), example(model), particles=1, sweeps=20)


@each_small
@pytest.mark.parametrize("hides", ["last", "left", "two"])
def test_the_probability_of_what_is_known_has_the_right_mean(name, hides):
    model = peaked(name)
    check_hidden(model, mask(model, hides), example(model), particles=3)


@each_small
def test_where_the_known_come_first_the_probability_is_exact(name):
    model = peaked(name)
    x, order = example(model), model.pixel_order()
    for k in range(model.D + 1):
        known = torch.zeros(model.D, dtype=torch.bool).index_fill(0, order[:k], True).view(model.shape)
        every, p = truth(model, x, known)
        log_p = model.log_hidden(x[None], known=known).item()
        assert log_p == pytest.approx(p[(every == x).flatten(1).all(1)].log().item(), abs=1e-9)
        assert log_p == model.log_hidden(x[None], known=k).item()


def test_a_class_that_is_not_given_is_found():
    """It is drawn with the particles, and what is known tells which it was."""
    model = peaked("classes", classes=lambda: models.find("pixelcnn")((2, 3), width=4, blocks=1, classes=2,
                                                                      dtype=torch.float64))
    x = example(model)
    for hides in ("first", "last"):
        check_draws(model, mask(model, hides), x, particles=32)
        check_hidden(model, mask(model, hides), x, particles=3)
    every, known = space(model), mask(model, "left")
    check_draws(model, known, x, log_p=model.log_prob(every, 1).detach(), y=1)


# ---- models that learn all orders ------------------------------------------------------------------------------------

OF_ORDERS = {
    "made": lambda: models.find("made")((2, 3), hidden=(24, 24), order="random", masks=2, resample=True,
                                        dtype=torch.float64),
    "nade": lambda: models.find("nade")((2, 3), hidden=9, order="random", resample=True, dtype=torch.float64),
    "nade, 3 levels": lambda: models.find("nade")((2, 2), hidden=9, levels=3, order="random", resample=True,
                                                  dtype=torch.float64),
}


def check_orders(model, hides):
    x, known = space(model)[37], mask(model, hides)
    every = space(model)
    every = every[((every == x) | ~known).flatten(1).all(1)]
    for seed in range(3):
        torch.manual_seed(seed)
        p = model.log_hidden(every, known=known, orders=1).exp()
        assert p.sum().item() == pytest.approx(1, abs=1e-12)
        torch.manual_seed(seed)  # the same order
        follows(model.inpaint(x.expand(3000, *x.shape), known=known, n=1)[0], every, p)
    assert model.log_hidden(every, known=known, orders=5).exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("hides", ["first", "last", "left"])
@pytest.mark.parametrize("name", OF_ORDERS)
def test_a_model_of_all_orders_draws_exactly_in_one_with_the_known_first(name, hides):
    check_orders(peaked(name, 0.4 if name == "made" else 1.0, **OF_ORDERS), hides)


@pytest.mark.parametrize("name", OF_ORDERS)
def test_its_draws_have_orders_of_their_own(name):
    model = peaked(name, **OF_ORDERS)
    x, known = space(model)[:4], mask(model, "two")
    places = {*known.flatten().nonzero().flatten().tolist()}
    torch.manual_seed(0)
    orders = [model._known_first(known)[0].tolist() for _ in range(20)]
    assert len({*map(tuple, orders)}) > 1 and all({*order[: len(places)]} == places for order in orders)
    assert model.inpaint(x, known=known, n=3).shape == (3, 4, *model.shape)


@pytest.mark.parametrize("of, setting", [(OF_ORDERS, "orders"), ({}, "particles")])
def test_no_order_and_no_particle_are_refused(of, setting):
    model = peaked("nade", **of)
    with pytest.raises(ValueError, match=f"{setting} must be at least 1, got 0"):
        model.log_hidden(space(model)[:2], known=mask(model, "two"), **{setting: 0})


def test_made_of_a_few_orders_says_what_it_needs():
    model = models.find("made")((2, 3), hidden=8, order="random", masks=3)
    with pytest.raises(Cannot, match="set resample=True"):
        model.inpaint(space(model)[:2], known=mask(model, "left"), n=2)


# ---- all of them -----------------------------------------------------------------------------------------------------

CAN = [name for name in models.MODELS if not models.find(name).cannot("inpaint")]


def test_who_can():
    assert CAN == ["fvsbn", "nade", "made", "pixelrnn", "pixelcnn", "vae", "cvae", "arvae", "diffusion"]
    assert models.find("diffusion").cannot("log_hidden") == "Diffusion gives no likelihood of what a mask hides"
    assert models.find("gan").cannot("inpaint") == "GAN does not draw what a mask hides, wherever it lies"


@pytest.mark.parametrize("name", CAN)
def test_what_is_known_is_kept_and_what_is_hidden_is_not_read(name):
    model, x = small(name)
    model, known = model.eval(), torch.zeros(8, 8, dtype=torch.bool)
    known[1:3] = known[5, 2:6] = True
    y = dict(y=data.load("digits-threshold").y[:5]) if model.classes else {}
    how = dict(particles=8, sweeps=1) if isinstance(model, _ordered.Ordered) else {}
    torch.manual_seed(2)
    made = model.inpaint(x, known=known, n=2, **y, **how)
    assert made.shape == (2, 5, 8, 8) and made.dtype == torch.uint8
    assert torch.equal(made[..., known], x[..., known].expand(2, -1, -1)) and not torch.equal(made[0], made[1])
    torch.manual_seed(2)
    other = torch.where(known, x, 1 - x)
    assert torch.equal(model.inpaint(other, known=known, n=2, **y, **how), made)
    with pytest.raises(ValueError, match="known must be a mask of shape"):
        model.inpaint(x, known=known[:, :3], n=2, **y)


@pytest.mark.parametrize(("name", "settings"), [("diffusion", dict(given="grey")), ("cvae", dict(given="upper"))])
def test_a_model_that_is_given_a_part_of_an_image_refuses(name, settings):
    model, x = small(name, **settings)
    with pytest.raises(Cannot, match="is given"):
        model.inpaint(x, known=32, n=2)


# ---- planted mistakes ------------------------------------------------------------------------------------------------

PLANTED = {
    "the known weigh nothing": ("start:end].sum(1).view(N, P)  # (2)", "start:start].sum(1).view(N, P)"),
    "all the rest weighs": ("start:end].sum(1).view(N, P)  # (2)", "start:].sum(1).view(N, P)"),
    "weights that stay when particles are chosen": ("log_w.masked_fill(few, 0)", "log_w"),
    "weights forgotten when none are chosen": ("log_w.masked_fill(few, 0)", "0 * log_w"),
    "the means forgotten": ("log_known + torch.where(few, log_mean(log_w), 0)", "log_known"),
    "particles of another example": ("(first + chosen)", "(first.flip(0) + chosen)"),
    "draws by no weight": ("torch.multinomial(log_w.softmax(1), n", "torch.multinomial(torch.ones_like(log_w), n"),
    "every move accepted": ("log_a = later.sum", "log_a = 99 + later.sum"),
    "no move accepted": ("log_a = later.sum", "log_a = -99 + later.sum"),
    "its own number counted twice": ("[:, d + 1 : len(is_known)]", "[:, d : len(is_known)]"),
    "what is not drawn yet counted": ("[:, d + 1 : len(is_known)]", "[:, d + 1 :]"),
    "what was proposed not divided by": (" + others.logsumexp(1, True) - back.logsumexp(1, True)", ""),
    "the end not drawn": ("self._drawn_from(x_b, y_b, len(is_known), self.D)", "x_b"),
    "another order": (".reshape(len(x), self.D, -1)[:, self.pixel_order()]", ".reshape(len(x), self.D, -1)"),
}


def check_all():
    """The three checks above, of NADE in an order of its own."""
    model = peaked("nade", 2.0)
    check_hidden(model, mask(model, "three"), space(model)[model.log_prob(space(model)).argsort()[40]], particles=8)
    model = peaked("nade", 1.5)
    x = example(model)
    check_draws(model, mask(model, "two"), x, particles=8)
    check_draws(model, mask(model, "end"), x, particles=1, sweeps=20)
    for hides in ("last", "left"):
        check_draws(model, mask(model, hides), x, particles=32, sweeps=0)
        check_draws(model, mask(model, hides), x, particles=1, sweeps=20)
        check_hidden(model, mask(model, hides), x, particles=3)
    two = torch.stack([x, space(model)[5]])
    known = mask(model, "left")
    assert torch.equal(model.inpaint(two, known=known, n=4)[..., known], two[..., known].expand(4, -1, -1))


def test_nothing_planted_passes():
    check_all()


@pytest.mark.parametrize("right, wrong", PLANTED.values(), ids=PLANTED)
def test_planted_mistakes_of_the_particles_are_seen(monkeypatch, right, wrong):
    code = planted(_ordered, right, wrong)
    for name, method in vars(code.Ordered).items():
        if callable(method) and not name.startswith("__"):
            monkeypatch.setattr(_ordered.Ordered, name, method)
    with pytest.raises(AssertionError):
        check_all()


OF_THE_ORDERS = {
    "the hidden first": ("(known, ~known)]", "(~known, known)]"),
    "the known counted": ("[:, order[many:]].sum(1))", "[:, order].sum(1))"),
    "draws after too many": ("self.drawn_in(order, many, kept)", "self.drawn_in(order, many + 1, kept)"),
    "a sum of orders": ("logsumexp(0) - math.log(orders)", "logsumexp(0)"),
}


@pytest.mark.parametrize("right, wrong", OF_THE_ORDERS.values(), ids=OF_THE_ORDERS)
def test_planted_mistakes_of_the_orders_are_seen(monkeypatch, right, wrong):
    code = planted(_ordered, right, wrong)
    for name in ("inpaint", "log_hidden", "_known_first"):
        monkeypatch.setattr(_ordered.Ordered, name, getattr(code.Ordered, name))
    with pytest.raises(AssertionError):
        for hides in ("first", "left"):
            check_orders(peaked("nade", **OF_ORDERS), hides)
