"""Tests of the two stages of VQVAE: they are one training, which resumes in either of them to the same bits."""

import dataclasses

import numpy as np
import pytest
import torch
from check import command
from check_models import Killed, at_step, ctrl_c, kill, rows, same_runs, same_weights
from test_vqvae import SMALL, TRAIN, VALID

import genmini
from genmini import checkpoint
from genmini.models.vqvae import VQVAE
from genmini.train import fit, judge

# ---- two stages, one training ----------------------------------------------------------------------------------------

LOOPS = dict(steps=10, every=4, batch=16, later={"prior": dict(steps=8, every=4, batch=16, rate=0.01, ema=0.9)})
CONDITIONAL = dict(classes=10, dropout=0.2, prior_dropout=0.2, revive=2, **SMALL)


def staged(run=None, at=None, event=None, resume=False):
    """At the step `at`, counted through both stages, `event` happens."""
    torch.manual_seed(7)
    model = VQVAE((8, 8), **CONDITIONAL)
    if resume:
        torch.rand(100)  # what a fresh process has drawn does not matter
    with at_step(VQVAE, at, event):
        return model, fit(model, TRAIN, VALID, **LOOPS, run=run, metadata={"seed": 0}, resume=resume, progress=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = tmp_path_factory.mktemp("whole")
    return run, *staged(run)


def same(run, model, whole):
    same_weights(whole[1], model)
    same_runs(run, whole[0])
    assert [row["stage"] for row in rows(run)] == ["codes"] * 3 + ["prior"] * 2


@pytest.mark.parametrize("at", [2, 6, 11, 16])
def test_interrupted_in_either_stage_and_resumed_equals_uninterrupted(tmp_path, whole, at):
    with ctrl_c() as press:
        _, history = staged(tmp_path, at, press)
    stage, last = ("codes", at) if at <= 10 else ("prior", at - 10)
    metadata = checkpoint.read(tmp_path)
    assert history.stopped == "interrupted" and history.last == last and metadata["stage"] == stage
    assert (metadata["state"]["tensors"] == f"state-{stage}-{last}.safetensors"
            and metadata["later"] == (["prior"] if at <= 10 else []))
    model, history = staged(tmp_path, resume=True)
    assert not history.stopped
    same(tmp_path, model, whole)


def test_killed_between_the_stages_and_resumed_equals_uninterrupted(tmp_path, whole):
    """The files hold the best weights of the first stage, and that the second stage follows."""
    with pytest.raises(Killed):
        staged(tmp_path, 11, kill)
    metadata = checkpoint.read(tmp_path)
    assert metadata["stage"] == "codes" and metadata["later"] == ["prior"] and "state" not in metadata
    assert not genmini.load(tmp_path).with_prior and genmini.load(tmp_path).sample(3).shape == (3, 8, 8)
    model, _ = staged(tmp_path, resume=True)
    same(tmp_path, model, whole)


def test_the_second_stage_begins_at_the_best_of_the_first():
    """The loop overfits twenty images: the weights of the best evaluation are kept, and later ones dropped."""
    few = dataclasses.replace(TRAIN, x=TRAIN.x[:20], y=TRAIN.y[:20])
    torch.manual_seed(0)
    settings = SMALL | dict(K=32, width=16)
    model, kept = VQVAE((8, 8), **settings), []
    begin = model.begin
    model.begin = lambda stage, train: (kept.append({k: t.clone() for k, t in model.state_dict().items()}),
                                        begin(stage, train))
    loops = dict(steps=120, every=20, rate=0.02, batch=20, later={"prior": dict(steps=2, every=1)})
    seen = []
    fit(model, few, VALID, **loops, progress=False, watch=lambda row, model: seen.append(row))
    first = [row["valid"] for row in seen if row["stage"] == "codes"]
    assert min(first) < first[-1], "the test wants a stage that gets worse"
    second = VQVAE((8, 8), **settings)
    second.load_state_dict(kept[1])
    assert judge(second, VALID.x).mean().item() == min(first)
    for name, tensor in model.state_dict().items():
        assert name.startswith(("prior", "with_prior", "codebook")) or torch.equal(tensor, kept[1][name])
    assert torch.equal(model.codebook.weight[model.codes(VALID.x)], second.codebook.weight[second.codes(VALID.x)])


# ---- from the command line -------------------------------------------------------------------------------------------

FAST = dict(SMALL, steps=6, every=4) | {"prior.steps": 5, "prior.every": 4}


def test_the_command_line_trains_both_stages_and_resumes_the_second(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "vqvae", "--data", "digits", "--recipe", "conditional", "--threads", "1"]
    words += [word for key, value in FAST.items() for word in ("--set", f"{key}={value}")]
    status, out, _ = command(capsys, *words, "--out", "whole")
    assert status == 0 and "6 + 5 steps" in out
    with ctrl_c() as press, at_step(VQVAE, 10, press):
        status, _, err = command(capsys, *words, "--out", "parts")
    assert status == 130 and err.splitlines()[-1].endswith("--resume continues from step 4 of the stage prior"), err
    assert "is not at its end: `train --resume` continues from step 4 of the stage prior" in command(
        capsys, "sample", "parts", "-n", "2", "--out", "x.npy")[1]
    status, _, err = command(capsys, *words, "--set", "prior.rate=0.1", "--out", "parts", "--resume")
    assert status == 2 and "prior.rate" in err
    status, out, _ = command(capsys, *words, "--out", "parts", "--resume")
    assert status == 0 and "resumed   parts at step 4 of the stage prior" in out
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole") and checkpoint.read("parts") == checkpoint.read("whole")
    status, again, _ = command(capsys, *words, "--out", "parts", "--resume")
    assert status == 0 and "nothing left to resume" in again
    assert (tmp_path / "parts" / "samples.png").stat().st_size > 1000
    status, out, _ = command(capsys, "eval", "parts")
    tests = [[line for line in output.splitlines() if line.startswith("test")] for output in (again, out)]
    assert status == 0 and tests[0] == tests[1] and len(tests[0]) == 7
    assert all(word in out for word in ("elbo", "reconstruction", "kl", "kl-uniform", "perplexity", "usage",
                                        "dead", "given the class"))
    assert (command(capsys, "study", "codes", "parts")[0] == 0
            and (tmp_path / "parts" / "codes.png").stat().st_size > 20_000)
    for words in (["-y", "3"], []):
        status, out, _ = command(capsys, "sample", "parts", "-n", "5", "--out", "x.npy", *words)
        assert status == 0 and np.load("x.npy").shape == (5, 8, 8) and ("as frequent" in out) == (not words)
        assert "not at its end" not in out


@pytest.mark.parametrize("pair, says", [("prior.stepz=3", "'prior.stepz'"), ("codes.steps=3", "'codes.steps'"),
                                        ("prior.K=3", "'prior.K'"),
                                        ("prior.rate=fast", "--set prior.rate takes a value like")])
def test_a_wrong_setting_of_a_stage_is_one_line(capsys, pair, says):
    status, _, err = command(capsys, "train", "vqvae", "--data", "digits", "--set", pair)
    assert status == 2 and says in err and len(err.splitlines()) == 1 and ("prior.rate" in err)
