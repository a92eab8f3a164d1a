"""Tests of the study `forecast`: fans, paths, coverage and errors of processes that are known, and planted mistakes,
which the same checks must see."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from check import command
from planted import planted

from genmini import checkpoint, data, plots, studies
from genmini.models.ar import AR
from genmini.models.made import MADE
from genmini.studies import forecast

PHI, C, SIGMA, FIRST, SIZES = (1.1, -0.6), 7.0, 1.5, 1900, (90, 20, 40)
T, N = sum(SIZES), SIZES[2]


def process():
    model = AR((50,), p=2)
    with torch.no_grad():
        model.phi.copy_(torch.tensor(PHI, dtype=torch.float64))
        model.c.fill_(C)
        model.log_sigma.fill_(math.log(SIGMA))
    return model


X = process().sample(1, e=torch.randn(1, T, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]


def run_of(model, x=X, sizes=SIZES):
    whole, ends = data.load("series", "train"), np.cumsum([0, *sizes])

    def split(name):
        i = data.SPLITS.index(name)
        return replace(whole, split=name, x=x[None, ends[i] : ends[i + 1]], y=torch.tensor([FIRST + ends[i]]))

    run = object.__new__(studies.Run)
    run.model, run.device, run.seed, run.split = model, "cpu", 0, split
    return run


@pytest.fixture
def figures(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "save", lambda figure, path: seen.append(figure))
    return seen


def psi(H):
    """The impulse response, (H,): no recursion of the model's own"""
    z = np.zeros(H + 2)
    z[2] = 1
    for j in range(3, H + 2):
        z[j] = PHI[0] * z[j - 1] + PHI[1] * z[j - 2]
    return z[2:]


def deviations(H):
    return SIGMA * np.sqrt(np.cumsum(psi(H) ** 2))


def mean_ahead(past, H):
    """E[x_T+1 ... x_T+H | the past], from the joint covariance of 30 numbers and these, by Schur's complement"""
    past, mu = past[-30:], C / (1 - sum(PHI))
    h = psi(3000)
    gamma = SIGMA**2 * np.array([h[: 3000 - k] @ h[k:] for k in range(len(past) + H)])
    joint = scipy.linalg.toeplitz(gamma)
    gain = np.linalg.solve(joint[: len(past), : len(past)], joint[: len(past), len(past) :]).T
    return mu + gain @ (past - mu), joint[len(past) :, len(past) :] - gain @ joint[: len(past), len(past) :]


def check(study, figures, H=6, start=None):
    """What the picture and the line hold"""
    line = study(run_of(process()), "x.png", horizon=H, **dict(start=start) if start else {})
    fan, shares, sizes = figures.pop().axes
    x, known = X.numpy(), T - N if start is None else start - FIRST
    mean, covariance = mean_ahead(x[:known], H)
    time = FIRST + np.arange(T)
    of = {each.get_label(): each for each in [*fan.lines, *fan.collections]}
    assert np.allclose(of["mean"].get_xydata(), np.stack([FIRST + known + np.arange(H), mean], 1))
    for q, text in ((0.5, "50% interval"), (0.9, "90% interval")):
        edge = of[text].get_paths()[0].vertices
        wide = scipy.stats.norm.ppf((1 + q) / 2) * np.sqrt(np.diag(covariance))
        for h in range(H):
            at = edge[edge[:, 0] == FIRST + known + h, 1]
            assert np.allclose([at.min(), at.max()], [mean[h] - wide[h], mean[h] + wide[h]])
    assert np.allclose(of["known"].get_xydata(), np.stack([time, x], 1)[max(0, known - 3 * H) : known])
    assert np.allclose(of["what came"].get_xydata(), np.stack([time, x], 1)[known : known + H])
    assert fan.get_title() == (f"{H} numbers from {FIRST + known} on, forecast by AR(2)"
                               + ", of those that it learnt from" * (known < SIZES[0]))
    assert sum(each.get_color() == "tab:orange" for each in fan.lines) == 5 and fan.get_xlabel() == "time"

    error = np.array([[x[s] - mean_ahead(x[: s - h + 1], h)[0][-1] for s in range(T - N, T)] for h in range(1, H + 1)])
    covered = {q: (np.abs(error) < scipy.stats.norm.ppf((1 + q) / 2) * deviations(H)[:, None]).mean(1)
               for q in (0.5, 0.9)}
    curves = {each.get_label(): each.get_xydata() for panel in (shares, sizes) for each in panel.lines}
    ahead = np.arange(1, H + 1)
    for q in (0.5, 0.9):
        assert np.allclose(curves[f"the {q:.0%} interval"], np.stack([ahead, covered[q]], 1))
    off = np.sqrt((error**2).mean(1))
    assert np.allclose(curves["error of the forecast (root mean square)"], np.stack([ahead, off], 1))
    assert np.allclose(curves["deviation s$_h$ that the model expects"], np.stack([ahead, deviations(H)], 1))
    alone = np.sqrt(((x[-N:] - x[: SIZES[0]].mean()) ** 2).mean())
    assert curves["error of the mean of train"][0, 1] == pytest.approx(alone)
    levels = sorted((panel.get_y(), panel.get_y() + panel.get_height()) for panel in shares.patches)
    assert np.allclose(levels, [(q - 2 * math.sqrt(q * (1 - q) / N), q + 2 * math.sqrt(q * (1 - q) / N))
                                for q in (0.5, 0.9)])
    part = lambda h: (f"50% interval {covered[0.5][h]:.1%} and 90% interval {covered[0.9][h]:.1%}, error {off[h]:.4g}, "
                      f"expected {deviations(H)[h]:.4g}")
    assert line == (f"share of {N} test numbers covered, 1 ahead: {part(0)}; {H} ahead: {part(-1)}; the mean of train "
                    f"errs by {alone:.4g}")


@pytest.mark.parametrize("H, start", [(6, None), (3, FIRST + 60), (2, FIRST + T - 2)])
def test_the_fan_and_the_shares_are_those_of_the_joint_gaussian(figures, H, start):
    check(forecast.study, figures, H, start)


PLANTED = {
    "wrong split": ("len(x) - len(splits[2].x[0])", "len(x) - len(splits[1].x[0])"),
    "the mean of all": ("x[-N:] - x[:train].mean()", "x[-N:] - x.mean()"),
    "a step too far": ("mean[H - h :, h - 1]", "mean[H - h + 1 :, h - 1]"),
    "the same origin for all": ("mean[H - h :, h - 1]", "mean[H - 1 :, h - 1]"),
    "the number itself is known": ("known = x.unfold(0, seen, 1)[before - seen : -1]",
                                   "known = x.unfold(0, seen, 1)[before - seen + 1 :]"),
    "one deviation for all h": ("(error.abs() < s[:, None] * wide(q))", "(error.abs() < s[0] * wide(q))"),
    "an interval to one side": ("(1 + q) / 2, dtype", "q, dtype"),
    "levels exchanged": ("x[None, :T].to(model.device), H, q)", "x[None, :T].to(model.device), H, 1.4 - q)"),
    "what came is late": ("panel.plot(time[T : T + H], x[T : T + H]",
                          "panel.plot(time[T : T + H], x[T - 1 : T + H - 1]"),
    "wrong time": ("first + T + torch.arange(H)", "first + T + 1 + torch.arange(H)"),
    "absolute error": ("error.square().mean(1).sqrt(), (x", "error.abs().mean(1), (x"),
    "bounds of 0 and 1": ("math.sqrt(q * (1 - q) / N), color", "math.sqrt(q / N), color"),
}


@pytest.mark.parametrize("right, wrong", PLANTED.values(), ids=PLANTED)
def test_planted_mistakes_are_seen(figures, right, wrong):
    code = planted(forecast, right, wrong)
    with pytest.raises((AssertionError, RuntimeError)):
        check(code.study, figures)


def test_paths_are_draws_of_all_that_comes():
    """Their means and covariances are those of the joint Gaussian given the past; the intervals hold their shares."""
    H, n = 5, 20000
    drawn = forecast.paths(process(), X[:80], H, n)
    mean, covariance = mean_ahead(X[:80].numpy(), H)
    scale = np.sqrt(np.diag(covariance))
    assert drawn.shape == (n, H)
    assert (np.abs(drawn.mean(0).numpy() - mean) / scale).max() < 5 / math.sqrt(n)
    assert np.abs((np.cov(drawn.numpy().T) - covariance) / np.outer(scale, scale)).max() < 10 / math.sqrt(n)
    for q in (0.5, 0.9):
        _, low, high = process().forecast(X[None, :80], H, q)
        held = ((drawn > low) & (drawn < high)).double().mean(0)
        assert (held - q).abs().max() < 5 * math.sqrt(q * (1 - q) / n)


def test_the_shares_of_a_true_model_are_the_levels(figures):
    """Of 4000 numbers that the model itself drew; those of too small a sigma are not."""
    x = process().sample(1, T=4400)[0]
    line = forecast.study(run_of(process(), x, (300, 100, 4000)), "x.png", horizon=4)
    half, most = (each.get_ydata() for each in figures.pop().axes[1].lines[::-1] if each.get_label()[0] == "t")
    assert "share of 4000 test numbers" in line
    # 4000 overlapping errors of up to four steps have at most four times the variance of as many independent ones
    for share, q in ((half, 0.5), (most, 0.9)):
        assert np.abs(share - q).max() < 3.2 * math.sqrt(4 * q * (1 - q) / 4000)
    sure = process()
    with torch.no_grad():
        sure.log_sigma -= math.log(2)
    forecast.study(run_of(sure, x, (300, 100, 4000)), "x.png", horizon=4)
    half, most = (each.get_ydata() for each in figures.pop().axes[1].lines[::-1] if each.get_label()[0] == "t")
    assert half.max() < 0.35 and most.max() < 0.65


def test_numbers_far_back_are_left_out_and_the_last_are_forecast(figures, monkeypatch):
    """As many before T as MOST, and the LAST of a longer test split: the same errors."""
    error, s = forecast.errors(process(), X, N, 6)
    monkeypatch.setattr(forecast, "MOST", 10)
    few, same = forecast.errors(process(), X, N, 6)
    torch.testing.assert_close(few, error)
    torch.testing.assert_close(same, s)
    monkeypatch.setattr(forecast, "LAST", 7)
    assert forecast.study(run_of(process()), "x.png").startswith("share of 7 test numbers covered")
    torch.testing.assert_close(forecast.errors(process(), X, 7, 6)[0], error[:, -7:])


@pytest.mark.usefixtures("folder_of_its_own")
def test_the_command_forecasts_what_is_not_there_yet_and_refuses_the_rest(capsys, tmp_path):
    checkpoint.save("sun", AR((220,), p=2).fit(data.load("series", "train").x), {"step": 1, "data": "series"})
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    status, out, err = command(capsys, "study", "forecast", "sun", "made", "--horizon", "1")
    assert status == 0 and "share of 54 test numbers covered, 1 ahead" in out and "1 ahead: 50%" in out
    assert (tmp_path / "sun" / "forecast.png").stat().st_size > 20_000
    assert "made does not fit: MADE forecasts no series: forecast is for ar" in err
    assert command(capsys, "study", "forecast", "sun", "--start", "2009")[0] == 0
    for words, says in ((["--start", "2010"], "1701 to 2009 for the one after the last, got 2010"),
                        (["--start", "1700"], "--start takes the time of a number after the first"),
                        (["--start", "1701"], "a forecast needs series (N, T) with T >= p = 2, got (1, 1)"),
                        (["--horizon", "255"], "--horizon takes at most 254, the numbers before the test split")):
        status, _, err = command(capsys, "study", "forecast", "sun", *words)
        assert status == 2 and says in err, err
    assert "--horizon is for forecast: film does not take it" in command(capsys, "study", "film", "x", "--horizon",
                                                                         "3")[2]
