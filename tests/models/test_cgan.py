"""CGAN: its projection against the formula, classes that reach both players, and what judges pairs (x, y)."""

import pytest
import torch

from genmini import data
from genmini.models._model import Batch
from genmini.models.cgan import CGAN
from genmini.models.gan import energy_distance
from genmini.train import fit

TRAIN = data.load("gaussians", "train")


def small(shape=(3,), levels=None, **settings):
    torch.manual_seed(0)
    return CGAN(shape, levels, **dict(classes=3, latent=2, hidden=(5, 4), dtype=torch.float64) | settings)


def test_the_discriminator_is_a_projection():
    """a(x, y) is linear in phi(x), with the weights w + e_y, for mlp and conv."""
    for model, x in ((small(), torch.randn(6, 3, dtype=torch.float64)),
                     (small((8, 8), 5, body="conv", width=2), torch.randn(6, 8, 8, dtype=torch.float64))):
        y = torch.tensor([0, 2, 1, 1, 0, 2])
        phi, w, e = (model.discriminator[name] for name in ("phi", "w", "e"))
        expected = torch.stack([phi(x)[i] @ (w.weight[0] + e.weight[y[i]]) + w.bias[0] for i in range(6)])
        torch.testing.assert_close(model.a(x, y), expected, rtol=1e-12, atol=1e-13)
        assert not torch.allclose(model.a(x, y), model.a(x, (y + 1) % 3))


def test_the_generator_is_told_the_class():
    model, z = small(), torch.randn(1, 2, dtype=torch.float64).expand(3, 2)
    x = model.decode(z, torch.arange(3))
    torch.testing.assert_close(model.decode(z, 1), x[[1, 1, 1]])
    assert len(x.unique(dim=0)) == 3
    # a one-hot y picks a column of the first layer, beside z
    first = model.f[0]
    torch.testing.assert_close(first(torch.cat([z, torch.eye(3, dtype=z.dtype)], 1)),
                               z @ first.weight[:, :2].T + first.weight[:, 2:].T + first.bias)
    with pytest.raises(ValueError, match=r"y is missing: a class 0 \.\.\. 2"):
        model.decode(z)


def test_both_players_see_the_classes_of_the_batch():
    model, calls = small(k=2), []
    a, w = model.a, model.w
    model.a = lambda x, y=None: calls.append(("a", y.tolist())) or a(x, y)
    model.w = lambda z, y=None: calls.append(("w", y.tolist())) or w(z, y)
    y = torch.tensor([0, 1, 2, 2])
    list(model.updates(Batch(torch.randn(4, 3, dtype=torch.float64), y)))
    assert calls == [("w", [0, 1]), ("a", [0, 1]), ("a", [0, 1]), ("w", [2, 2]), ("a", [2, 2]), ("a", [2, 2]),
                     ("w", [0, 1, 2, 2]), ("a", [0, 1, 2, 2])]


def test_samples_without_a_class_are_of_all_in_turn():
    model, classes = small(), []
    decode = model.decode
    model.decode = lambda z, y=None: classes.append(y) or decode(z, y)
    model.sample(7)
    model.sample(2, y=1)
    assert classes[0].tolist() == [0, 1, 2, 0, 1, 2, 0] and classes[1] == 1


def test_what_judges_are_pairs_of_x_and_y():
    """The energy distance of (x, one-hot y): the same samples under other classes are farther away."""
    model = small()
    x, y = torch.randn(40, 3, dtype=torch.float64), torch.arange(40) % 3
    value = model.valid_loss(x, y)
    torch.manual_seed(0)
    w = model.sample(40, y)
    one_hot = torch.eye(3, dtype=x.dtype)
    pairs = lambda x, y: torch.cat([x, one_hot[y]], 1)
    assert value == pytest.approx(energy_distance(pairs(x, y), pairs(w, y)).item(), rel=1e-12)
    assert energy_distance(model.joint(x, y), model.joint(x, y)) < 1e-14
    assert energy_distance(model.joint(x, y), model.joint(x, (y + 1) % 3)) > 0.01


def test_classes_that_are_none_are_refused():
    with pytest.raises(ValueError, match="classes must be at least 1, got 0"):
        small(classes=0)


def test_each_class_is_learnt_as_such():
    """In 300 steps most samples of each of eight classes lie nearest to the centre of their own Gaussian."""
    torch.manual_seed(0)
    model = CGAN((2,), classes=8, latent=2, hidden=(32, 32), r1=0.1)
    fit(model, TRAIN, data.load("gaussians", "valid"), steps=300, every=100, batch=128, rate=2e-3, betas=(0.0, 0.99),
        ema=0.9, progress=False)
    centres = torch.from_numpy(data.toys.TOYS["gaussians"].centres).float()
    torch.manual_seed(0)
    y = torch.arange(800) % 8
    right = torch.cdist(model.sample(800, y), centres).argmin(1) == y
    assert torch.stack([right[y == k].double().mean() for k in range(8)]).min() > 0.9
