"""Tests of the classifier: its equations by hand, the settings that it takes, what training shows it, that it learns,
and the commands."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genmini import data
from genmini.cli import main
from genmini.models.classifier import Classifier
from genmini.train import fit


@pytest.mark.parametrize("shape", [(8, 8), (7, 5), (3, 6, 9), (1, 1)])
def test_it_is_its_equations(shape):
    torch.manual_seed(1)
    model = Classifier(shape, levels=5, classes=4, width=3, features=6, dropout=0.5).double().eval()
    x, y = torch.randint(5, (7, *shape)), torch.randint(4, (7,))
    h = x.double().reshape(7, -1, *shape[-2:]) / 2 - 1
    for W, V in zip(model.W, model.V, strict=True):
        h = F.conv2d(F.conv2d(h, W.weight, W.bias, padding=1).clamp(0), V.weight, V.bias, padding=1).clamp(0)
        h = F.pad(h, (0, h.shape[3] % 2, 0, h.shape[2] % 2))  # zeros are no larger than what a ReLU gives
        h = torch.stack([h[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)
    f = (h.flatten(1) @ model.W_f.weight.T + model.W_f.bias).clamp(0)
    a = f @ model.W_y.weight.T + model.W_y.bias
    torch.testing.assert_close(model.features(x), f)
    torch.testing.assert_close(model.logits(x), a)
    nll = torch.stack([torch.logsumexp(row, 0) - row[k] for row, k in zip(a, y, strict=True)])
    torch.testing.assert_close(model.loss(x, y), nll)
    figures = model.figures(x, y)
    torch.testing.assert_close(figures["cross entropy"], nll)
    assert figures["accuracy"].tolist() == [float(row.argmax() == k) for row, k in zip(a, y, strict=True)]
    assert (nll >= 0).all() and model.features(x).shape == (7, 6) and model.features(x[:0]).shape == (0, 6)
    torch.testing.assert_close(model.logits(x.double().flatten(1)), a)


def test_gradients_are_the_derivative():
    torch.manual_seed(0)
    model, x, y = (Classifier((4, 4), levels=3, classes=3, width=2, features=4).double(),
                   torch.randint(3, (3, 4, 4)), torch.tensor([0, 2, 1]))
    names, values = zip(*model.named_parameters(), strict=True)
    model.forward = model.loss
    of = lambda *values: torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x, y))
    assert torch.autograd.gradcheck(of, values)


def test_training_shows_a_share_of_images_with_two_levels():
    model = Classifier((8, 8), levels=17, binary=0.6)
    x = data.load("digits").x[:1000]
    seen = model._partly_binary(x)
    two = ((seen == 0) | (seen == 16)).flatten(1).all(1)
    assert abs(two.float().mean() - 0.6) < 0.06  # four deviations of a share of 1000
    assert torch.equal(seen[~two], x[~two].float())
    by_threshold = (seen == 16.0 * (x >= 8)).flatten(1).all(1)
    assert abs(by_threshold.float().mean() - 0.3) < 0.06 and by_threshold[two].any()
    drawn, of = seen[two & ~by_threshold], x[two & ~by_threshold].float()
    assert (abs((drawn - of).mean()) < 4 * 8 / (64 * 280) ** 0.5 and (drawn[of == 0] == 0).all()
            and (drawn[of == 16] == 16).all())
    model.eval()
    assert torch.equal(model.loss(x, x[:, 0, 0].long() % 10), model.loss(x, x[:, 0, 0].long() % 10))


def test_wrong_settings_are_named():
    for wrong, says in ((dict(shape=(5,)), "shape"), (dict(levels=None), "levels"),
                        (dict(classes=1), "classes"),
                        (dict(binary=2), "binary"), (dict(features=0), "features")):
        with pytest.raises(ValueError, match=says):
            Classifier(**{"shape": (4, 4), **wrong})
    with pytest.raises(ValueError, match=r"must have shape \(N, 4, 4\), got \(2, 5\)"):
        Classifier((4, 4)).features(torch.zeros(2, 5))


def test_it_learns_the_digits():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train, valid, test = (data.load("digits", split) for split in data.SPLITS)
    model = Classifier((8, 8), levels=17, width=8)
    fit(model, train, valid, steps=300, rate=3e-3, progress=False)
    torch.set_num_threads(threads)
    assert model.figures(test.x, test.y)["accuracy"].mean() > 0.8  # chance gives 0.1


def test_the_command_line_trains_and_judges_it_and_draws_no_samples(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "classifier", "--data", "digits", "--steps", "3", "--set", "width=4", "--set", "ema=0.5",
             "--threads", "1", "--out", "r"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "bits/dim" not in out and (tmp_path / "r" / "samples.png").stat().st_size > 10_000
    assert "given the class" not in out  # which it is asked for
    assert main(["eval", "r"]) == 0 and capsys.readouterr().out.startswith("test")
    assert (main(["sample", "r", "--out", "x.npy"]) == 2
            and "r does not fit: Classifier draws no samples" in capsys.readouterr().err)
    assert not (tmp_path / "x.npy").exists()
    assert np.isfinite(Classifier((8, 8)).loss(torch.zeros(2, 8, 8), torch.tensor([0, 1])).detach().numpy()).all()
