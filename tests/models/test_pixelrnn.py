"""Laws of PixelRNN: it is a probability, a pixel depends only on earlier ones (on diagonals: on all of them), its
samples follow it, and it learns.

test_pixelcnn.py proves what it shares with PixelCNN: outputs, samplers, arguments.
"""

import pytest
import torch
from check_models import completes, differentiable, follows, probability, space
from test_pixelcnn import a_class, classes, in_order, jacobian, last_class, loud, noise_decides

import genmini
from genmini import checkpoint, data
from genmini.models.pixelrnn import PixelRNN, skewed, unskewed
from genmini.train import evaluate, fit

SMALL = dict(width=4, layers=1, first=3)
MODELS = {
    "row": dict(shape=(2, 3), walk="row", **SMALL),
    "diagonal": dict(shape=(2, 3), **SMALL),
    "row, three levels, classes": dict(shape=(2, 2), levels=3, walk="row", classes=3, **SMALL),
    "diagonal, three levels": dict(shape=(2, 2), levels=3, **SMALL),
    "diagonal, three colours, classes": dict(shape=(3, 1, 2), classes=2, **SMALL | dict(width=6)),
    "row, two colours, three levels": dict(shape=(2, 2, 1), levels=3, walk="row", **SMALL),
    "diagonal, mixture": dict(shape=(2, 2), levels=5, output="mixture", components=2, **SMALL),
}
each = pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)


def pixelrnn(seed=3, scale=2.0, **settings):
    return loud(PixelRNN, seed, scale, **settings)


@each
def test_probabilities_sum_to_one(settings):
    model = pixelrnn(**settings, scale=3.0)
    for y in classes(model):
        probability(model, y)


@pytest.mark.parametrize("C", [1, 3])
def test_diagonals_see_all_that_comes_before(C):
    """One layer is enough, however wide the image."""
    model = pixelrnn(shape=(C, 3, 6), width=16 * C, layers=1, first=3, scale=1.5)
    assert torch.equal(jacobian(model), torch.ones(model.D, model.D).tril(-1) > 0)


def test_rows_see_a_triangle():
    """One layer: r rows up, r columns to the right; to the left two more, by the first filter and K_is."""
    model = pixelrnn(shape=(4, 9), width=16, walk="row", layers=1, first=3, scale=1.5)
    pixel = torch.arange(36)
    up, right = pixel[:, None] // 9 - pixel // 9, pixel % 9 - pixel[:, None] % 9
    triangle = (up > 0) & (-up - 2 <= right) & (right <= up)
    assert torch.equal(jacobian(model), triangle | (up == 0) & (-2 <= right) & (right < 0))


def test_the_walk_is_an_lstm():
    """With K_ss looking at nothing but s itself, PyTorch's LSTM in other letters (its gates are i, f, g, o)."""
    model = pixelrnn(shape=(2, 3), walk="row", **SMALL).layers[0]
    with torch.no_grad():
        model.K_ss.weight[:, :, [0, 2]] = 0
        K = model.K_ss.in_channels
        lstm = torch.nn.LSTM(4 * K, K, bias=False, dtype=torch.float64)
        order = torch.cat([torch.arange(k, 4 * K, 4) for k in (2, 1, 3, 0)])
        lstm.weight_ih_l0.copy_(torch.eye(4 * K, dtype=torch.float64)[order])
        lstm.weight_hh_l0.copy_(model.K_ss.weight[order, :, 1])
    a = torch.randn(2, 4 * K, 3, 5, dtype=torch.float64)  # (N, 4 K, S, T)
    h, _ = lstm(a.permute(3, 0, 2, 1).flatten(1, 2))  # (T, N S, 4 K)
    torch.testing.assert_close(model.walk(a), h.unflatten(1, (2, 3)).permute(1, 3, 2, 0))


@pytest.mark.parametrize("H, W", [(1, 1), (1, 4), (4, 1), (3, 5), (5, 3)])
def test_skewed_diagonals_are_columns(H, W):
    x = torch.randn(2, 3, H, W)
    moved = skewed(x)
    assert moved.shape == (2, 3, H, H + W - 1) and torch.equal(unskewed(moved, W), x)
    for i in range(H):
        assert torch.equal(moved[:, :, i, i : i + W], x[:, :, i])
    assert moved.count_nonzero() == x.count_nonzero()


@each
def test_rows_below_change_nothing(settings):
    model = pixelrnn(**settings)
    x, y = space(model)[-5:].view(-1, model.C, model.H, model.W), a_class(model, 5)
    torch.testing.assert_close(model.features(x[:, :, :1], y), model.features(x, y)[..., :1, :])


@each
def test_samples_follow_log_prob(settings):
    model = pixelrnn(**settings, scale=1.5)
    follows(model, 8000, y=last_class(model))


@each
def test_the_noise_decides(settings):
    noise_decides(pixelrnn(**settings))


@pytest.mark.parametrize("walk, C", [("row", 1), ("row", 3), ("diagonal", 1), ("diagonal", 3)])
def test_states_hold_what_a_pass_computes(walk, C, monkeypatch):
    """An image larger than the filters: the numbers for each draw are those of a pass over the whole image."""
    model, found = pixelrnn(shape=(C, 5, 6), width=8 * C, layers=2, walk=walk, first=3, classes=2), []
    draw, y = model.p.draw, a_class(model, 6)
    monkeypatch.setattr(model.p, "draw", lambda a, u: found.append(a) or draw(a, u))
    x = model.sample(6, y)
    wanted = in_order(model, model.features(model._image(x), y).movedim(2, -1))  # (N, D, F)
    torch.testing.assert_close(torch.stack(found, 1), wanted)
    assert wanted.std() > 0.1


@each
@pytest.mark.parametrize("how", ["cached", "naive", "jacobi"])
def test_completion_keeps_what_is_known(settings, how):
    model = pixelrnn(**settings)
    completes(model, y=a_class(model, 50), how=how)


@each
def test_gradcheck(settings):
    model = pixelrnn(**settings)
    x = torch.randint(model.levels, (3, *model.shape))
    differentiable(model, x, a_class(model, 3), fast_mode=True)


@each
def test_a_run_comes_back(settings, tmp_path):
    torch.manual_seed(1)
    model = PixelRNN(**settings).eval()
    checkpoint.save(tmp_path, model, {"step": 1})
    x, y = space(model)[:50], a_class(model, min(50, len(space(model))))
    assert torch.equal(genmini.load(tmp_path).log_prob(x, y), model.log_prob(x, y))


WRONG = [dict(walk="snake"), dict(width=5), dict(shape=(3, 2, 2), width=8), dict(levels=1), dict(output="gaussian")]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        PixelRNN(**dict(shape=(2, 2)) | wrong)


def test_images_in_order():
    model = PixelRNN((3, 2, 4), **SMALL | dict(width=6))
    assert model.sample(2).shape == (2, 3, 2, 4) and model.log_prob(torch.zeros(0, 3, 2, 4)).shape == (0,)
    u = torch.rand(1, 24)
    other = torch.full_like(u, u[0, 0].item())
    first, same = (in_order(model, model.sample(1, u=noise))[0, :1] for noise in (u, other))
    assert torch.equal(first, same)


@pytest.mark.parametrize("walk", ["row", "diagonal"])
def test_it_learns_the_digits(walk):
    """A short training leaves independent pixels (24.6 nats) far behind, on images that it has not seen."""
    torch.manual_seed(0)
    train, valid, test = (data.load("digits-threshold", split) for split in data.SPLITS)
    model = PixelRNN(train.shape, width=16, layers=1, walk=walk, first=5)
    before, _ = evaluate(model, test)
    history = fit(model, train, valid, steps=100, rate=1e-2, progress=False)
    after, error = evaluate(model, test)
    assert before > 40 and after < 23 and history.valid < 23 and 0 < error < 1
