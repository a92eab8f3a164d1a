"""Laws of PixelCNN: it is a probability, a pixel depends only on earlier ones (gated: on all of them), its samplers
draw from it, and it learns."""

import copy

import pytest
import torch
from check import fair
from check_models import completes, differentiable, follows, probability, space

import genmini
from genmini import checkpoint, data, kernels, ops
from genmini.models.pixelcnn import PixelCNN
from genmini.train import evaluate, fit

SMALL = dict(width=4, blocks=1, first=3)
MODELS = {
    "two levels": dict(shape=(2, 3), **SMALL),
    "two levels, gated": dict(shape=(2, 3), gated=True, **SMALL),
    "three levels": dict(shape=(2, 2), levels=3, **SMALL),
    "three levels, gated, classes": dict(shape=(2, 2), levels=3, gated=True, classes=3, **SMALL),
    "classes": dict(shape=(2, 2), classes=2, **SMALL),
    "three colours": dict(shape=(3, 1, 2), **SMALL | dict(width=6)),
    "three colours, gated, classes": dict(shape=(3, 2, 1), gated=True, classes=2, **SMALL | dict(width=6)),
    "two colours, three levels, gated": dict(shape=(2, 2, 1), levels=3, gated=True, **SMALL),
    "mixture": dict(shape=(2, 2), levels=5, output="mixture", components=2, **SMALL),
    "mixture, gated, two levels": dict(shape=(2, 2), output="mixture", components=3, gated=True, **SMALL),
    "mixture, two colours, classes": dict(shape=(2, 1, 2), levels=4, output="mixture", components=2, classes=2)
    | SMALL,
}
each = pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)


def pixelcnn(seed=3, scale=2.0, **settings):
    return loud(PixelCNN, seed, scale, **settings)


def loud(kind, seed, scale, **settings):
    """Untrained, with weights large enough that its conditionals are far from even."""
    torch.manual_seed(seed)
    model = kind(**settings).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * (p + 0.2 * torch.randn_like(p)))
    return model.eval()


def classes(model):
    return range(model.classes) if model.classes else (None,)


def in_order(model, x):
    """(N, *shape, ...) -> (N, D, ...): rows, pixels, colours."""
    return x.reshape(len(x), model.C, model.H, model.W, *x.shape[1 + len(model.shape) :]).movedim(1, 3).flatten(1, 3)


def a_class(model, n):
    return torch.arange(n) % model.classes if model.classes else None


# ---- a probability ---------------------------------------------------------------------------------------------------


@each
def test_probabilities_sum_to_one(settings):
    model = pixelcnn(**settings)
    for y in classes(model):
        probability(model, y)


@each
def test_log_prob_is_the_sum_of_the_logits_conditionals(settings):
    model = pixelcnn(**settings)
    x, y = space(model)[::7], a_class(model, len(space(model)[::7]))
    a = model.logits(x, y)
    if model.p.rows == 1:
        assert a.shape == x.shape
        a = torch.stack([torch.zeros_like(a), a], -1)
    assert a.shape == (*x.shape, model.levels)
    if model.components:
        torch.testing.assert_close(a.exp().sum(-1), torch.ones(x.shape, dtype=a.dtype))
    log_p = a.log_softmax(-1).gather(-1, x[..., None].long())[..., 0].flatten(1).sum(1)
    torch.testing.assert_close(model.log_prob(x, y), log_p)


@pytest.mark.parametrize("name", ["classes", "three levels, gated, classes", "mixture, two colours, classes"])
def test_without_a_class_it_is_the_mixture_of_all(name):
    model = pixelcnn(**MODELS[name])
    x = space(model)
    p = torch.stack([model.log_prob(x, k).exp() for k in range(model.classes)])
    assert (p[0] - p[1]).abs().max() > 1e-3, "the class must matter"
    torch.testing.assert_close(model.log_prob(x), p.mean(0).log())
    y = a_class(model, len(x))
    torch.testing.assert_close(model.log_prob(x, y), p[y, range(len(x))].log())


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_the_mixture_is_that_of_its_formula(levels):
    """(4) as written, with edges at l -+ 1/2 on the scale of levels, 0 and 1 beyond; finite logarithms where it
    underflows."""
    model = pixelcnn(shape=(1, 2), levels=levels, output="mixture", components=3, **SMALL)
    x = torch.stack([torch.arange(levels), torch.arange(levels)], 1).view(-1, 1, 2)
    pi, mu, s = model.features(model._image(x), None)[:, 0, :, 0, 1].unflatten(1, (3, 3)).unbind(1)
    s = s.clamp(min=-7).exp() * (levels - 1) / 2
    mu = (mu + 1) * (levels - 1) / 2
    l = x[:, 0, 1, None]
    upper = torch.where(l == levels - 1, 1, torch.sigmoid((l + 0.5 - mu) / s))
    lower = torch.where(l == 0, 0, torch.sigmoid((l - 0.5 - mu) / s))
    p = (pi.softmax(1) * (upper - lower)).sum(1)
    torch.testing.assert_close(model.logits(x)[range(levels), 0, 1, range(levels)].exp(), p, rtol=1e-9, atol=1e-14)
    with torch.no_grad():
        model.out.bias.view(3, 3)[1] = torch.tensor([-300.0, -400.0, -350.0])
        model.out.bias.view(3, 3)[2] = -5
    assert model.log_prob(x).isfinite().all() and model.log_prob(x).min() < -1000


# ---- it looks only backwards -----------------------------------------------------------------------------------------


def jacobian(model, y=None, tries=15):
    """[predicted, seen], in order: whether for some x the seen number has an effect on what decides the predicted one.
    Several x are tried, because a relu closes paths for some of them."""
    x = torch.rand(tries, *model.shape, dtype=torch.float64) * 0.5 + 0.25
    y = None if y is None else torch.full((tries,), y)
    rows = lambda x: model.features(model._image(x), y).movedim(2, -1).reshape(tries, *model.shape, -1)
    of = lambda x: in_order(model, rows(x)).sum(0)
    J = torch.autograd.functional.jacobian(of, x)  # (D, F, tries, *shape), each example apart
    return in_order(model, J.flatten(0, 2)).view(model.D, model.p.rows * tries, model.D).ne(0).any(1)


@each
def test_features_see_exactly_what_comes_before(settings):
    """One that is small enough for no blind spot."""
    model = pixelcnn(**settings | dict(first=5, width=12))
    assert torch.equal(jacobian(model, 0 if model.classes else None), torch.ones(model.D, model.D).tril(-1) > 0)


@pytest.mark.parametrize("C", [1, 3])
def test_gated_sees_all_that_comes_before_and_plain_has_a_blind_spot(C):
    """3 x 5 pixels; r rows up, plain sees no further than r columns to the right, however deep it is."""
    shape, settings = (C, 3, 5), dict(width=16 * C, first=3, scale=1.5)
    pixel = torch.arange(15).repeat_interleave(C)
    up, right = pixel[:, None] // 5 - pixel // 5, pixel % 5 - pixel[:, None] % 5
    before = torch.ones(15 * C, 15 * C).tril(-1) > 0
    assert torch.equal(jacobian(pixelcnn(shape=shape, gated=True, blocks=3, **settings)), before)
    blind = before & (up > 0) & (right > up)
    assert blind.sum() == C * C * (6 + 6 + 3)
    assert torch.equal(jacobian(pixelcnn(shape=shape, blocks=6, **settings)), before & ~blind)


def test_the_gated_field_grows_by_a_column_a_layer():
    """The vertical stack reaches 1 + blocks columns to the right in the row above: no more, no fewer."""
    for blocks in (1, 2, 3):
        seen = jacobian(pixelcnn(shape=(2, 8), gated=True, width=12, first=3, blocks=blocks))
        assert seen[8, :8].tolist() == [j <= 1 + blocks for j in range(8)]


@each
def test_rows_below_change_nothing(settings):
    """What the samplers rely on: the features of the first rows are those of an image that ends there."""
    model = pixelcnn(**settings)
    x, y = space(model)[-5:].view(-1, model.C, model.H, model.W), a_class(model, 5)
    torch.testing.assert_close(model.features(x[:, :, :1], y), model.features(x, y)[..., :1, :])


# ---- samples ---------------------------------------------------------------------------------------------------------


def last_class(model):
    return model.classes - 1 if model.classes else None


@each
@pytest.mark.parametrize("how", ["cached", "naive", "jacobi"])
def test_samples_follow_log_prob(settings, how):
    model = pixelcnn(**settings, scale=1.5)
    follows(model, 8000, y=last_class(model), how=how)


def noise_decides(model, n=40):
    """A number is the count of levels whose cumulative probability is at most its noise; every sampler finds it."""
    u, y = torch.rand(n, model.D, dtype=torch.float64), a_class(model, n)
    x = model.sample(n, y, u=u)
    a = model.logits(x, y)
    if model.p.rows == 1:
        a = torch.stack([torch.zeros_like(a), a], -1)
    below = in_order(model, a.softmax(-1).cumsum(-1)[..., :-1])
    assert torch.equal(in_order(model, x).long(), (u[..., None] >= below).sum(-1))
    parallel, passes = model.sample_jacobi(n, y, u=u)
    assert torch.equal(parallel, x) and 1 < passes <= model.D + 1 and torch.equal(model.sample_naive(n, y, u=u), x)


@each
def test_the_noise_decides(settings):
    noise_decides(pixelcnn(**settings))


LARGER = [dict(width=24, first=7), dict(width=24, first=7, gated=True), dict(width=24, kernel=5, gated=True)]


@pytest.mark.parametrize("settings", LARGER, ids=str)
def test_the_caches_hold_what_a_pass_computes(settings):
    """An image larger than the filters, float32: the logits at every step are those of a pass over the whole image."""
    torch.manual_seed(0)
    model = PixelCNN((10, 9), blocks=3, **settings).requires_grad_(False)
    for p in model.parameters():
        p.mul_(2)
    x, a = ops.pixelcnn_sample(torch.rand(9, 90), model.program(), (1, 10, 9), 2, logits=True)
    with kernels.use("reference"):
        plain, wanted = (of.logits(x.view(9, 10, 9)).flatten(1) for of in (model, copy.deepcopy(model).double()))
    fair(a[..., 0], wanted, plain, torch.float32)
    assert wanted.std() > 0.1


def test_jacobi_takes_fewer_passes_than_there_are_pixels():
    model = pixelcnn(shape=(6, 6), width=8, blocks=2, first=3, scale=1.0)
    u = torch.rand(10, 36, dtype=torch.float64)
    x, passes = model.sample_jacobi(10, u=u)
    assert torch.equal(x, model.sample_naive(10, u=u)) and passes < 36


@each
@pytest.mark.parametrize("how", ["cached", "naive", "jacobi"])
def test_completion_keeps_what_is_known(settings, how):
    model = pixelcnn(**settings)
    completes(model, y=a_class(model, 50), how=how)


# ---- the contract ----------------------------------------------------------------------------------------------------


@each
def test_gradcheck(settings):
    model = pixelcnn(**settings | dict(width=2 * (settings["shape"][0] if len(settings["shape"]) == 3 else 1)))
    x = torch.randint(model.levels, (3, *model.shape))
    differentiable(model, x, a_class(model, 3), fast_mode=True)


@pytest.mark.parametrize("rung", kernels.rungs("masked_conv2d"))
def test_the_model_runs_on_the_gpu_kernels(rung):
    model, results = pixelcnn(**MODELS["three colours, gated, classes"]), []
    x, y = space(model)[:3], torch.tensor([0, 1, 1])
    for backend in ("reference", "emulated"):
        with kernels.use(backend, rung if backend == "emulated" else None):
            log_p = model.log_prob(x, y)
            results.append((log_p, *torch.autograd.grad(log_p.square().sum(), list(model.parameters()))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@each
def test_a_run_comes_back(settings, tmp_path):
    torch.manual_seed(1)
    model = PixelCNN(**settings).eval()
    checkpoint.save(tmp_path, model, {"step": 1})
    again = genmini.load(tmp_path)
    x, y = space(model)[:50], a_class(model, min(50, len(space(model))))
    assert torch.equal(again.log_prob(x, y), model.log_prob(x, y))
    u = torch.rand(5, model.D)
    y = 0 if model.classes else None
    assert torch.equal(again.sample(5, y, u=u), model.sample(5, y, u=u))


def test_images_and_dtypes():
    model = PixelCNN((2, 3), **SMALL)
    x = torch.randint(2, (7, 2, 3))
    for same in (x.to(torch.uint8), x.bool().float().flatten(1), x[:, None]):
        assert torch.equal(model.log_prob(x), model.log_prob(same))
    assert model.log_prob(x[:0]).shape == (0,) and model.sample(0).shape == (0, 2, 3)
    assert PixelCNN((1, 1, 1), levels=300, **SMALL).sample(2).dtype == torch.int64
    many = PixelCNN((2, 2), levels=256, **SMALL)
    steps = many.embed(torch.tensor([0, 8, 128, 255]).view(4, 1, 1, 1)).flatten(1).sum(1)
    assert steps.tolist() == pytest.approx([1, 2.004, 17.063, 33], abs=1e-3)


@pytest.mark.parametrize(
    "wrong, named",
    [(dict(levels=1), "levels"), (dict(output="gaussian"), "output"), (dict(width=5), "width"),
     (dict(shape=7), "shape"),
     (dict(shape=(3, 2, 2), width=8), "width"), (dict(first=4), "kw|kh"), (dict(kernel=9), "kh"),
     (dict(output="mixture", components=0), "components")],
)
def test_wrong_settings_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        PixelCNN(**dict(shape=(2, 2)) | wrong)


def test_wrong_arguments_are_named():
    model, of_classes = PixelCNN((2, 2), **SMALL), PixelCNN((2, 2), classes=3, **SMALL)
    x = torch.zeros(3, 2, 2, dtype=torch.uint8)
    for call, named in [
        (lambda: model.log_prob(x[:, 0]), r"x must have shape \(N, 2, 2\), got \(3, 2\)"),
        (lambda: model.log_prob(x + 2), "x must hold levels 0 ... 1, got 2"),
        (lambda: model.log_prob(x, 1), "made without classes"),
        (lambda: of_classes.log_prob(x, 3), "y must hold classes 0 ... 2, got 3"),
        (lambda: of_classes.logits(x), "y is missing"),
        (lambda: model.sample(3, how="fast"), "how must be 'cached' or 'naive' or 'jacobi', got 'fast'"),
        (lambda: model.sample(3, u=torch.rand(3, 5)), r"u must have shape \(3, 4\), got \(3, 5\)"),
        (lambda: model.sample(2, x=x), "x must hold n = 2 images of 4 numbers, got shape"),
        (lambda: model.sample(3, known=1), "known .* no x"),
        (lambda: model.sample(3, x=x, known=5), "known must count numbers of x, 0 to 4, got 5"),
    ]:
        with pytest.raises(ValueError, match=named):
            call()


def test_it_learns_the_digits():
    """A short training leaves independent pixels (24.6 nats) far behind, on images that it has not seen."""
    torch.manual_seed(0)
    train, valid, test = (data.load("digits-threshold", split) for split in data.SPLITS)
    model = PixelCNN(train.shape, width=32, blocks=1, first=5)
    before, _ = evaluate(model, test)
    history = fit(model, train, valid, steps=120, rate=8e-3, progress=False)
    after, error = evaluate(model, test)
    assert before > 40 and after < 23 and history.valid < 23 and 0 < error < 1
