"""Tests of AR(p): its likelihood is that of a Gaussian with the process's covariance, its fits are the textbook's, and
its forecasts are the conditional distributions of that Gaussian."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from genmini import data
from genmini.data import series
from genmini.models.ar import AR, METHODS
from genmini.train import evaluate, fit

PROCESSES = {  # phi, stationary every one
    "noise": [],
    "AR(1)": [0.8],
    "AR(1), alternating": [-0.6],
    "AR(2), a cycle": [1.318, -0.634],
    "AR(2), two real roots": [0.5, 0.3],
    "AR(4)": [0.9, -0.6, 0.3, -0.5],
    "AR(3) with a zero": [0.4, 0.3, 0.0],
}
each = pytest.mark.parametrize("phi", PROCESSES.values(), ids=PROCESSES)


def process(phi, c=2.0, sigma=1.5, T=50):
    model = AR(T, p=len(phi))
    with torch.no_grad():
        model.phi.copy_(torch.tensor(phi, dtype=torch.float64))
        model.c.fill_(c)
        model.log_sigma.fill_(math.log(sigma))
    return model


def autocovariance_by_filter(phi, sigma, lags):
    """gamma_k = sigma^2 sum_j psi_j psi_j+k, the psi from the impulse response: no recursion of the model's own."""
    psi = np.zeros(4000)
    psi[0] = 1
    for j in range(1, len(psi)):
        psi[j] = sum(f * psi[j - 1 - i] for i, f in enumerate(phi) if j - 1 - i >= 0)
    return sigma**2 * np.array([psi[: len(psi) - k] @ psi[k:] for k in range(lags + 1)])


# ---- the process -----------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("T", [1, 2, 4, 12])
def test_log_prob_is_that_of_the_joint_gaussian(phi, T):
    """The whole series as one Gaussian vector with mean mu and the Toeplitz matrix of autocovariances, by scipy."""
    model = process(phi)
    gamma = autocovariance_by_filter(phi, 1.5, T - 1)
    joint = scipy.stats.multivariate_normal(np.full(T, 2.0 / (1 - sum(phi))), scipy.linalg.toeplitz(gamma))
    x = 3 * torch.randn(5, T, dtype=torch.float64) + model.mu.item()
    torch.testing.assert_close(model.log_prob(x), torch.from_numpy(np.atleast_1d(joint.logpdf(x.numpy()))), rtol=1e-9,
                               atol=1e-9)
    torch.testing.assert_close(model.autocovariance(T - 1), torch.from_numpy(gamma), rtol=1e-9, atol=1e-9)


def test_closed_forms_of_order_1_and_2():
    f = 0.7
    gamma = process([f]).autocovariance(6).detach().numpy()
    np.testing.assert_allclose(gamma, 1.5**2 / (1 - f**2) * f ** np.arange(7), rtol=1e-12)
    f1, f2 = 0.9, -0.5
    gamma = process([f1, f2]).autocovariance(2).detach().numpy()
    variance = 1.5**2 * (1 - f2) / ((1 + f2) * ((1 - f2) ** 2 - f1**2))
    np.testing.assert_allclose(gamma, variance * np.array([1, f1 / (1 - f2), f2 + f1**2 / (1 - f2)]), rtol=1e-12)


def test_roots_and_stationarity():
    """The roots are numpy's; for two coefficients, the process is stationary inside the triangle of the textbooks."""
    for phi in ([0.5], [1.0], [-1.2], [0.4, -0.3, 0.8, 0.05]):
        roots = process(phi).roots().numpy()
        wanted = np.roots([*(-np.array(phi[::-1])), 1.0])
        np.testing.assert_allclose(np.sort(np.abs(roots)), np.sort(np.abs(wanted)), rtol=1e-8)
    roots = process([0.4, 0.3, 0.0]).roots().abs()
    assert (torch.isinf(roots).sum() == 1
            and roots.sort().values[:2].tolist() == pytest.approx(sorted(np.abs(np.roots([-0.3, -0.4, 1.0])))))
    assert process([]).stationary() and process([0.99]).stationary()
    assert not process([1.0]).stationary() and not process([-1.2]).stationary()
    for f1 in np.linspace(-2.2, 2.2, 23):
        for f2 in np.linspace(-1.3, 1.3, 14):
            assert process([f1, f2]).stationary() == (abs(f2) < 1 and f2 + f1 < 1 and f2 - f1 < 1), (f1, f2)
    with pytest.raises(ValueError, match="not stationary"):
        process([1.2]).log_prob(torch.zeros(1, 5))


@each
def test_samples_have_the_autocovariance(phi):
    model, n = process(phi), 20000
    x = model.sample(n, T=6)
    assert x.shape == (n, 6)
    error = 5 / math.sqrt(n)  # five deviations of a correlation
    gamma = autocovariance_by_filter(phi, 1.5, 5)
    covariance = torch.cov(x.T).numpy() / gamma[0]
    assert np.abs(covariance - scipy.linalg.toeplitz(gamma) / gamma[0]).max() < 2 * error
    assert (x.mean(0) - model.mu).abs().max() < error * math.sqrt(gamma[0])
    entropy = -model.log_prob(x).mean().item()  # of the Gaussian, exactly
    wanted = 0.5 * np.linalg.slogdet(2 * math.pi * math.e * scipy.linalg.toeplitz(gamma))[1]
    assert entropy == pytest.approx(wanted, abs=5 * math.sqrt(6 / 2) / math.sqrt(n))


def test_the_same_noise_gives_the_same_sample_and_noise_comes_back():
    """The standardised errors of one-step forecasts, of which the likelihood is made, are the noise that went in."""
    model, e = process(PROCESSES["AR(4)"]), torch.randn(3, 20, dtype=torch.float64)
    x = model.sample(3, e=e)
    each = model.log_prob_each(x)
    v = torch.tensor(1.5**2, dtype=torch.float64)
    torch.testing.assert_close(each[:, 4:], -0.5 * (e[:, 4:].square() + (2 * math.pi * v).log()))
    torch.testing.assert_close(x[:, 10], model.c + x[:, 6:10].flip(1) @ model.phi + 1.5 * e[:, 10])


# ---- fitting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@each
def test_a_fit_finds_the_process(phi, method):
    truth = process(phi)
    x = truth.sample(8, T=2000)
    model = AR(2000, p=len(phi)).fit(x, method)
    near = 6 / math.sqrt(16000)
    assert (model.phi - truth.phi).abs().max().item() < 4 * near if phi else True
    assert model.sigma.item() == pytest.approx(1.5, rel=near)
    assert model.mu.item() == pytest.approx(truth.mu.item(), abs=6 * 1.5 / abs(1 - sum(phi)) / math.sqrt(16000))


def test_least_squares_is_numpys():
    x = data.load("series", "train").x
    for p in (1, 2, 9):
        model = AR(x.shape[1], p=p).fit(x, "least-squares")
        row = x[0].numpy()
        A = np.stack([np.ones(len(row) - p), *(row[p - i : len(row) - i] for i in range(1, p + 1))], 1)
        solution, squares = np.linalg.lstsq(A, row[p:], rcond=None)[:2]
        np.testing.assert_allclose([model.c.item(), *model.phi.tolist()], solution, rtol=1e-8)
        assert model.sigma.item() ** 2 == pytest.approx(squares[0] / (len(row) - p), rel=1e-9)


@pytest.mark.parametrize("p", [1, 2, 3, 9])
def test_yule_walker_solves_the_toeplitz_system(p):
    x = data.load("series", "train").x
    model = AR(x.shape[1], p=p).fit(x, "yule-walker")
    row = x[0].numpy() - x.mean().item()
    gamma = np.array([row[k:] @ row[: len(row) - k] / len(row) for k in range(p + 1)])
    phi = scipy.linalg.solve_toeplitz(gamma[:p], gamma[1:])
    np.testing.assert_allclose(model.phi.tolist(), phi, rtol=1e-9)
    assert model.sigma.item() ** 2 == pytest.approx(gamma[0] - phi @ gamma[1:], rel=1e-9)
    # the fit matches the moments that it was given
    np.testing.assert_allclose(model.autocovariance(p).detach().numpy(), gamma, rtol=1e-9)


def test_the_textbooks_sunspots():
    """Brockwell and Davis, Time Series: Theory and Methods, fit x_t = 1.318 x_t-1 - 0.634 x_t-2 and variance 289.2 to
    the years 1770-1869 by Yule and Walker's equations, from numbers rounded to integers: the third digit agrees."""
    x = torch.from_numpy(series.read("train")[0][70:170])[None]
    model = AR(100, p=2).fit(x, "yule-walker")
    assert model.phi.tolist() == pytest.approx([1.318, -0.634], abs=0.002)
    assert model.sigma.item() ** 2 == pytest.approx(289.2, rel=0.005)


@pytest.mark.parametrize("p", [0, 1, 2, 5])
def test_maximum_likelihood_is_a_maximum(p):
    """At the fit the gradient is 0; no other fit and no neighbour is likelier; p = 0 gives the Gaussian's closed
    form."""
    x = process([1.1, -0.5], sigma=30.0, c=100.0).sample(1, T=120)
    model = AR(120, p=p).fit(x, "likelihood")
    best = model.log_prob(x).sum()
    grads = torch.autograd.grad(best, [w for w in model.parameters() if w.numel()])
    curvature = 120 * torch.tensor([1 / 30.0, 1.0, 1.0])  # of c, phi and log sigma, in size
    for g, size in zip(grads, curvature if p else curvature[::2], strict=True):
        assert (g.abs() / size).max() < 1e-4
    for method in METHODS[1:]:
        other = AR(120, p=p).fit(x, method)
        assert not other.stationary() or other.log_prob(x).sum() <= best + 1e-9
    with torch.no_grad():
        for w in model.parameters():
            for i in range(w.numel()):
                for step in (-1e-2, 1e-2):
                    w.view(-1)[i] += step
                    assert model.log_prob(x).sum() < best
                    w.view(-1)[i] -= step
    if p == 0:
        assert (model.mu.item() == pytest.approx(x.mean().item())
                and model.sigma.item() == pytest.approx(x.std(correction=0).item()))


def test_likelihood_of_order_1_against_scipy():
    """The fit of an AR(1) is the maximum of the textbook's exact likelihood, sought by scipy's simplex without any
    gradient."""
    x = process([0.9]).sample(1, T=60)
    row = x[0].numpy()

    def minus(at):
        mu, f, s = at[0], math.tanh(at[1]), math.exp(at[2])
        start = scipy.stats.norm.logpdf(row[0], mu, s / math.sqrt(1 - f * f))
        return -start - scipy.stats.norm.logpdf(row[1:], mu + f * (row[:-1] - mu), s).sum()

    until = dict(xatol=1e-9, fatol=1e-12, maxiter=10000)
    found = scipy.optimize.minimize(minus, [row.mean(), 1.0, 0.0], method="Nelder-Mead", options=until)
    model = AR(60, p=1).fit(x)
    got = [model.mu.item(), model.phi.item(), model.sigma.item()]
    assert got == pytest.approx([found.x[0], math.tanh(found.x[1]), math.exp(found.x[2])], rel=1e-5)
    assert model.log_prob(x).item() == pytest.approx(-found.fun, abs=1e-9)


def test_the_unit_of_the_data_does_not_matter():
    x = data.load("series", "train").x
    a, b = AR(p=3).fit(x), AR(p=3).fit(1e6 * x - 1e7)
    torch.testing.assert_close(a.phi, b.phi, rtol=1e-5, atol=1e-6)
    assert b.sigma.item() == pytest.approx(1e6 * a.sigma.item(), rel=1e-5)
    assert b.mu.item() == pytest.approx(1e6 * a.mu.item() - 1e7, rel=1e-5)


def test_akaike_finds_the_recipes_order():
    """-2 log p + 2 (p + 2) on train alone."""
    x = data.load("series", "train").x
    aic = [-2 * AR(x.shape[1], p=p).fit(x).log_prob(x).item() + 2 * (p + 2) for p in range(12)]
    assert int(np.argmin(aic)) == 9


# ---- forecasts -------------------------------------------------------------------------------------------------------


@each
def test_a_forecast_is_the_conditional_gaussian(phi):
    """Mean and variance of x_T+h given x_1 ... x_T, from the joint covariance by Schur's complement."""
    model, T, H = process(phi), 9, 7
    x = model.sample(2, T=T)
    mean, low, high = model.forecast(x, H, level=0.9)
    gamma = scipy.linalg.toeplitz(autocovariance_by_filter(phi, 1.5, T + H - 1))
    past, cross, ahead = gamma[:T, :T], gamma[T:, :T], gamma[T:, T:]
    gain = np.linalg.solve(past, cross.T).T
    mu = model.mu.item()
    np.testing.assert_allclose(mean.numpy(), mu + (x.numpy() - mu) @ gain.T, atol=1e-8)
    deviation = np.sqrt(np.diag(ahead - gain @ cross.T))
    wide = scipy.stats.norm.ppf(0.95) * deviation
    np.testing.assert_allclose(((high - low) / 2).numpy(), np.broadcast_to(wide, (2, H)), rtol=1e-8)
    np.testing.assert_allclose(((high + low) / 2).numpy(), mean.numpy(), atol=1e-9)


def test_intervals_cover_what_comes():
    model = process(PROCESSES["AR(2), a cycle"])
    x = model.sample(20000, T=30)
    _, low, high = model.forecast(x[:, :20], 10, level=0.8)
    covered = ((x[:, 20:] > low) & (x[:, 20:] < high)).double().mean(0)
    assert (covered - 0.8).abs().max() < 5 * 0.4 / math.sqrt(20000)


def test_wrong_use_is_named():
    x = torch.randn(1, 20)
    for make, words in (
        (lambda: AR((8, 8)), "series"),
        (lambda: AR(10, levels=2), "levels"),
        (lambda: AR(10, p=-1), "p must"),
        (lambda: AR(p=3).fit(x, "magic"), "method"),
        (lambda: AR(p=19).fit(x), "T > p"),
        (lambda: AR(p=1).fit(torch.full((1, 9), math.nan)), "finite"),
        (lambda: AR(p=1).fit(torch.ones(1, 9)), "constant"),
        (lambda: AR(p=3).forecast(x[:, :2], 1), "T >= p"),
    ):
        with pytest.raises(ValueError, match=words):
            make()


def test_it_is_fitted_saved_and_judged(tmp_path):
    """On unseen years the forecast of the next number is far more certain than the mean and deviation alone."""
    import genmini

    train, valid, test = (data.load("series", split) for split in data.SPLITS)
    model = AR(train.shape, p=9)
    history = fit(model, train, valid, run=tmp_path, metadata=dict(data="series"))
    nats, error = evaluate(model, test)
    alone = AR(train.shape, p=0).fit(train.x)
    assert nats < evaluate(alone, test)[0] - 1 and nats < 5 and 0 < error < 1
    assert history.valid == evaluate(model, valid)[0]
    with pytest.raises(ValueError, match="AR is solved at once: it takes no steps"):
        fit(model, train, valid, steps=3)
    again = genmini.load(tmp_path)
    assert torch.equal(again.log_prob(test.x), model.log_prob(test.x)) and again.sample(2).shape == (2, 220)


def test_the_search_for_the_likelihood_has_a_bound():
    x = torch.randn(1, 250, dtype=torch.float64)
    with pytest.raises(ValueError, match="the likelihood is searched for p of at most 100.*got p=101.*yule-walker"):
        AR(p=101).fit(x)
    assert AR(p=190).fit(x, method="yule-walker").stationary()
