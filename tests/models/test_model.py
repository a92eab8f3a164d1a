"""Tests of what all models share: their settings, class and data are checked, they say what they cannot do, and
training may update several players."""

import copy
import dataclasses
import inspect
import json

import pytest
import torch
from check_models import fast, resumes
from torch import nn

from genmini import data, experiment, models, studies, watch
from genmini.models._model import Batch, Cannot, Model
from genmini.train import fit, judge

TRAIN, VALID = (data.load("digits-threshold", split) for split in ("train", "valid"))
each_family = pytest.mark.parametrize("name", models.MODELS)


def small(name, **settings):
    """A small model of the family, and five examples of its kind."""
    family = models.find(name)
    shape = 9 if name == "ar" else (8, 8)
    levels = {} if name == "ar" else dict(levels=2)
    model = family(shape, **levels, **fast(family) | settings)
    return model, torch.randn(5, 9) if name == "ar" else TRAIN.x[:5]


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


@each_family
def test_y_is_checked_in_one_way(name):
    """Without classes no y, with classes whole numbers among them: one for all, or one each."""
    if name == "cvae":
        model, x = small(name, classes=3)
    else:
        settings = dict(classes=3) if "classes" in small(name)[0].settings else {}
        model, x = small(name, **settings)
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
    parameters = {method: [*inspect.signature(getattr(family, method)).parameters.values()][1:] for method in methods}
    names = {method: [each.name for each in taken] for method, taken in parameters.items()}
    of_all = [method for method in methods if "y" in names[method] and names[method][0] in ("x", "n")
              and (hasattr(Model, method) or method.startswith("sample_"))]
    assert {"sample", "log_prob", "loss", "valid_loss", "figures", "report"} <= {*of_all}
    for method in of_all:
        assert names[method][1] == "y", method
    for method, taken in parameters.items():
        if names[method][1:2] == ["y"] and taken[1].default is None:
            assert all(each.kind is each.KEYWORD_ONLY for each in taken[2:]), method


@each_family
def test_x_of_another_shape_or_kind_is_refused(name):
    if name == "ar":
        return  # it takes series of any length
    model, x = small(name)
    y = dict(y=0) if model.classes else {}
    with pytest.raises(ValueError, match=r"x must have shape \(N, 8, 8\), got \(5, 8, 7\)"):
        model.loss(x[..., :7], **y)
    if name != "classifier":  # it judges what is drawn, levels or not
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
    assert torch.equal(model.centred(x.flatten(1)), x_0)


def test_a_density_checks_the_shape_of_its_points():
    model = models.find("realnvp")((2,), couplings=1, hidden=4)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 2\), got \(4, 3\)"):
        model.log_prob(torch.randn(4, 3))


@each_family
def test_figures_are_of_the_split_alone(name):
    """Whatever was judged before, the figures of a split are the same."""
    if name == "ar":
        return  # it takes other data, and reports nothing
    model, _ = small(name)
    test = data.load("digits-threshold", "test")
    few, valid = (dataclasses.replace(some, x=some.x[:n], y=some.y[:n] % (model.classes or 10))
                  for some, n in ((test, 40), (VALID, 60)))
    alone = experiment.figures(model.eval(), few)
    judge(model, valid.x, valid.y)
    model.figures(valid.x, y=valid.y if model.classes else None)
    assert experiment.figures(model, few) == alone


# ---- where training begins -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 5])
@pytest.mark.parametrize("name", ["fvsbn", "nade", "made", "vae"])
def test_training_begins_at_the_marginals(name, levels):
    """Without the weights, p(x_d) are the shares of the levels of pixel d, each level counted half an example more."""
    train = few_images(levels)
    settings = dict(latent=2, decoder="categorical") if name == "vae" else dict(order="random")
    model = models.find(name)(train.shape, levels=levels, **settings)
    fit(model, train, train, steps=1, rate=1e-12, marginals=True, progress=False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.zeros_(parameter)
    counts = torch.stack([(train.x == level).sum(0) for level in range(levels)]).double()
    shares = (counts + 0.5) / (len(train.x) + levels / 2)  # (levels, *shape)
    x = torch.randint(levels, (7, *train.shape), dtype=torch.uint8)
    expected = shares.log().gather(0, x.long()).flatten(1).sum(1)
    log_p = model.log_p(x, torch.randn(7, 2)) if name == "vae" else model.log_prob(x)
    torch.testing.assert_close(log_p.double(), expected, rtol=1e-6, atol=1e-5)


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
    "decode": lambda model, x: model.decode(torch.zeros(2, 2)), "reconstruct": lambda model, x: model.reconstruct(x),
    "translate": lambda model, x: model.translate(x),
    "d": lambda model, x: model.d(x), "codes": lambda model, x: model.codes(x),
    "decode_codes": lambda model, x: model.decode_codes(model.codes(x)),
    "mixture": lambda model, x: model.mixture([0, 1]), "correlations": lambda model, x: model.correlations(x),
    "measure": lambda model, x: model.measure(x), "forward": lambda model, x: model(x.to(model.like)),
    "inverse": lambda model, x: model.inverse(torch.zeros(2, model.D)),
    "forecast": lambda model, x: model.forecast(x, 2), "autocovariance": lambda model, x: model.autocovariance(2),
    "process": lambda model, x: model.process(x, times=2),
    "fit": lambda model, x: model.fit(x), "begin_at_marginals": lambda model, x: model.begin_at_marginals(x),
}


@each_family
def test_what_a_model_cannot_do_it_says_and_the_rest_it_does(name):
    family = models.find(name)
    model, x = small(name)
    for method, call in CALLS.items():
        reason = family.cannot(method)
        assert reason == model.cannot(method)
        if reason:
            assert reason.startswith(f"{family.__name__} ") and len(reason.splitlines()) == 1
            with pytest.raises(Cannot, match=f"^{reason}$"):
                call(model, x)
        elif not model.classes:
            call(model, x)
    for argument, value in dict(mean=False, known=0, how=None, T=None, steps=None, guidance=None).items():
        if family.cannot(argument):
            with pytest.raises((TypeError, Cannot)):
                model.sample(2, **{argument: value})
        else:
            assert len(model.sample(2, **{argument: value})) == 2


@each_family
def test_how_many_samples_is_a_whole_number(name):
    model, _ = small(name)
    if model.cannot("sample"):
        return
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


# ---- a game of two players -------------------------------------------------------------------------------------------


class Game(Model):
    """Two numbers: the critic descends (c - g)^2 twice a step, then g descends (g + c)^2 and dropout's noise."""

    def __init__(self, shape, levels=2, k=2):
        super().__init__(shape, levels)
        self.k, self.c, self.g = k, nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(-2.0))
        self.shared = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("turns", torch.tensor(0))
        self.seen = []

    def loss(self, x, y=None):
        return (self.c - self.g).square().expand(len(x))

    def updates(self, batch):
        for _ in range(self.k):
            self.turns += 1
            yield "critic", (self.c * self.shared - self.g).square() + batch.x.float().mean(), [self.c, self.shared]
            self.seen.append(("critic", self.c.item(), self.g.item(), self.c.grad, self.g.grad))
        noise = torch.rand(())
        yield "generator", (self.g + self.c * self.shared).square() * (0.5 + noise), iter([self.g, self.shared])
        self.seen.append(("generator", self.c.item(), self.g.item(), self.c.grad, self.g.grad))


LOOP = dict(steps=12, every=4, batch=8, rate=0.1, betas=(0.5, 0.99), clip=0.5, decay=0.1, progress=False)


def by_hand(steps, seed=0):
    """The same game, written out with PyTorch's optimisers."""
    noise = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    game = Game((8, 8))
    players = {"critic": [game.c, game.shared], "generator": [game.g, game.shared]}
    adam = dict(lr=0.1, betas=(0.5, 0.99), weight_decay=0.1)
    adams = {name: torch.optim.AdamW(some, **adam) for name, some in players.items()}
    cosines = {name: torch.optim.lr_scheduler.CosineAnnealingLR(each, steps) for name, each in adams.items()}

    def step(name, loss):
        grads = torch.autograd.grad(loss, players[name])
        for parameter, grad in zip(players[name], grads, strict=True):
            parameter.grad = grad
        torch.nn.utils.clip_grad_norm_(players[name], 0.5)
        adams[name].step()

    for _ in range(steps):
        x = TRAIN.x[torch.randint(len(TRAIN), (8,), generator=noise)]
        for _ in range(2):
            step("critic", (game.c * game.shared - game.g).square() + x.float().mean())
        share = 0.5 + torch.rand(())
        step("generator", (game.g + game.c * game.shared).square() * share)  # after the critic's steps
        for cosine in cosines.values():
            cosine.step()
    return game


def test_a_game_is_played_move_by_move():
    """Each loss sees the moves before it, each name has its Adam and clip, the cosine counts steps and not moves."""
    game = Game((8, 8))
    rows = []
    fit(game, TRAIN, VALID, **LOOP | dict(every=12),
        watch=lambda row, model: rows.append(copy.deepcopy(model.state_dict())))
    expected = by_hand(12)
    assert all(torch.equal(rows[0][name], tensor) for name, tensor in expected.named_parameters())
    assert rows[0]["turns"] == 24 and [turn[0] for turn in game.seen[:3]] == ["critic", "critic", "generator"]
    (_, c0, g0, c_grad, g_grad), (_, c1, g1, *_), (_, c2, g2, *_) = game.seen[:3]
    assert c0 != c1 == c2 and g0 == g1 == -2.0 != g2, "each moves in its own turn"
    assert c_grad is not None and g_grad is None, "the other player gets no gradient"


def test_the_losses_of_all_players_stand_in_the_metrics(tmp_path, monkeypatch):
    history = fit(Game((8, 8)), TRAIN, VALID, **LOOP)
    assert all(row.keys() == {"step", "train critic", "train generator", "valid", "seconds"} for row in history.rows)


class Judged(Game):
    """Its loss falls, and what unseen data say of it rises: the first weights are the best."""

    def loss(self, x, y=None):
        return super().loss(x) - self.turns

    def valid_loss(self, x, y=None):
        assert not self.training and not torch.is_grad_enabled() and len(x) == len(VALID) and y is None
        return self.turns.item()

    def warning(self, rows):
        return f"{len(rows)} rows, the last of step {rows[-1]['step']}" if len(rows) > 1 else ""


def test_unseen_data_judge_as_the_model_says_and_what_goes_wrong_stands_in_the_metrics(capsys):
    game = Judged((8, 8))
    history = fit(game, TRAIN, VALID, **LOOP | dict(progress=True), measure=lambda model: dict(g=model.g.item()))
    assert [row["valid"] for row in history.rows] == [8, 16, 24] and history.step == 4 and history.valid == 8
    assert game.turns == 8, "the weights of the lowest stay"
    assert [row["g"] for row in history.rows][0] == pytest.approx(game.g.item()) != history.rows[-1]["g"]
    assert [row.get("warning") for row in history.rows] == [None, *(f"{n} rows, the last of step {4 * n}"
                                                                    for n in (2, 3))]
    errors = capsys.readouterr().err
    assert errors.count("warning   step 8: 2 rows, the last of step 8") == 1 and "warning   step 12" not in errors


def test_a_measure_may_judge_in_the_place_of_the_model():
    history = fit(Judged((8, 8)), TRAIN, VALID, **LOOP, measure=lambda model: dict(valid=-model.turns.item(), more=1))
    assert [row["valid"] for row in history.rows] == [-8, -16, -24] and history.step == 12
    assert all(row["more"] == 1 for row in history.rows)


def test_without_another_measure_unseen_data_judge_by_the_mean_loss():
    torch.manual_seed(0)
    model, _ = small("made")
    assert model.valid_loss(VALID.x) == judge(model, VALID.x).mean().item() and model.warning([{}]) == ""


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 1.0), (-0.1, 0.9)])
def test_betas_that_cannot_be_are_refused(betas):
    with pytest.raises(ValueError, match="betas must be (two shares|at least 0 and below 1), got"):
        fit(Game((8, 8)), TRAIN, VALID, **LOOP | dict(betas=betas))


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_a_game_resumes_to_the_same_bits(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(models, "MODELS", (*models.MODELS, "test_model"))
    monkeypatch.setattr(models, "find", lambda name: Game)
    _, _, state = resumes(lambda: Game((8, 8)), TRAIN, VALID, LOOP, stop=stop, folder=tmp_path)
    assert state["descents"].keys() == {"critic", "generator"}
    assert all(part.keys() == {"optimiser", "schedule", "scaler"} for part in state["descents"].values())
    assert [state["descents"][name]["optimiser"]["state"][0]["step"]
            for name in ("critic", "generator")] == [2 * stop, stop]


@pytest.mark.parametrize("name", [name for name in models.MODELS if not models.find(name).cannot("decode")])
def test_codes_of_another_length_are_named(name):
    model, _ = small(name)
    for z in (torch.zeros(3, 5), torch.zeros(2), torch.zeros(1, 2, 2)):
        with pytest.raises(ValueError, match=r"z must have shape \(N, 2\), got \("):
            model.decode(z, **dict(y=torch.zeros(len(z), dtype=torch.long)) if model.classes else {})


def test_updates_that_change_from_step_to_step_are_refused():
    class Late(Game):
        def updates(self, batch):
            self.turns += 1
            if self.turns != 2 or self.missing:
                yield "critic", (self.c - self.g).square(), [self.c] if self.turns < 3 else [self.c, self.shared]
            if self.turns == 2:
                yield "late", self.g.square(), [self.g]

    for missing, words in ((True, "'late' first at a later one"), (False, r"\['critic'\], got \[\]|'late'")):
        game = Late((8, 8))
        game.missing = missing
        with pytest.raises(ValueError, match=words):
            fit(game, TRAIN, VALID, **LOOP)
    game = Game((8, 8))
    game.updates = lambda batch: iter([("critic", game.loss(batch.x).mean(),
                                        [game.c] if game.seen else [game.g])] * (not game.seen.append(1) or 1))
    with pytest.raises(ValueError, match="same parameters for 'critic'"):
        fit(game, TRAIN, VALID, **LOOP)
    game.updates = lambda batch: iter(())
    with pytest.raises(ValueError, match=r"got \[\]"):
        fit(game, TRAIN, VALID, **LOOP)


def test_by_default_there_is_one_update_of_the_mean_loss():
    model, x = small("cvae", classes=10)
    torch.manual_seed(0)
    ((name, loss, parameters),) = model.updates(Batch(x, TRAIN.y[:5]))
    torch.manual_seed(0)
    assert name == "loss" and torch.equal(loss, model.loss(x, y=TRAIN.y[:5]).mean())
    assert list(map(id, parameters)) == list(map(id, model.parameters()))
    assert judge(model, TRAIN.x[:7], TRAIN.y[:7], batch=3).shape == (7,) and not model.training


def test_stages_take_settings_each_and_no_others():
    model, _ = small("vqvae")
    for later in ({}, {"codes": dict(steps=1)}, {"prior": dict(steps=1), "more": dict(steps=1)}):
        with pytest.raises(ValueError, match=r"later takes the settings of the stages \('prior',\)"):
            fit(model, TRAIN, VALID, steps=1, later=later, progress=False)
    with pytest.raises(ValueError, match="later takes the settings"):
        fit(small("nade")[0], TRAIN, VALID, steps=1, later={"prior": dict(steps=1)}, progress=False)
    with pytest.raises(ValueError, match="every must be at least 1"):
        fit(model, TRAIN, VALID, steps=1, later={"prior": dict(steps=1, every=0)}, progress=False)
    with pytest.raises(ValueError, match="steps must be a whole number, at least 1, got None"):
        fit(small("nade")[0], TRAIN, VALID, progress=False)
    with pytest.raises(ValueError, match="method is for models that are solved: NADE is trained step by step"):
        fit(small("nade")[0], TRAIN, VALID, steps=1, method="likelihood", progress=False)


def test_a_finished_training_in_stages_has_nothing_to_resume(tmp_path):
    model, _ = small("vqvae")
    loops = dict(steps=1, every=1, later={"prior": dict(steps=1, every=1)}, run=tmp_path, progress=False)
    fit(model, TRAIN, VALID, **loops)
    with pytest.raises(ValueError, match="at its end: there is nothing to resume"):
        fit(model, TRAIN, VALID, **loops, resume=True)


# ---- panels ----------------------------------------------------------------------------------------------------------


def test_panels_show_data_reconstructions_and_samples():
    splits = {split: data.load("digits-threshold", split) for split in data.SPLITS}
    shown, columns = small("made")[0].panels(splits)
    assert (list(shown) == ["data (test)", "samples of MADE"] and columns == 8
            and all(len(x) == 64 for x in shown.values()))
    shown, columns = small("vae")[0].eval().panels(splits)
    assert list(shown) == ["data (train)", "reconstructed (train)", "data (test)", "reconstructed (test)",
                           "samples of VAE"]
    assert torch.equal(shown["data (test)"], splits["test"].x[:64]) and columns == 8
    model, _ = small("classifier")
    shown, _ = model.eval().panels(splits)
    loss = judge(model, splits["test"].x, splits["test"].y)
    hardest = shown["hardest for Classifier (test)"]
    assert torch.equal(hardest[0], splits["test"].x[loss.argmax()]) and len(hardest) == 64


def test_a_class_that_a_split_lacks_leaves_its_column_empty():
    splits = {split: data.load("digits-threshold", split) for split in data.SPLITS}
    test = splits["test"]
    splits["test"] = dataclasses.replace(test, x=test.x[test.y != 3], y=test.y[test.y != 3])
    shown, columns = small("cvae")[0].eval().panels(splits)
    data_shown, back = (shown[name].unflatten(0, (8, columns)) for name in
                        ("data (test, classes 0 ... 9 by column)", "reconstructed (test)"))
    others = torch.arange(columns) != 3
    for x in (data_shown, back):
        assert x[:, 3].isnan().all() and not x[:, others].isnan().any()
    first = [int((splits["test"].y == k).nonzero()[0]) for k in range(10) if k != 3]
    assert torch.equal(data_shown[0, others], splits["test"].x[first].float())


def test_a_column_of_a_conditional_model_is_one_class():
    splits, classes = {split: data.load("digits-threshold", split) for split in data.SPLITS}, []
    model, _ = small("cvae")
    decode, sample = model.decode, model.sample
    model.decode = lambda z, y=None: (classes.append(y.argmax(1) if y.dim() > 1 else y), decode(z, y))[1]
    model.sample = lambda n, y=None: (classes.append(y), sample(n, y=y))[1]
    shown, columns = model.eval().panels(splits)
    by_column = torch.arange(80) % 10
    assert columns == 10 and all(len(x) == 80 for x in shown.values())
    assert all(torch.equal(y, by_column) for y in classes)
    assert list(shown)[-1] == "samples of CVAE, classes 0 ... 9 by column" and len(classes) == 3
    test = splits["test"]
    first = [int((test.y == k).nonzero()[0]) for k in range(10)]
    assert torch.equal(shown["data (test, classes 0 ... 9 by column)"][:10], test.x[first])
