"""Tests of what all models share: their settings, class and data are checked, and they say what they cannot do."""

import copy
import dataclasses
import inspect
import json

import pytest
import torch
from check import fair
from check_models import condition, fast, of_series, small
from torch import nn

from genmini import data, experiment, models, studies, watch
from genmini.models._lacks import LACKS, SAMPLING
from genmini.models._model import Cannot, Model
from genmini.train import fit, judge

VALID = data.load("digits-threshold", "valid")
each_family = pytest.mark.parametrize("name", models.MODELS)


def each(fits):
    """The families of which fits(family) is true"""
    return pytest.mark.parametrize("name", [name for name in models.MODELS if fits(models.find(name))])


each_of_images = each(lambda family: not family.of_text and not of_series(family))


# ---- settings --------------------------------------------------------------------------------------------------------


@each_family
def test_settings_are_all_arguments_and_make_the_same_model_again(name):
    model, _ = small(name)
    again = type(model)(**json.loads(json.dumps(model.settings)))
    assert again.settings == model.settings and again.state_dict().keys() == model.state_dict().keys()
    assert all(one.shape == other.shape for one, other in zip(again.parameters(), model.parameters(), strict=True))
    assert not {"device", "dtype", "self"} & model.settings.keys() and isinstance(model.settings["shape"], tuple)
    assert fast(type(model)).keys() <= model.settings.keys()


def test_settings_of_a_base_and_of_what_is_handed_on_to_it():
    class Base(Model):
        def __init__(self, shape, levels=2, hidden=(3, 4), order="natural", classes=0, device=None, dtype=None):
            super().__init__(shape, levels, classes)
            self.seen = shape, hidden, order

    class Derived(Base):
        def __init__(self, shape, extra=1.5, device=None, **settings):
            super().__init__(shape, device=device, **settings)

    class Plain(Derived):
        pass

    model = Derived(6, 2.5, hidden=7, order=torch.tensor([1, 0]))
    assert model.seen == ((6,), (7,), [1, 0]) and model.D == 6
    expected = dict(shape=(6,), levels=2, hidden=(7,), order=[1, 0], classes=0, extra=2.5)
    assert model.settings == expected == Plain(**expected).settings == copy.deepcopy(model).settings
    assert Derived([2, 3], order="random").settings == dict(
        shape=(2, 3), levels=2, hidden=(3, 4), order="random", classes=0, extra=1.5
    )
    with pytest.raises(TypeError, match="shape"):
        Derived()
    with pytest.raises(TypeError, match="hiden"):
        Derived(6, hiden=3)


# ---- x and y ---------------------------------------------------------------------------------------------------------


@each(lambda family: not family.captions)  # there y is text: tests/models/test_captioned.py
def test_y_is_checked_in_one_way(name):
    """Without classes no y, with classes whole numbers among them: one for all, or one each."""
    model, x = small(name)
    if "classes" in model.settings:
        model, x = small(name, classes=3)
    model.eval()
    if not model.classes:
        with pytest.raises(ValueError, match="y is given, and this model was made without classes"):
            model.loss(x, y=torch.zeros(5, dtype=torch.long))
        if not model.cannot("sample"):
            with pytest.raises(ValueError, match="y is given, and this model was made without classes"):
                model.sample(2, y=0)
        return
    last = model.classes - 1  # cyclegan has two, whatever is wanted
    for y, words in (
        (last + 1, rf"classes 0 \.\.\. {last}, got {last + 1} \.\.\. {last + 1}"),
        (torch.tensor([0, 1, last, 0, -1]), rf"classes 0 \.\.\. {last}, got -1 \.\.\. {last}"),
        (torch.tensor([0, 1]), r"y must be one class, or 5 classes"),
        (torch.zeros(5), "y must be"),
        (torch.zeros(5, dtype=torch.bool), "y must be"),
    ):
        with pytest.raises(ValueError, match=words):
            model.loss(x, y=y)
    torch.manual_seed(0)
    one = model.loss(x, y=1)
    torch.manual_seed(0)
    each = model.loss(x, y=torch.ones(5, dtype=torch.uint8))
    assert one.shape == (5,) and torch.equal(one, each)


@each_family
def test_y_comes_second_and_the_rest_by_name(name):
    """In every method of Model that takes both x and y, or n and y, in every sampler of one model alone, and in what
    else takes y second."""
    family = models.find(name)
    methods = [method for method in dir(family) if not method.startswith("_") and not hasattr(nn.Module, method)
               and method != "check" and callable(getattr(family, method))]
    parameters = {method: [*inspect.signature(getattr(family, method)).parameters.values()] for method in methods}
    parameters = {method: found[1:] for method, found in parameters.items() if len(found) > 1}  # without self
    names = {method: [each.name for each in found] for method, found in parameters.items()}
    of_all = [method for method in names if "y" in names[method] and names[method][0] in ("x", "n")
              and (hasattr(Model, method) or method.startswith("sample_"))]
    assert {"sample", "log_prob", "loss", "valid_loss", "figures", "report"} <= {*of_all}
    for method in of_all:
        assert names[method][1] == "y", method
    for method, (_, *others) in parameters.items():
        if others and others[0].name == "y" and others[0].default is None:
            assert all(each.kind is each.KEYWORD_ONLY for each in others[1:]), method


@each_of_images
def test_x_of_another_shape_or_kind_is_refused(name):
    model, x = small(name)
    y = condition(model, 5)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 8, 8\), got \(5, 8, 7\)"):
        model.loss(x[..., :7], **y)
    if model.cannot("classify"):  # a classifier judges what is drawn, levels or not
        with pytest.raises(ValueError, match=r"x must hold levels 0 \.\.\. 1, got 0 \.\.\. 2"):
            model.loss(x * 2, **y)


@pytest.mark.parametrize("name", ["made", "diffusion"])  # as every model, and by a product of its own
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_are_centred_and_come_back(name, levels):
    """Three roundings of numbers up to 2 may each miss by 2^-24 of them; in_levels enlarges that (L - 1) / 2 times."""
    model = models.find(name)((8, 8), levels=levels, **fast(models.find(name)))
    x = torch.arange(64).view(1, 8, 8) * (levels - 1) // 63
    x_0 = model.centred(x)
    assert x_0.shape == (1, 8, 8) and (x_0.amin(), x_0.amax()) == (-1, 1)
    torch.testing.assert_close(x_0.double(), x.double() * 2 / (levels - 1) - 1, rtol=0, atol=3 * 2**-23)
    torch.testing.assert_close(model.in_levels(x_0), x.float(), rtol=0, atol=(levels + 1) * 2 * 2**-23)
    assert torch.equal(model.centred(x.flatten(1)), x_0) and torch.equal(model.x_0(x), x_0[:, None])


def test_a_density_checks_the_shape_of_its_points():
    model = models.find("realnvp")((2,), couplings=1, hidden=4)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 2\), got \(4, 3\)"):
        model.log_prob(torch.randn(4, 3))


@each_of_images
def test_figures_are_of_the_split_alone(name):
    """Whatever was judged before, the figures of a split are the same."""
    model, _ = small(name)
    test = data.load("digits-threshold", "test")
    few, valid = (dataclasses.replace(split, x=split.x[:n], y=condition(model, n)["y"] if model.captions
                                      else split.y[:n] % (model.classes or 10))
                  for split, n in ((test, 40), (VALID, 60)))
    alone = experiment.figures(model.eval(), few)
    judge(model, valid.x, valid.y)
    model.figures(valid.x, y=valid.y if model.takes_y else None)
    assert experiment.figures(model, few) == alone


# ---- where training begins -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 5])
@each(lambda family: not family.cannot("begin_at_marginals"))
def test_training_begins_at_the_marginals(name, levels):
    """Without the weights, p(x_d) are the shares of the levels of pixel d, each level counted half an example more."""
    train = few_images(levels)
    family = models.find(name)
    settings = dict(order="random") if family.cannot("decode") else dict(latent=6, decoder="categorical")
    model = family(train.shape, levels=levels, **settings)
    y = dict(y=torch.zeros(7, dtype=torch.long)) if model.classes else {}
    fit(model, train, train, steps=1, rate=1e-12, marginals=True, progress=False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.zeros_(parameter)
    counts = torch.stack([(train.x == level).sum(0) for level in range(levels)]).double()
    shares = (counts + 0.5) / (len(train.x) + levels / 2)  # (levels, *shape)
    x = torch.randint(levels, (7, *train.shape), dtype=torch.uint8)
    expected = shares.log().gather(0, x.long()).flatten(1).sum(1)
    log_p = model.log_prob(x, **y) if family.cannot("decode") else model.log_p(x, torch.randn(7, 6), **y)
    fair(log_p, expected, shares.float().log().gather(0, x.long()).flatten(1).sum(1), torch.float32)


def test_who_has_no_bias_for_each_pixel_says_so():
    train = few_images(2)
    for name, settings, reason in (("pixelcnn", dict(width=2, blocks=0), "has no bias for each level of each pixel"),
                                   ("vae", dict(body="conv", width=2), "take body='mlp'"),
                                   ("vae", dict(decoder="gaussian"), "are for bits and levels")):
        model = models.find(name)(train.shape, **settings)
        with pytest.raises(Cannot, match=reason):
            fit(model, train, train, steps=1, marginals=True, progress=False)


def few_images(levels):
    x = torch.randint(levels, (20, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[:, 0] = 0  # a row that is empty in all
    return data.Data("few", "train", x, torch.zeros(20, dtype=torch.int64), levels)


# ---- what a model cannot do ------------------------------------------------------------------------------------------

CALLS = {
    "log_prob": lambda model, x: model.log_prob(x), "log_prob_each": lambda model, x: model.log_prob_each(x),
    "sample": lambda model, x: model.sample(2), "encode": lambda model, x: model.encode(x),
    "q": lambda model, x: model.q(x), "encode_text": lambda model, x: model.encode_text("a"),
    "decode": lambda model, x: model.decode(torch.zeros(2, model.latent)),
    "reconstruct": lambda model, x: model.reconstruct(x),
    "translate": lambda model, x: model.translate(x),
    "d": lambda model, x: model.d(x), "codes": lambda model, x: model.codes(x),
    "decode_codes": lambda model, x: model.decode_codes(model.codes(x)),
    "mixture": lambda model, x: model.mixture([0, 1]), "correlations": lambda model, x: model.correlations(x),
    "measure": lambda model, x: model.measure(x), "forward": lambda model, x: model(x.to(model.dtype)),
    "inverse": lambda model, x: model.inverse(torch.zeros(2, model.D)),
    "forecast": lambda model, x: model.forecast(x, 2), "autocovariance": lambda model, x: model.autocovariance(2),
    "process": lambda model, x: model.process(x, times=2),
    "classify": lambda model, x: model.classify(x),
    "inpaint": lambda model, x: model.inpaint(x, known=32, n=2),
    "log_hidden": lambda model, x: model.log_hidden(x, known=32),
    "on_the_line": lambda model, x: model.on_the_line(lambda n: torch.randn(n, 1), 0.5),
    "variations": lambda model, x: model.variations(x, 2),
    "interpolate": lambda model, x: model.interpolate(x[:2], x[2:4], 3),
    "fit": lambda model, x: model.fit(x), "begin_at_marginals": lambda model, x: model.begin_at_marginals(x),
}


@each_family
def test_what_a_model_cannot_do_it_says_and_the_rest_it_does(name):
    family = models.find(name)
    model, x = small(name)
    assert CALLS.keys() == LACKS.keys() - {*SAMPLING, "restore"}  # which a Diffusion can by its setting `given`
    for method, call in CALLS.items():
        reason = family.cannot(method)
        assert reason == model.cannot(method)
        if reason:
            assert reason.startswith(f"{family.__name__} ") and len(reason.splitlines()) == 1
            with pytest.raises(Cannot, match=f"^{reason}$"):
                call(model, x)
        elif not model.classes:
            call(model, x)
    optional = dict(mean=False, known=0, how=None, T=None, steps=None, guidance=None, threshold=None, temperature=1.0)
    for argument, value in optional.items():
        if family.cannot(argument):
            with pytest.raises((TypeError, Cannot)):
                model.sample(2, **{argument: value})
        else:
            assert len(model.sample(2, **{argument: value})) == 2


@each(lambda family: not family.cannot("sample"))
def test_how_many_samples_is_a_whole_number(name):
    model, _ = small(name)
    for n in (-1, 2.5, "x", True, None):
        with pytest.raises(ValueError, match=f"^n must be .*, got {n!r}$"):
            model.sample(n)
    assert len(model.sample(torch.ones(3).numel())) == 3


def test_who_decodes_and_does_not_encode_says_just_that():
    for name in ("gan", "cgan"):
        assert models.find(name).cannot("encode").endswith("decodes codes that it draws, and encodes no examples")
        assert studies.misfit("traverse", small(name)[0]).startswith(models.find(name).cannot("encode"))
    assert models.find("made").cannot("encode") == "MADE has no latent code"
    assert models.find("vqvae").cannot("encode") == "VQVAE codes an image by numbers of a codebook, not by a vector z"
    assert models.find("vqvae").cannot("decode") == models.find("vqvae").cannot("encode")


class Least(Model):
    """A model of what Model documents alone: a normal density of points, or of series."""

    def __init__(self, shape, levels=None):
        super().__init__(shape, levels)
        self.mu = nn.Parameter(torch.zeros(self.D))

    def log_prob(self, x, y=None):
        x, _ = self.check(x, y)
        return torch.distributions.Normal(self.mu, 1).log_prob(x).sum(1)

    def sample(self, n, y=None):
        return (torch.randn(n, self.D) + self.mu).reshape(n, *self.shape).detach()


class Drawing(Model):
    """Points, without a density and without a discriminator."""

    def __init__(self, shape, levels=None):
        super().__init__(shape, levels)
        self.mu = nn.Parameter(torch.zeros(self.D))

    sample = Least.sample


@pytest.mark.parametrize(("kind", "name"), [(Least, "moons"), (Drawing, "moons"), (Least, "series")])
def test_a_model_that_can_little_has_a_picture(tmp_path, kind, name):
    splits = {split: data.load(name, split) for split in data.SPLITS}
    model = kind((len(splits["test"].x[0]) * 3,) if name == "series" else (2,))
    watch.picture(tmp_path / "it.png", model, splits)
    assert (tmp_path / "it.png").stat().st_size > 1000


def test_the_order_in_which_numbers_are_drawn():
    """The first known numbers in pixel_order stay, whatever the rest of x holds."""
    torch.manual_seed(0)
    colours = models.find("pixelcnn")((3, 4, 4), levels=3, width=6, blocks=1)
    orders = [family((4, 4), order="random", **fast(family)) for family in map(models.find, ("fvsbn", "nade", "made"))]
    for model in (*orders, colours, small("pixelrnn")[0]):
        x = torch.randint(model.levels, (6, model.D))
        order, half = model.pixel_order(), model.D // 2
        assert order.sort()[0].tolist() == list(range(model.D))
        other = x.index_copy(1, order[half:], torch.randint(model.levels, (6, model.D - half)))
        u = torch.rand(6, model.D)
        one, two = (model.sample(6, u=u, x=given.view(6, *model.shape), known=half).flatten(1) for given in (x, other))
        assert torch.equal(one, two) and torch.equal(one[:, order[:half]].long(), x[:, order[:half]])


@each(lambda family: not family.cannot("decode"))
def test_codes_of_another_length_are_named(name):
    model, _ = small(name)
    for z in (torch.zeros(3, 5), torch.zeros(2), torch.zeros(1, 2, 2)):
        with pytest.raises(ValueError, match=rf"z must have shape \(N, {model.latent}\), got \("):
            model.decode(z, **dict(y=torch.zeros(len(z), dtype=torch.long)) if model.classes else {})
