"""Tests that an interrupted run continues to the same bits, weights, metrics and noise, with every setting of the
loop."""

import pytest
import torch
from check_models import Killed, at_step, kill, resumes, rows, same_runs, same_weights

from genmini import checkpoint, data, models
from genmini.models.made import MADE
from genmini.models.vqvae import VQVAE
from genmini.train import fit

SETS = {name: [data.load(name, split) for split in data.SPLITS]
        for name in ("digits", "digits-threshold", "digits-dynamic", "moons")}
CASES = {  # model, its settings, data, settings of the loop
    "made": ("made", dict(hidden=(16,), dropout=0.5), "digits-threshold", dict(shift=0.5)),
    "fvsbn, dynamic, average": ("fvsbn", dict(dropout=0.1), "digits-dynamic", dict(ema=0.9, decay=0.1)),
    "nade": ("nade", dict(hidden=8, dropout=0.5), "digits-threshold", dict(patience=100)),
    "rnade": ("rnade", dict(hidden=8, components=2, dropout=0.2), "moons", dict(ema=0.9)),
    "rnade, levels": ("rnade", dict(hidden=8, components=2, order="random"), "digits", dict()),
    "realnvp, levels": ("realnvp", dict(couplings=1, width=4, dropout=0.2, dequantise="variational"), "digits",
                        dict(ema=0.5)),
    "realnvp, classes": ("realnvp", dict(couplings=2, hidden=8, classes=2), "moons", dict()),
    "maf": ("maf", dict(hidden=8, layers=2, order="random", dropout=0.2), "digits", dict()),
    "maf, splines": ("maf", dict(hidden=8, layers=2, coupling="spline"), "moons", dict(ema=0.5)),
    "vae": ("vae", dict(hidden=8, latent=3, dropout=0.2), "digits-threshold", dict(shift=0.5)),
    "cvae": ("cvae", dict(hidden=8, latent=3, free_bits=0.1), "digits-threshold", dict()),
    "arvae, half precision": ("arvae", dict(hidden=8, latent=6, decoder="gaussian-learned"), "digits",
                              dict(precision="bfloat16")),
    "autoencoder, average": ("autoencoder", dict(hidden=8, latent=3), "digits", dict(ema=0.9)),
    "half precision": ("made", dict(hidden=(16,)), "digits-threshold", dict(precision="float16")),
}


def made(name, settings, on):
    torch.manual_seed(7)
    return models.find(name)(SETS[on][0].shape, levels=SETS[on][0].levels, **settings)


on_gpu = pytest.param("made", 13, "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


@pytest.mark.parametrize("case, stop, device",
                         [*((case, 13, "cpu") for case in CASES), ("made", 3, "cpu"), ("made", 8, "cpu"), on_gpu])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, case, stop, device):
    """A run stopped before the first evaluation, at one or after it holds the state of that step."""
    name, settings, on, loop = CASES[case]
    loop = dict(steps=16, every=8, batch=16) | loop
    resumes(lambda: made(name, settings, on).to(device), *SETS[on][:2], loop, stop=stop, folder=tmp_path)
    assert len(rows(tmp_path / "whole")) == 2


def test_a_killed_run_resumes_from_its_last_checkpoint(tmp_path, monkeypatch):
    """After a kill the state on disk, saved by the clock and not at an evaluation, is enough to continue."""
    few = SETS["digits-threshold"][:2]
    loop = dict(steps=12, every=10, batch=16, progress=False)
    whole, parts = (made("made", dict(hidden=(8,)), "digits-threshold") for _ in range(2))
    fit(whole, *few, **loop, run=tmp_path / "whole")
    monkeypatch.setattr("genmini.loop.SAVE_EVERY", 0)
    with at_step(MADE, 6, kill), pytest.raises(Killed):
        fit(parts, *few, **loop, run=tmp_path / "parts")
    assert checkpoint.read(tmp_path / "parts")["state"]["tensors"] == "state-5.safetensors"
    again = made("made", dict(hidden=(8,)), "digits-threshold")
    fit(again, *few, **loop, run=tmp_path / "parts", resume=True)
    same_weights(whole, again)
    same_runs(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_run_that_stepped_without_fused_kernels_goes_on_so(tmp_path, monkeypatch, precision):
    """Runs of earlier versions stepped by PyTorch's default: they are continued to the same bits."""
    few, loop = SETS["digits-threshold"][:2], dict(steps=12, every=10, batch=16, progress=False, precision=precision)
    whole, parts, again = (made("made", dict(hidden=(8,)), "digits-threshold") for _ in range(3))
    with monkeypatch.context() as before:
        before.setattr(torch.optim, "AdamW", lambda *args, fused, of=torch.optim.AdamW, **kwargs: of(*args, **kwargs))
        fit(whole, *few, **loop, run=tmp_path / "whole")
        before.setattr("genmini.loop.SAVE_EVERY", 0)
        with at_step(MADE, 6, kill), pytest.raises(Killed):
            fit(parts, *few, **loop, run=tmp_path / "parts")
    fit(again, *few, **loop, run=tmp_path / "parts", resume=True)
    same_weights(whole, again)
    same_runs(tmp_path / "parts", tmp_path / "whole")


def test_filters_in_channels_last_are_resumed_as_they_were(tmp_path):
    """A file holds plain rows: what the optimiser remembers of a parameter is laid out again as the parameter is."""
    model = lambda: made("pixelcnn", dict(width=4, blocks=1), "digits-threshold").to(memory_format=torch.channels_last)
    assert any(not p.is_contiguous() for p in model().parameters())
    resumes(model, *SETS["digits-threshold"][:2], dict(steps=6, every=6, batch=4), stop=3, folder=tmp_path)


def test_what_rested_in_a_run_rests_from_the_first_step_on(tmp_path, monkeypatch):
    """Of a VQ-VAE that learns its prior: a buffer says so, which the run has and a new model has not."""
    few, loop, seen = SETS["digits-threshold"][:2], dict(steps=4, every=10, batch=16, progress=False), []
    small = dict(K=8, dim=3, width=4, blocks=1, prior_width=4, prior_blocks=1)
    parts, again = (made("vqvae", small, "digits-threshold") for _ in range(2))
    parts.begin("prior", few[0])
    with at_step(VQVAE, 3, kill), pytest.raises(Killed), monkeypatch.context() as often:
        often.setattr("genmini.loop.SAVE_EVERY", 0)
        fit(parts, *few, **loop, run=tmp_path)
    with at_step(VQVAE, 1, lambda: seen.append(again.codebook.training)):
        fit(again, *few, **loop, run=tmp_path, resume=True)
    assert again.with_prior and seen == [False]


def test_the_first_checkpoint_follows_the_first_step(tmp_path):
    model, log_prob, step = made("made", dict(hidden=(8,)), "digits-threshold"), None, [0]
    log_prob = model.log_prob

    def looks(x, y=None):
        step[0] += 1
        if step[0] == 2:
            assert (checkpoint.read(tmp_path)["state"]["tensors"] == "state-1.safetensors"
                    and checkpoint.read(tmp_path)["valid"] is None)
            checkpoint.load(tmp_path).sample(2)
            raise Killed
        return log_prob(x)

    model.log_prob = looks
    with pytest.raises(Killed):
        fit(model, *SETS["digits-threshold"][:2], steps=10, run=tmp_path, progress=False)
    assert step[0] == 2


def test_what_cannot_be_resumed_is_said(tmp_path):
    model, few = made("made", dict(hidden=(8,)), "digits-threshold"), SETS["digits-threshold"][:2]
    with pytest.raises(ValueError, match="holds no run"):
        fit(model, *few, steps=2, run=tmp_path, resume=True, progress=False)
    fit(model, *few, steps=2, run=tmp_path, progress=False)
    with pytest.raises(ValueError, match="at its end"):
        fit(model, *few, steps=2, run=tmp_path, resume=True, progress=False)


def test_a_state_is_any_nest(tmp_path):
    nest = {"step": 3, "a": [1, 2.5, None, {"b": torch.arange(3)}], "numbers": {0: {"x": torch.tensor(1.5)}, 1: {}},
            "whole": 0.1 + 0.2}
    model = made("made", dict(hidden=(8,)), "digits-threshold")
    checkpoint.save(tmp_path, model, {"step": 1}, state=nest)
    back, weights = checkpoint.load_state(tmp_path)
    assert torch.equal(back["a"][3].pop("b"), torch.arange(3)) and back["numbers"][0].pop("x") == 1.5
    assert back == {"step": 3, "a": [1, 2.5, None, {}], "numbers": {0: {}, 1: {}}, "whole": 0.1 + 0.2}
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    state = tmp_path / "state-3.safetensors"
    state.write_bytes(state.read_bytes()[:-3])
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.load_state(tmp_path)
    checkpoint.load(tmp_path)  # which does not need it
    checkpoint.save(tmp_path, model, {"step": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model-2.safetensors", "run.json"]
