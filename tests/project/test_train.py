"""Tests of the training loop: same seed same bits, the best weights are kept, and what cannot be trained is named."""

import copy
import dataclasses
import itertools
import json
import math
import signal
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from check_models import at_step, ctrl_c

import genmini
from genmini import checkpoint, data, files
from genmini.loop import shifted
from genmini.models.made import MADE
from genmini.train import evaluate, fit, judge

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
TRAIN, VALID, TEST = (data.load("digits-threshold", split) for split in data.SPLITS)


def small(seed=0, **settings):
    torch.manual_seed(seed)
    return MADE((8, 8), hidden=(16,), **settings)


# ---- the loop --------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits():
    losses = []
    for seed in (1, 1, 2):
        model = small(dropout=0.5)
        fit(model, TRAIN, VALID, steps=20, every=10, shift=0.5, seed=seed, progress=False)
        losses.append(judge(model, TEST.x))
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


def test_the_best_weights_stay(tmp_path):
    """The loop overfits twenty images: the model and the run keep the weights of the best evaluation, not of the
    last."""
    model, few = small(), dataclasses.replace(TRAIN, x=TRAIN.x[:20], y=TRAIN.y[:20])
    history = fit(model, few, VALID, steps=200, every=10, rate=0.02, run=tmp_path, progress=False)
    losses = [row["valid"] for row in history.rows]
    assert history.valid == min(losses) < losses[-1] and history.rows[losses.index(min(losses))]["step"] == history.step
    assert judge(model, VALID.x).mean().item() == history.valid
    assert judge(genmini.load(tmp_path), VALID.x).mean().item() == history.valid
    metadata = checkpoint.read(tmp_path)
    assert metadata["step"] == history.step
    assert [p.name for p in tmp_path.glob("*.safetensors")] == [metadata["weights"]]
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == history.rows


def test_all_modules_train_at_each_step():
    """Also those that an evaluation, or the user, has put into eval mode."""
    model, seen = small(dropout=0.5), []
    model.dropout.eval()
    loss = model.loss
    model.loss = lambda x, y=None: seen.append({m.training for m in model.modules()}) or loss(x, y)
    fit(model, TRAIN, VALID, steps=5, every=2, progress=False)
    assert [each for each in seen if each != {False}] == [{True}] * 5 and {False} in seen


def spoiled(spoil):
    """A model whose log_prob passes through spoil(step, log_p) while it trains."""
    model, step = small(), itertools.count(1)
    log_prob = model.log_prob
    model.log_prob = lambda x, y=None: spoil(next(step), log_prob(x)) if model.training else log_prob(x)
    return model


def test_a_loss_that_is_not_finite_stops_and_names_what_is_kept(tmp_path):
    model = spoiled(lambda step, log_p: log_p if step <= 25 else log_p * float("nan"))
    with pytest.raises(FloatingPointError, match=r"step 30 .*step 20 .*kept in"):
        fit(model, TRAIN, VALID, steps=100, every=10, run=tmp_path, progress=False)
    assert judge(genmini.load(tmp_path), TEST.x).isfinite().all()


@pytest.mark.parametrize("at", [3, 25])
def test_ctrl_c_ends_after_the_step_with_what_is_best_so_far(tmp_path, at):
    with ctrl_c() as press, at_step(MADE, at, press):
        history = fit(small(), TRAIN, VALID, steps=100, every=10, run=tmp_path, progress=False)
    assert history.stopped == "interrupted" and history.last == at and history.step == (at if at < 10 else 20)
    assert judge(genmini.load(tmp_path), VALID.x).mean().item() == history.valid


def test_one_example_has_no_standard_error():
    model = small()
    one = dataclasses.replace(TEST, x=TEST.x[:1], y=TEST.y[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, error = evaluate(model, one)
    assert mean == judge(model, one.x).item() and math.isnan(error)


def test_the_average_of_the_weights_is_what_is_judged_and_kept(tmp_path):
    """Against the recursion by hand: a_1 = w_1, a_t = decay a_t-1 + (1 - decay) w_t."""
    decay, seen = 0.8, []

    class Watched(MADE):
        def log_prob(self, x, y=None):
            if self.training:
                seen.append(torch.cat([p.detach().flatten() for p in self.parameters()]))  # before the step
            return super().log_prob(x, y=y)

    torch.manual_seed(0)
    model = Watched((8, 8), hidden=(16,))
    fit(model, TRAIN, VALID, steps=6, every=6, ema=decay, rate=0.01, progress=False)
    average = seen[1]
    for w in seen[2:]:
        # of the weights after the steps 1 ... 5; those after the sixth are not in `seen`
        average = decay * average + (1 - decay) * w
    kept = torch.cat([p.detach().flatten() for p in model.parameters()])
    last = (kept - decay * average) / (1 - decay)
    within = 6 * 3 / (1 - decay) * 2**-24 * kept.abs().max()  # six averages, three roundings each
    assert (last - seen[-1]).abs().max() < 0.02 and (last - seen[-1]).abs().max() > 1e-5  # one step of Adam away
    plain = small()
    fit(plain, TRAIN, VALID, steps=6, every=6, rate=0.01, progress=False)
    assert (torch.cat([p.detach().flatten() for p in plain.parameters()]) - last).abs().max() <= within


def test_without_progress_it_stops_early():
    model, few = small(), dataclasses.replace(TRAIN, x=TRAIN.x[:20], y=TRAIN.y[:20])
    history = fit(model, few, VALID, steps=1000, every=10, rate=0.02, patience=3, progress=False)
    assert (history.stopped == "early" and history.last == history.step + 30 < 1000
            and len(history.rows) == history.last // 10)
    assert judge(model, VALID.x).mean().item() == history.valid


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_as_well(precision, device):
    """Losses in training are those of 16 bits, those on valid of 32; after 100 steps they differ by less than a
    twentieth of a nat a pixel."""
    histories = {}
    for p in (precision, "float32"):
        model = small().to(device)
        histories[p] = fit(model, TRAIN, VALID, steps=100, every=50, rate=0.01, precision=p, progress=False)
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    one, other = (histories[p].rows for p in histories)
    assert (one[0]["train"] != other[0]["train"] and abs(one[-1]["valid"] - other[-1]["valid"]) < 64 / 20
            and one[-1]["valid"] < 30)


def test_what_watches_disturbs_nothing():
    losses, rows = [], []
    for watch in (None, lambda row, model: rows.append(row) or model.sample(5)):
        model = small(dropout=0.5)
        history = fit(model, TRAIN, VALID, steps=20, every=10, watch=watch, progress=False)
        losses.append(judge(model, TEST.x))
    assert torch.equal(*losses) and rows == history.rows and [row["step"] for row in rows] == [10, 20]


def test_the_second_ctrl_c_is_at_once():
    with ctrl_c() as press, at_step(MADE, 1, lambda: (press(), press())):
        with pytest.raises(KeyboardInterrupt):
            fit(small(), TRAIN, VALID, steps=10, progress=False)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_data_is_refused():
    with pytest.raises(ValueError, match="17 levels"):
        fit(small(), data.load("digits"), VALID, steps=1, progress=False)
    with pytest.raises(ValueError, match=r"\(4, 16\)"):
        evaluate(MADE((4, 16), hidden=(4,)), TEST)


def test_settings_that_cannot_be_are_named():
    for wrong in (dict(steps=0), dict(steps=1, batch=0), dict(steps=1, every=0)):
        with pytest.raises(ValueError, match=f"{list(wrong)[-1]} must be at least 1"):
            fit(small(), TRAIN, VALID, **wrong, progress=False)
    for wrong, says in ((dict(shift=2.0), "shift must be at least 0 and at most 1, got 2.0"),
                        (dict(rate=float("inf")), "rate must be above 0, got inf"), (dict(ema=1.0), "ema"),
                        (dict(patience=-1), "patience"), (dict(precision="float64"), "'bfloat16' or 'float16'")):
        with pytest.raises(ValueError, match=says):
            fit(small(), TRAIN, VALID, steps=1, **wrong, progress=False)
    rows = dataclasses.replace(TRAIN, x=TRAIN.x.flatten(1))
    with pytest.raises(ValueError, match="shift moves images"):
        fit(MADE(64, hidden=4), rows, rows, steps=1, shift=0.5, progress=False)


@pytest.mark.parametrize("wrong, says", [
    (dict(steps=1.5), "steps must be a whole number, at least 1, got 1.5"), (dict(steps=True), "steps must be a whole"),
    (dict(steps="a"), "steps must be a whole number"), (dict(steps=(2, 3)), r"steps must be a whole .* got \(2, 3\)"),
    (dict(batch=1.5), "batch must be a whole"), (dict(every=2.5), "every must be a whole"),
    (dict(patience=1.5), "patience must be a whole"), (dict(rate="a"), "rate must be a number, above 0, got 'a'"),
    (dict(clip="x"), "clip must be a number"), (dict(decay="x"), "decay must be a number"),
    (dict(shift="x"), "shift must be a number"), (dict(ema="x"), "ema must be a number"),
    (dict(betas=3), "betas must be two shares"), (dict(betas=("a", 0.1)), "betas must be a number"),
    (dict(precision=3), "precision must be"), (dict(marginals=3), "marginals must be True or False, got 3"),
    (dict(seed="a"), "seed must be a whole number"), (dict(seed=1.5), "seed must be a whole number"),
    (dict(seed=2**64), r"seed must be 0 to \d+, got"), (dict(resume=True), "resume continues the training in run"),
    (dict(watch=5), "watch must be a function, got 5"), (dict(measure=5), "measure must be a function, got 5"),
    (dict(run=5), "run must be the path of a folder, got 5"), (dict(run="a\0b"), r"'a\\x00b' holds a null byte"),
    (dict(run=300 * "x"), "too long a name for the file system, 300 bytes"),
    (dict(later=5), "later must be"), (dict(later={"x": 5}), "later must be"),
    (dict(later={"x": {}}), r"later takes the settings of the stages \(\), got those of \('x',\)"),
    (dict(metadata={"a": object()}), "metadata must be JSON: Object of type object"),
])
def test_settings_of_another_kind_are_named(wrong, says):
    """before anything is trained"""
    model = small()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=says):
        fit(model, TRAIN, VALID, **dict(steps=1, progress=False) | wrong)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_what_is_no_model_and_no_data_is_named():
    for call, says in (
        (lambda: fit(None, TRAIN, VALID, steps=1), "model must be a genmini.models Model, got NoneType"),
        (lambda: fit(small(), TRAIN.x, VALID, steps=1), "data must be a genmini.data.Data, got Tensor"),
        (lambda: evaluate(small(), None), "data must be a genmini.data.Data, got NoneType"),
        (lambda: evaluate(TEST, TEST), "model must be a genmini.models Model, got Data"),
        (lambda: fit(small(), TRAIN, dataclasses.replace(VALID, x=VALID.x[:0], y=VALID.y[:0]), steps=1),
         "the valid split of digits-threshold is empty"),
    ):
        with pytest.raises(ValueError, match=says):
            call()


def test_shifted_moves_by_one_pixel():
    x, noise, seen = TRAIN.x[:50], torch.Generator().manual_seed(0), set()
    assert torch.equal(shifted(x, 0.0, noise), x)
    for _ in range(100):
        y = shifted(x, 1.0, noise)
        (move,) = [
            (dy, dx)
            for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))
            if torch.equal(y, torch.roll(F.pad(x, (1, 1, 1, 1)), (dy, dx), (1, 2))[:, 1:9, 1:9])
        ]
        seen.add(move)
    assert len(seen) == 4


def test_evaluate_gives_the_standard_error_of_the_mean():
    model = small()
    values = judge(model, TEST.x).double().numpy()
    mean, error = evaluate(model, TEST)
    assert mean == pytest.approx(values.mean()) and error == pytest.approx(np.std(values, ddof=1) / np.sqrt(300))


# ---- what fit refuses ------------------------------------------------------------------------------------------------


def test_a_run_is_replaced_only_if_that_is_asked_for(tmp_path):
    short = dict(steps=2, batch=4, run=tmp_path / "r", progress=False)
    fit(small(), TRAIN, VALID, **short)
    before = (tmp_path / "r" / "run.json").read_bytes()
    with pytest.raises(ValueError, match="already holds a run"):
        fit(small(1), TRAIN, VALID, **short)
    with files.lock(tmp_path / "r"), pytest.raises(ValueError, match="is in use"):
        fit(small(1), TRAIN, VALID, **short, overwrite=True)
    assert (tmp_path / "r" / "run.json").read_bytes() == before
    fit(small(1), TRAIN, VALID, **short, overwrite=True)
    assert (tmp_path / "r" / "run.json").read_bytes() != before


def test_what_cannot_be_trained_is_named_before_anything_is_written(tmp_path):
    none = dataclasses.replace(VALID, x=VALID.x[:0], y=VALID.y[:0])
    for given, more, error, says in (
        ((TRAIN, none), {}, ValueError, "the valid split of digits-threshold is empty"),
        ((TRAIN, VALID), dict(resume=True), ValueError, "resume continues the training in run, and none is given"),
        ((TRAIN, VALID), dict(metadata={"a": object()}, run=tmp_path / "r"), ValueError, "not JSON serializable"),
        ((TRAIN, VALID), dict(stepz=3), TypeError, "unexpected keyword argument 'stepz'"),
    ):
        with pytest.raises(error, match=says):
            fit(small(), *given, steps=2, progress=False, **more)
    assert not (tmp_path / "r").exists()
