"""Tests of the study `semi-supervised`: which images have labels, what is drawn of known answers and known codes, that
its classifiers see what they should; and planted mistakes, which the same checks must see."""

import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import planted

from genmini import data, plots, studies
from genmini.models._model import Model
from genmini.models.autoencoder import Autoencoder
from genmini.models.vae import VAE
from genmini.studies import _few_labels, semi_supervised

DIGITS = {split: data.load("digits", split) for split in data.SPLITS}


class Known:
    """A run whose codes are three pixels, which it decodes into two; sigma is known, too"""

    conditional, seed, check_labels, folder, device = False, 0, studies.Run.check_labels, "runs/known", "cpu"

    def __init__(self, classes=10):
        can = dict.fromkeys(("encode", "decode", "q"), lambda self, x: x)
        self.model, self.classes = type("Known", (Model,), {"latent": 3, **can})((8, 8), 17), classes

    def split(self, split):
        some = DIGITS[split]
        return some if self.classes == 10 else replace(some, y=torch.arange(len(some)) % self.classes)

    def q(self, x, y):
        return x[:, 3, 2:5].float(), torch.full((len(x), 3), 0.5).log() * 2

    def decode(self, c, y):
        x = torch.zeros(len(c), 8, 8)
        x[:, 3, 2:4] = c[:, :2]
        return x


class Two:
    """An M2 whose z is the first number of the code, and whose class the second; it decodes both into their places"""

    def h(self, c):
        return -(c[:, 1:2] - torch.arange(10)).square()

    def q(self, c, y):
        return c[:, :1] + y @ torch.arange(10.0)[:, None], None

    def f(self, z, y):
        return torch.stack([torch.cat([z, y @ torch.arange(10.0)[:, None], z], 1)] * 2, 1)


class Empty(Two):
    """An M2 that decodes nothing"""

    def __init__(self, classes):
        self.classes = classes

    def h(self, c):
        return torch.zeros(len(c), self.classes)

    def q(self, c, y):
        return c[:, :1], None

    def f(self, z, y):
        return torch.zeros(len(z), 2, 3)


@pytest.fixture
def figures(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "save", lambda figure, path: seen.append(figure))
    return seen


def check(module, figures, monkeypatch):
    """The labels, the curves, the analogies and the line, where the classifiers are known"""
    monkeypatch.setattr(module, "LABELS", (1, 5, 10, 100, 1000))
    monkeypatch.setattr(module, "DRAWS", 2)
    asked = []

    def answer(kind, f, y, labelled, classes):
        counts = [y["train"][n].bincount(minlength=classes).tolist() for n in labelled]
        assert classes == 10 and len(counts) == 2 and all(len({*count}) == 1 for count in counts)
        assert len(f["train"]) == len(y["train"]) == 1297 and len(f["test"]) == 300 and len(f["valid"]) == 200
        assert torch.equal(y["test"], DIGITS["test"].y) and not torch.equal(labelled[0], labelled[1])
        asked.append((kind, counts[0][0]))
        return np.array([0.1 * kind, 0.1 * kind + counts[0][0] / 1000])

    def by_m2(mu, sigma, y, labelled, classes):
        assert torch.equal(mu["valid"], DIGITS["valid"].x[:, 3, 2:5].float()) and (sigma["test"] == 0.5).all()
        return answer(1, mu, y, labelled, classes), [Two() if len(labelled[0]) == 100 else Empty(10), None]

    def by_pixels(model, x, y, labelled, classes):
        assert torch.equal(x["train"], DIGITS["train"].x)
        return answer(2, x, y, labelled, classes)

    def accuracy(f, y, labelled, classes):
        assert f["train"].mean(0).abs().max() < 1e-9 and abs(f["train"].square().sum(1).mean() - 1) < 1e-9
        return answer(3 if f["train"].shape[1] == 3 else 4, f, y, labelled, classes)

    for name, known in (("by_m2", by_m2), ("by_pixels", by_pixels), ("accuracy", accuracy)):
        monkeypatch.setattr(module, name, known)
    line = module.study(Known(), "x.png")
    assert asked == [(kind, n) for n in (1, 5, 10, 100) for kind in (1, 2, 3, 4)]  # 1000 of a class are not there
    panel, sheet = figures.pop().axes
    curves = {each.get_label(): each.lines[0].get_xydata() for each in panel.containers}
    names = ["M2 on codes of Known", "the same network on pixels", "linear on codes of Known", "linear on pixels"]
    assert [*curves] == names == [text.get_text() for text in panel.get_legend().get_texts()]
    for kind, curve in enumerate(curves.values(), 1):
        assert np.allclose(curve, [(10 * n, 0.1 * kind + n / 2000) for n in (1, 5, 10, 100)])
    assert panel.get_xlabel() == "labels" and "test" in panel.get_ylabel() and panel.get_xscale() == "log"
    assert line.startswith("10 labels: M2 on codes of Known 10.1% +- 0.1%, the same network on pixels 20.1% +- 0.1%")
    assert line.endswith("linear on pixels 45.0% +- 5.0%") and line.count("; ") == 3

    cells = np.asarray(sheet.images[0].get_array()).astype(float)
    x = torch.stack([DIGITS["test"].x[DIGITS["test"].y == k][0] for k in range(10)]).float()
    assert "by 100 labels" in sheet.get_title()
    assert [text.get_text() for text in sheet.get_xticklabels()] == ["test", *"0123456789"]
    for row, (image, c) in enumerate(zip(x, x[:, 3, 2:5], strict=True)):
        cell = lambda column, row=row: cells[9 * row : 9 * row + 8, 9 * column : 9 * column + 8]
        assert (cell(0) == image.numpy()).all()
        own = c[1].clamp(max=9)  # the likeliest class
        for k in range(10):
            made = np.zeros((8, 8))
            made[3, 2:4] = c[0] + own, k
            assert (cell(1 + k) == made).all() and abs(sheet.get_xticks()[1 + k] - (9 * (1 + k) + 3.5)) <= 0.5


def test_the_labels_the_curves_and_the_analogies(figures, monkeypatch):
    check(semi_supervised, figures, monkeypatch)


PLANTED = {  # what it is: the line, and the line with the mistake
    "the log variance for sigma": ("{split: (v / 2).exp() for", "{split: v for"),
    "the images of another split": ('x["test"][first], classes)', 'x["valid"][first], classes)'),
    "the codes of another split": ('mu["test"][first], x', 'mu["train"][first], x'),
    "not the likeliest class": ("hot[m2.h(c).argmax(1)]", "hot[m2.h(c).argmin(1)]"),
    "each z with the class of another": ("hot.repeat(len(c), 1)", "hot.repeat_interleave(len(c), 0)"),
    "the images of another number of labels": ("if n == NEEDED", "if n == 5"),
    "one draw for all": ("noise.choice(", "np.random.RandomState(0).choice("),
    "not as many of each class": ("noise.choice(rows, n,", "noise.choice(rows, n + (rows[0] == of_class[0][0]),"),
    "labels for their number of a class": ("counts = [n * classes for n in counts]", "counts = [n for n in counts]"),
    "kinds exchanged": ("of_kind = [right, by_pixels(run.model, x, y, labelled, classes),",
                        "of_kind = [by_pixels(run.model, x, y, labelled, classes), right,"),
    "the deviation for the error of the mean": ("right.std(ddof=1) / DRAWS**0.5", "right.std(ddof=1)"),
    "more labels than there are": ("if n <= least]", "if n <= 10 * least]"),
    "codes not scaled": ("(rows - mean) / scale", "(rows - mean)"),
}


@pytest.mark.parametrize("right, wrong", PLANTED.values(), ids=PLANTED)
def test_planted_mistakes_are_seen(figures, monkeypatch, right, wrong):
    code = planted(semi_supervised, right, wrong)
    with pytest.raises((AssertionError, ValueError)):
        check(code, figures, monkeypatch)


def test_few_labels_are_as_many_of_each_class_whatever_the_number_of_classes(figures, monkeypatch):
    """Of 26 classes they are 26, 130 and 260; with 100 of each there are not enough."""
    counts = []
    answer = lambda labelled: counts.append(len(labelled[0])) or np.zeros(2)
    monkeypatch.setattr(semi_supervised, "by_m2", lambda mu, sigma, y, n, classes: (answer(n), [Empty(26)]))
    for name in ("accuracy", "by_pixels"):
        monkeypatch.setattr(semi_supervised, name, lambda *given: answer(given[-2]))
    monkeypatch.setattr(semi_supervised, "DRAWS", 2)
    line = semi_supervised.study(Known(26), "x.png")
    assert [int(part.partition(" ")[0]) for part in line.split("; ")] == [26, 130, 260] == counts[::4]


# ---- the classifiers -------------------------------------------------------------------------------------------------


def test_the_network_on_pixels_is_the_encoder_and_the_classifier_of_m2_and_begins_anew(monkeypatch):
    """It learns as many parameters as lie between an image and q(y|c), from weights that are not those of the run."""
    seen = []
    monkeypatch.setattr(_few_labels, "OF_PIXELS", dict(steps=60, rate=1e-2))
    known = _few_labels.descended
    monkeypatch.setattr(_few_labels, "descended", lambda network, *how, **more: (
        seen.append(network), known(network, *how, **more))[1])
    x, y = torch.zeros(4, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2, 0])
    x[0, 2:4], x[1, :, 2:4], x[2, 4:, 4:], x[3, 2:4, :7] = 16, 16, 16, 12
    for model in (VAE((8, 8), 17, latent=3, hidden=8, decoder="categorical", dropout=0.1),
                  Autoencoder((8, 8), 17, latent=3, hidden=8)):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(float("nan"))
        one, two, other = (_few_labels.of_pixels(model, x, y, 3, dropout, seed)(x)
                           for dropout, seed in ((0.0, 1), (0.0, 1), (0.5, 1)))
        assert torch.equal(one, two) and not torch.equal(one, other) and one.argmax(1).tolist() == y.tolist()
        network, h = seen[-1]
        assert h(network.encode(x)).shape == (4, 3) and isinstance(network, type(model))
        assert network.settings.get("dropout", 0.5) == 0.5 and h[2].p == 0.5
        learnt = sum(each.numel() for each in seen[-1].parameters() if each.grad is not None)
        whole = _few_labels.M2(3, 3).h
        encoder = sum(each.numel() for name, each in model.named_parameters() if name.startswith(("encoder.", "e.")))
        assert learnt == encoder + sum(each.numel() for each in whole.parameters())


def test_m2_learns_of_all_codes_and_draws_them(monkeypatch):
    """Two long clusters, each with one label at its end: all codes together tell where it ends. sigma is used."""
    torch.manual_seed(0)
    y = torch.arange(400) % 2
    mu = torch.stack([3 * torch.randn(400), 2.0 * (2 * y - 1) + 0.3 * torch.randn(400)], 1)
    mu[0], mu[1] = torch.tensor([-6.0, -2]), torch.tensor([6.0, 2])
    n, zero = torch.tensor([0, 1]), torch.zeros(400, 2)
    monkeypatch.setattr(_few_labels, "OF_CODES", dict(steps=300, rate=1e-2))
    m2 = _few_labels.of_codes(mu, zero, n, y[n], 2, 0.0, 0)
    assert not m2.training and (m2.h(mu).argmax(1) == y).float().mean() > 0.97
    weights = lambda sigma, seed: _few_labels.of_codes(mu, sigma, n, y[n], 2, 0.0, seed).h[0].weight
    monkeypatch.setattr(_few_labels, "OF_CODES", dict(steps=2, rate=1e-2))
    assert torch.equal(weights(zero, 3), weights(zero, 3)) and not torch.equal(weights(zero, 3), weights(zero, 4))
    assert not torch.equal(weights(zero, 3), weights(zero + 1, 3))


def test_the_dropout_is_chosen_on_valid_and_the_share_is_of_test(monkeypatch):
    """With dropout 0.5 every prediction is class 1, else class 0: the better on valid may be wrong on all of test."""
    says = lambda dropout: lambda c: torch.eye(2)[int(dropout == 0.5)].expand(len(c), 2)
    monkeypatch.setattr(_few_labels, "of_pixels", lambda model, x, y, classes, dropout, seed: says(dropout))
    monkeypatch.setattr(_few_labels, "of_codes", lambda mu, sigma, n, y, classes, dropout, seed: types.SimpleNamespace(
        h=says(dropout), seed=seed, y=y.tolist(), dropout=dropout))
    f, zeros, ones = {split: torch.zeros(6, 1) for split in data.SPLITS}, torch.zeros(6).long(), torch.ones(6).long()
    for valid, test, right in ((ones, zeros, 0), (ones, ones, 1), (zeros, ones, 0), (zeros, zeros, 1)):
        y = {"train": torch.arange(6), "valid": valid, "test": test}
        labelled = [torch.tensor([3, 4]), torch.tensor([1, 5])]
        shares, learnt = semi_supervised.by_m2(f, f, y, labelled, 2)
        assert shares.tolist() == [right] * 2 == semi_supervised.by_pixels(None, f, y, labelled, 2).tolist()
        dropout = 0.5 * valid[0]
        assert [(m2.seed, m2.y, m2.dropout) for m2 in learnt] == [(0, [3, 4], dropout), (1, [1, 5], dropout)]
