"""Tests of the metrics: their laws, their values from closed forms and from other packages, and that neither order nor
batch changes a bit."""

import math
import sys

import numpy as np
import pytest
import scipy.linalg
import torch

from genmini import data, metrics
from genmini.metrics.features import mnist_to_8x8

EPS = torch.finfo(torch.float64).eps


def gaussians(seed=7, n=200, m=150, F=6):
    """-> two sets that differ in mean, scale and correlations, and logits, from NumPy's frozen stream: the values
    stored below are theirs."""
    r = np.random.RandomState(seed)
    a = r.randn(n, F) @ r.randn(F, F)
    b = 1.3 * r.randn(m, F) @ r.randn(F, F) + 0.2 * r.randn(F)
    return torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(4 * r.randn(n, 5))


def with_moments(mean, root, n=50, seed=0):
    """Rows whose sample mean is this and whose sample covariance is root @ root.T, to rounding.

    The root is given: that of a singular covariance would turn a rounding of 1e-16 into 1e-8.
    """
    x = np.random.RandomState(seed).randn(n, len(mean))
    x = np.linalg.qr(x - x.mean(0))[0] * math.sqrt(n - 1)
    return torch.from_numpy(x @ root.T + mean)


# ---- order and batch -------------------------------------------------------------------------------------------------


def everything(a, b, logits):
    return (metrics.fid(a, b), metrics.kid(a, b), metrics.fid_by_count(a, b), metrics.precision_recall(a, b),
            metrics.inception_score(logits))


def test_no_order_of_the_rows_changes_a_bit():
    a, b, logits = gaussians(n=1100, m=300)
    a[5], b[9] = a[77], a[3]  # and ties
    first = everything(a, b, logits)
    for seed in range(3):
        torch.manual_seed(seed)
        p, q = torch.randperm(len(a)), torch.randperm(len(b))
        assert everything(a[p], b[q], logits[p]) == first
    assert everything(a.T.contiguous().T, b, logits) == first


def test_no_batch_changes_a_bit():
    """The features of an image do not depend on the other images of its batch."""
    network, x = metrics.network(), data.load("digits", "test").x[:100]
    f, a = network(x, 17)
    assert f.shape == (100, 64) and a.shape == (100, 10) and f.dtype == a.dtype == torch.float64
    for size in (1, 7, 64):
        parts = [network(part, 17) for part in x.split(size)]
        assert torch.equal(torch.cat([p[0] for p in parts]), f) and torch.equal(torch.cat([p[1] for p in parts]), a)
    p = torch.randperm(100)
    assert torch.equal(network(x[p], 17)[0], f[p])


# ---- the Fréchet distance ------------------------------------------------------------------------------------------


def by_sqrtm(a, b):
    """The formula as it is written, with scipy's root of a matrix."""
    S_a, S_b = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    root = scipy.linalg.sqrtm(S_a @ S_b).real
    return (a.mean(0) - b.mean(0)).square().sum().item() + np.trace(S_a) + np.trace(S_b) - 2 * np.trace(root)


def test_fid_equals_scipy_and_torch_fidelity_and_torchmetrics():
    a, b, _ = gaussians()
    assert metrics.fid(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-11)
    # torch-fidelity 0.4.0, fid_statistics_to_metric
    assert metrics.fid(a, b) == pytest.approx(34.18624363316159, rel=1e-12)
    assert metrics.fid(a, b) == pytest.approx(34.1862, abs=5e-5)  # torchmetrics 1.9.0, _compute_fid, as it prints it


def test_fid_of_gaussians_with_one_basis_is_the_closed_form():
    """For covariances that commute the distance is |m - m'|^2 + sum (s - s')^2 over the common axes; here these are
    rotated."""
    r = np.random.RandomState(1)
    Q = np.linalg.qr(r.randn(5, 5))[0]
    s, t, mean = np.array([3, 1, 0.1, 1e-3, 2.0]), np.array([1, 1, 5, 1e-4, 0]), np.array([1.0, -2, 0, 0.5, 0])
    a, b = with_moments(mean, Q * s), with_moments(0 * mean, Q * t, n=80, seed=2)  # covariances Q s^2 Q^T, Q t^2 Q^T
    assert metrics.fid(a, b) == pytest.approx(5.25 + ((s - t) ** 2).sum(), rel=1e-12)
    one, other = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [9.0], [13.0]])  # variances 2 and 16, means 1 and 9
    assert metrics.fid(one, other) == pytest.approx(64 + (4 - math.sqrt(2)) ** 2, rel=1e-14)


@pytest.mark.parametrize("rank", [0, 1, 5, 40])
def test_fid_of_a_set_with_itself_is_rounding_also_where_covariances_are_singular(rank):
    """The error is at most some F rounding errors of the trace; a root of eigenvalues would err by sqrt(eps) of it for
    each null direction."""
    r, F = np.random.RandomState(rank), 40
    a = torch.from_numpy(r.randn(30, rank) @ r.randn(rank, F) * 100 + 7)
    trace = a.var(0).sum().item()
    assert 0 <= metrics.fid(a, a) <= 4 * F * EPS * trace + EPS
    shift = torch.zeros(F, dtype=torch.float64)
    shift[3] = 2.0
    assert metrics.fid(a, a + shift) == pytest.approx(4, abs=1e3 * F * EPS * (trace + 7))
    assert metrics.fid(a[:2], a[2:4]) >= 0  # two images of forty features


def test_fid_of_orthogonal_null_spaces():
    """One set varies where the other does not: nothing of the traces cancels."""
    a, b = torch.zeros(20, 6).double(), torch.zeros(30, 6).double()
    a[:, :3], b[:, 3:] = torch.randn(20, 3).double(), torch.randn(30, 3).double()
    wanted = a.mean(0).square().sum() + b.mean(0).square().sum() + a.var(0).sum() + b.var(0).sum()
    assert metrics.fid(a, b) == pytest.approx(wanted.item(), rel=1e-14)


def test_fid_is_symmetric_moves_along_and_scales():
    a, b, _ = gaussians()
    f, Q = metrics.fid(a, b), torch.linalg.qr(torch.randn(6, 6).double()).Q
    assert metrics.fid(b, a) == pytest.approx(f, rel=1e-12) and metrics.fid(a + 3, b + 3) == pytest.approx(f, rel=1e-12)
    assert (metrics.fid(a @ Q, b @ Q) == pytest.approx(f, rel=1e-12)
            and metrics.fid(10 * a, 10 * b) == pytest.approx(100 * f, rel=1e-12))


def test_fid_falls_with_the_count_and_its_limit_is_nearer_the_truth():
    """Of two draws from one Gaussian the true distance is 0 but for the draw of the first; (3) subtracts the bias of
    the second."""
    torch.manual_seed(0)
    a, limits, raw = torch.randn(20_000, 10).double(), [], []
    for _ in range(5):
        by_count, limit = metrics.fid_by_count(a, torch.randn(400, 10).double())
        assert list(by_count) == [200, 250, 300, 350, 400] and by_count[200] > by_count[300] > by_count[400]
        raw.append(by_count[400])
        limits.append(limit)
    assert abs(np.mean(limits)) < 0.3 * np.mean(raw)


# ---- the inception score ---------------------------------------------------------------------------------------------


def test_inception_score_from_one_to_the_number_of_classes():
    sure, C = 800.0, 7  # exp(-800) is 0: the logarithms must not mind
    each = sure * torch.eye(C).repeat(10, 1)
    assert metrics.inception_score(each)[0] == pytest.approx(C, rel=1e-12)
    assert (metrics.inception_score(each[::C])[0] == 1
            and metrics.inception_score(torch.zeros(50, C)) == pytest.approx((1, 0), abs=1e-14))
    # unsure, but always alike
    assert metrics.inception_score(torch.randn(C).expand(30, C))[0] == pytest.approx(1, abs=1e-12)
    assert metrics.inception_score(each[:14] + 1e4)[0] == pytest.approx(C, rel=1e-12)
    score, error = metrics.inception_score(5 * torch.randn(300, C))
    assert 1 < score < C and 0 < error < 0.5


def test_inception_score_equals_the_formula_and_torch_fidelity():
    logits = gaussians()[2]
    p = logits.softmax(1)
    kl = torch.distributions.kl_divergence(torch.distributions.Categorical(p),
                                           torch.distributions.Categorical(p.mean(0)))
    assert metrics.inception_score(logits)[0] == pytest.approx(kl.mean().exp().item(), rel=1e-13)
    # torch-fidelity 0.4.0, splits=1
    assert metrics.inception_score(logits)[0] == pytest.approx(3.058772186992258, rel=1e-13)


def test_the_jackknife_is_the_score_without_each_image():
    logits = gaussians(n=40)[2]
    without = torch.tensor([metrics.inception_score(torch.cat([logits[:i], logits[i + 1 :]]))[0] for i in range(40)],
                           dtype=torch.float64)
    assert metrics.inception_score(logits)[1] == pytest.approx(
        math.sqrt(39 / 40 * (without - without.mean()).square().sum()), rel=1e-9)


# ---- the kernel distance ---------------------------------------------------------------------------------------------


def test_kid_equals_the_sum_over_pairs_and_torch_fidelity_and_torchmetrics():
    a, b, _ = gaussians()
    k = lambda x, y: (x @ y.T / 6 + 1) ** 3
    off = lambda K: (K.sum() - K.trace()) / (len(K) * (len(K) - 1))
    assert metrics.kid(a, b)[0] == pytest.approx((off(k(a, a)) + off(k(b, b)) - 2 * k(a, b).mean()).item(), rel=1e-11)
    # torch-fidelity 0.4.0, one subset of all
    assert metrics.kid(a[:150], b)[0] == pytest.approx(88.29168108851495, rel=1e-12)
    # torchmetrics 1.9.0, poly_mmd, as it prints it
    assert metrics.kid(a[:150], b)[0] == pytest.approx(88.2917, abs=5e-5)


def test_the_error_of_kid_is_the_jackknife_over_both_sets():
    a, b, _ = gaussians(n=20, m=15)
    total = 0
    for one, make in ((a, lambda x: metrics.kid(x, b)[0]), (b, lambda x: metrics.kid(a, x)[0])):
        without = torch.tensor([make(torch.cat([one[:i], one[i + 1 :]])) for i in range(len(one))], dtype=torch.float64)
        total += (len(one) - 1) / len(one) * (without - without.mean()).square().sum()
    assert metrics.kid(a, b)[1] == pytest.approx(math.sqrt(total), rel=1e-9)


def test_kid_is_unbiased_and_its_error_is_the_spread():
    """Where the distributions are one, the mean of 400 draws is 0 within three standard errors, and the reported error
    is at least the spread. Where they differ, the estimated mean squared error is within a fifth of the observed one,
    some three times the deviation of such an estimate."""
    r = np.random.RandomState(0)
    draw = lambda shift: metrics.kid(torch.from_numpy(r.randn(60, 4)), torch.from_numpy(r.randn(40, 4) + shift))
    alike, apart = np.array([draw(0) for _ in range(400)]), np.array([draw(0.5) for _ in range(400)])
    assert abs(alike[:, 0].mean()) < 3 * alike[:, 0].std() / 20 and 100 < (alike[:, 0] < 0).sum() < 300
    spread = lambda v: math.sqrt((v[:, 1] ** 2).mean()) / v[:, 0].std()
    assert 1 < spread(alike) < 2 and 0.8 < spread(apart) < 1.2
    assert apart[:, 0].mean() > 20 * apart[:, 0].std() / 20


# ---- precision, recall, accuracy -------------------------------------------------------------------------------------


def test_precision_and_recall_of_equal_and_of_disjoint_sets():
    a, b, _ = gaussians()
    assert metrics.precision_recall(a, a) == (1, 1) and metrics.precision_recall(a, a + 1e3) == (0, 0)
    assert metrics.precision_recall(a.repeat(4, 1), a) == (1, 1)  # balls of radius 0 hold their centre
    one_mode, two_modes = torch.randn(200, 2).double(), torch.randn(400, 2).double()
    two_modes[200:] += 100
    precision, recall = metrics.precision_recall(two_modes, one_mode)  # a mode was forgotten
    assert precision > 0.9 and 0.4 < recall < 0.5
    precision, recall = metrics.precision_recall(one_mode, two_modes)  # a mode was invented
    assert recall > 0.9 and 0.4 < precision < 0.5


def test_precision_and_recall_equal_torch_fidelity():
    a, b, _ = gaussians()
    # 0.4.0, in float32
    assert metrics.precision_recall(a, b) == pytest.approx((0.11999999731779099, 0.8849999904632568), abs=1e-7)


def test_precision_and_recall_on_a_line():
    """k = 1 on numbers whose balls can be read off: of the real, [-1, 1], [0, 2] and [1, 13]."""
    real, samples = torch.tensor([[0.0], [1.0], [7.0]]), torch.tensor([[0.5], [2.0], [3.0], [14.0]])
    # 14 is in none; its own ball [3, 25] holds 7, that of 0.5 the others
    assert metrics.precision_recall(real, samples, k=1) == (3 / 4, 1)
    # the balls [-1, 2], [1, 3], [2, 4]: 7 is in none
    assert metrics.precision_recall(real, samples[:3], k=1) == (1, 2 / 3)


def test_accuracy_counts():
    logits, y = torch.eye(4)[[0, 1, 1, 2, 0]], torch.tensor([0, 1, 2, 2, 1])
    share, error, each = metrics.class_accuracy(logits, y)
    assert (share == 0.6 and error == pytest.approx(math.sqrt(0.24 / 5)) and each[:3].tolist() == [1, 0.5, 0.5]
            and each[3].isnan())


# ---- what is refused, who looks --------------------------------------------------------------------------------------


def test_what_is_no_set_of_features_is_refused():
    a = torch.randn(10, 3)
    for wrong, says in ((a[:1], "at least 2"), (a[0], "must have shape"), (a[:, :0], "must have shape"),
                        (a[:, :2], "as many features"),
                        (a.where(a != a[2, 1], torch.nan), "1 numbers that are not finite")):
        with pytest.raises(ValueError, match=says):
            metrics.fid(a, wrong)
    with pytest.raises(ValueError, match="at least 4"):
        metrics.precision_recall(a, a[:3])
    with pytest.raises(ValueError, match="classes 0 ... 2"):
        metrics.class_accuracy(a, torch.full((10,), 3))
    with pytest.raises(ValueError, match="features must be digits-v1, inception, or the folder"):
        metrics.network("digits-v0")


def test_the_shipped_network_is_what_its_readme_says_it_is():
    """Its accuracy on unseen images, grey and made binary in both ways, is the one that was measured when it was
    stored."""
    network = metrics.network()
    assert "digits-v1: not comparable with Inception FID" in network.name
    for name, right in (("digits", 291), ("digits-threshold", 286), ("digits-dynamic", 246)):
        test = data.load(name, "test")
        share = metrics.class_accuracy(network(test.x, test.levels)[1], test.y)[0]
        assert abs(300 * share - right) < 1.5  # another processor's rounding may turn an image that is on the edge


def test_levels_are_stretched_and_mnist_is_cut_and_averaged():
    network, x = metrics.network(), data.load("digits", "test").x[:5]
    assert all(map(torch.equal, network(x, 17), network(x * 10, 161)))
    small = torch.rand(2, 8, 8).double()
    large = torch.zeros(2, 28, 28).double()
    large[:, 4:24, 4:24] = (small.repeat_interleave(5, 1).repeat_interleave(5, 2)
                            .unflatten(1, (20, 2)).unflatten(3, (20, 2)).mean((2, 4)))
    assert (mnist_to_8x8(large).mean() == pytest.approx(small.mean().item(), rel=1e-12)
            and mnist_to_8x8(torch.ones(1, 28, 28)).eq(1).all())
    ramp = torch.arange(28.0)[None, None].expand(1, 28, 28)
    # steps of whole pixels
    assert mnist_to_8x8(ramp)[0, 3].tolist() == pytest.approx([(k * 2.5 + 1.25) - 0.5 + 4 for k in range(8)], abs=0.13)
    assert network(large, 2)[0].shape == (2, 64)
    with pytest.raises(ValueError, match=r"takes images of shape \(8, 8\), these have \(9, 9\)"):
        network(torch.zeros(1, 9, 9), 2)


def test_digits_as_large_as_mnists_are_still_read():
    """Test digits, enlarged to the central 20x20 of 28x28 pixels and 256 levels, come back nearly as they were: the
    classifier names the same classes."""
    network, test = metrics.network(), data.load("digits", "test")
    large = torch.zeros(300, 28, 28)
    large[:, 4:24, 4:24] = torch.nn.functional.interpolate(
        test.x[:, None].float() * 255 / 16, (20, 20), mode="area")[:, 0]
    share = metrics.class_accuracy(network(large.round(), 256)[1], test.y)[0]
    assert share > 0.95 and metrics.fid(network(test.x, 17)[0], network(large.round(), 256)[0]) < 10


def test_inception_is_an_extra(monkeypatch):
    # as if the package were missing
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ValueError, match=r"pip install \.\[inception\]"):
        metrics.network("inception")


# ---- copies ----------------------------------------------------------------------------------------------------------


def test_the_nearest_train_image_is_found_and_the_first_of_equal_ones():
    train = torch.tensor([[[0, 0], [0, 0]], [[9, 9], [9, 9]], [[0, 0], [0, 0]], [[3, 4], [0, 0]]], dtype=torch.uint8)
    x = torch.tensor([[[0, 0], [0, 0]], [[3, 4], [0, 1]], [[0, 0], [3, 4]]], dtype=torch.uint8)
    index, distance = metrics.nearest(train, x)
    assert index.tolist() == [0, 3, 0] and distance.tolist() == [0, 1, 5]
    assert metrics.nearest(train, x[:0])[1].shape == (0,)


@pytest.mark.parametrize("train, x", [((0, 2, 2), (3, 2, 2)), ((3, 2, 2), (3, 2, 3)), ((3, 4), (3, 2, 2))])
def test_images_of_other_shapes_and_none_are_refused(train, x):
    with pytest.raises(ValueError, match="nearest takes train images"):
        metrics.nearest(torch.zeros(train), torch.zeros(x))
