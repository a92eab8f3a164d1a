"""Proofs and laws of the reparameterisation room (kernels/gaussian_kl.py)."""

import math

import pytest
import torch
from check import DTYPES, error, gradient, laid_out, layouts, matches, numbers, opaque, registered, runs, scales, seeds
from genmini.kernels._noise import noise
from hypothesis import given
from hypothesis import strategies as st
from noises import BOUND, MOST, exact_noise, is_noise
from scipy import stats
from torch.distributions import Normal, kl_divergence

from genmini import ops

RUNS = runs("gaussian_kl")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
# enough rows that no error is 0 by chance
shapes = st.sampled_from([(0, 3), (3, 0), (40, 1), (40, 7), (33, 2), (33, 64), (20, 127), (20, 3, 4), (2, 4099)])


def definition(mu, log_var, eps):
    """What a textbook writes, in the dtype that sums have."""
    wide = torch.float64 if mu.dtype == torch.float64 else torch.float32
    m, l, e = (a.to(wide) for a in (mu, log_var, eps))
    kl = 0.5 * (m**2 + l.expm1() - l)
    return (m + (0.5 * l).exp() * e).to(mu.dtype), kl.flatten(1).sum(1)


def inputs(*shape, seed=0, scale=1.0):
    return [numbers(*shape, seed=seed, scale=scale), numbers(*shape, seed=seed + 1), numbers(*shape, seed=seed + 2)]


@everywhere
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@given(shape=shapes, layout=layouts, scale=scales, seed=seeds)
def test_matches(run, dtype, shape, layout, scale, seed):
    mu, l, eps = inputs(*shape, seed=seed % 2**31, scale=scale)
    l[..., ::3] *= 1e-3  # where the terms of e^l - 1 - l cancel
    matches(run, ops.gaussian_kl, [laid_out(a, layout) for a in (mu, l, eps)], dtype, definition)


@everywhere
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(shape=st.sampled_from([(1, 1), (1, 5), (3, 127), (2, 1024), (3, 1025), (2, 4500)]), scale=scales, seed=seeds)
def test_kl_is_off_by_its_roundings(run, dtype, shape, scale, seed):
    """Five roundings of numbers that e^l + 1 + |l| + mu^2 bounds, and those of a sum of D of them in tiles of 1024."""
    mu, l, eps = (a.to(dtype) for a in inputs(*shape, seed=seed % 2**31, scale=scale))
    with run.use():
        kl = ops.gaussian_kl(*(a.to(run.device) for a in (mu, l, eps)))[1].cpu()
    mu, l = mu.double(), l.double()
    exact = [math.fsum(0.5 * (m * m + math.expm1(v) - v) for m, v in zip(*row, strict=True))
             for row in zip(mu.tolist(), l.tolist(), strict=True)]
    unit = torch.finfo(kl.dtype).eps / 2 * (5 + shape[1] / 1024 + math.log2(shape[1] + 1))
    assert ((kl.double() - torch.tensor(exact, dtype=torch.float64)).abs()
            <= unit * (l.exp() + 1 + l.abs() + mu * mu).sum(1)).all()


@everywhere
def test_gradient(run):
    gradient(run, ops.gaussian_kl, inputs(2, 2))


@everywhere
def test_gradient_with_a_seed(run):
    gradient(run, lambda mu, l: ops.gaussian_kl(mu, l, seed=5), inputs(2, 2)[:2])


@everywhere
def test_registered(run):
    registered(run, ops.gaussian_kl, inputs(3, 5), (0, 1, 2), plain=definition)


@everywhere
def test_registered_with_a_seed(run):
    mu, l = inputs(3, 5)[:2]
    with run.use():
        eps = ops.gaussian_kl(*[torch.zeros_like(mu).to(run.device)] * 2, seed=7)[0]  # its own, to the last bit
    operator, plain = lambda mu, l: ops.gaussian_kl(mu, l, seed=7), lambda mu, l: definition(mu, l, eps)
    # a second derivative draws the reference's noise: the same up to some roundings of float32, of numbers below 8
    registered(run, operator, [mu, l], (0, 1), plain=plain, rtol=4 * 2**-24, atol=8 * 4 * 2**-24)


@everywhere
def test_opaque(run):
    mu, l, eps = (a.to(run.device) for a in inputs(4, 6))
    opaque(torch.ops.genmini.gaussian_kl.default, (mu, l, eps, None, run.backend))
    opaque(torch.ops.genmini.gaussian_kl.default, (mu, l, None, torch.tensor(3, device=run.device), run.backend))


# ---- the noise -------------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 + 5, 2**63 - 1])
@pytest.mark.parametrize("shape", [(7, 3), (2, 1300)])
def test_a_seed_draws_the_same_noise_everywhere(run, shape, seed):
    """z = eps where mu = 0 and sigma = 1."""
    mu = torch.zeros(shape)
    with run.use():
        z, _ = ops.gaussian_kl(mu.to(run.device), mu.to(run.device), seed=seed)
    assert is_noise(z, seed)


@everywhere
def test_the_backward_pass_draws_it_again(run):
    mu, l = (a.float().to(run.device).requires_grad_() for a in inputs(9, 130)[:2])
    with run.use():
        z, _ = ops.gaussian_kl(mu, l, seed=11)
        dz = torch.ones_like(z)
        dl = torch.autograd.grad(z, l, dz)[0]
    # dz/dl = sigma eps / 2. Rounded are z, z - mu, and on both sides sigma (2 units) and its product
    torch.testing.assert_close(dl, (z - mu).detach() / 2, rtol=7 * 2.0**-24, atol=2.0**-24 * z.abs().max().item())


def test_the_noise_is_normal_and_independent():
    """The noise has the moments and the distribution of normal numbers, and no correlations of values or squares.

    The four numbers of one call of Philox are compared with each other too. A mean of M numbers of unit variance has
    the deviation M^-1/2; squares of normal numbers have variance 2.
    """
    eps = noise(torch.tensor(3), torch.empty(400, 1000)).double()
    four = eps.view(400, 250, 4).flatten(0, 1).T  # (4, M)
    M = four.shape[1]
    for word in four:
        assert stats.kstest(word.numpy(), "norm").pvalue > 1e-3
        for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert abs((word**power).mean() - moment) < 5 * (variance / M) ** 0.5
    among = ~torch.eye(4, dtype=torch.bool)
    assert (four @ four.T / M)[among].abs().max() < 5 / M**0.5
    squares = (four.square() - 1) / 2**0.5
    assert (squares @ squares.T / M)[among].abs().max() < 5 / M**0.5
    assert ((four @ squares.T) / M)[among].abs().max() < 5 / M**0.5
    other_seed = noise(torch.tensor(4), torch.empty(400, 1000)).double()
    for x, y in ((eps[:, 1:], eps[:, :-1]), (eps[:, 4:], eps[:, :-4]), (eps[1:], eps[:-1]), (eps, other_seed)):
        assert abs((x * y).mean()) < 5 / x.numel() ** 0.5


@everywhere
def test_a_number_of_the_noise_depends_on_seed_row_and_column_alone(run):
    """Not on how many rows and columns stand beside it, hence not on the tiles."""
    with run.use():
        for D in (1, 2, 3, 4, 5, 1030):
            for N in (70, 1):
                assert is_noise(ops.gaussian_kl(*[torch.zeros(N, D, device=run.device)] * 2, seed=9)[0], 9)


def test_the_noise_is_philox_and_box_muller():
    """All four words of a Philox, on the counter (column // 4, row)."""
    for seed in (0, 12345, 2**40 + 17):
        want = [[eps for q in range(3) for eps in _normal(*_philox(seed, q, n))][:11] for n in range(20)]
        exact = exact_noise(seed, 20, 11)
        assert error(exact, torch.tensor(want, dtype=torch.float64)) < 20 * MOST * 2.0**-53
        assert error(noise(torch.tensor(seed), torch.empty(20, 11)), exact) < BOUND < 2.5e-6


def _philox(seed, q, n):
    c, k = [q, 0, n, 0], [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def _normal(*words):
    i, j, k, m = (torch.tensor(w if w < 2**31 else 2**32 - 1 - w).float() * 4.6566127342e-10 for w in words)
    for u, v in ((i.item(), k.item()), (j.item(), m.item())):
        radius, angle = math.sqrt(-2 * math.log(max(u, 1e-7))), 2 * math.pi * v
        yield from (radius * math.cos(angle), radius * math.sin(angle))


def test_on_a_cpu_without_a_seed_torch_draws_the_noise():
    mu, l = (a.float() for a in inputs(4, 5)[:2])
    torch.manual_seed(1)
    found = ops.gaussian_kl(mu, l)
    torch.manual_seed(1)
    wanted = ops.gaussian_kl(mu, l, torch.randn_like(mu))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_without_a_seed_torchs_generator_decides():
    mu = torch.zeros(4, 5)
    torch.manual_seed(1)
    first, second = ops.gaussian_kl(mu, mu)[0], ops.gaussian_kl(mu, mu)[0]
    torch.manual_seed(1)
    assert torch.equal(ops.gaussian_kl(mu, mu)[0], first) and not torch.equal(first, second)


# ---- laws ------------------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(power=st.integers(-40, 3), seed=seeds)
def test_kl_is_never_negative_and_right_near_equality(run, dtype, power, seed):
    """KL agrees with the series in double, added without rounding.

    From |l| = 1 on, e^l - 1 - l rounds numbers of the size of l.
    """
    l = numbers(1, 9, seed=seed % 2**31, scale=2.0**power).to(dtype)
    with run.use():
        kl = ops.gaussian_kl(torch.zeros_like(l).to(run.device), l.to(run.device), seed=0)[1].cpu().double()
    exact = math.fsum(math.fsum(v**i / math.factorial(i) for i in range(2, 120))
                      for v in l.double().flatten().tolist()) / 2
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    loss = torch.finfo(wide).eps * (8 * exact + (2 * l.double().abs().sum().item() if power > -2 else 0))
    assert kl.item() >= 0 and abs(kl.item() - exact) <= loss


@everywhere
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gradient_of_eps_is_rounded_once(run, dtype):
    """deps = dz sigma, computed in the dtype of sums: in float16 sigma alone would overflow, or be rounded before."""
    l = torch.tensor([[23.0, 23.0, 1.3, -20.0, 0.0]], dtype=dtype, device=run.device)
    dz = torch.tensor([[1e-3, 0.0, 1.0, 3.0, 0.7]], dtype=dtype, device=run.device)
    eps = torch.zeros_like(l).requires_grad_()
    with run.use():
        (deps,) = torch.autograd.grad(ops.gaussian_kl(torch.zeros_like(l), l, eps)[0], eps, dz)
    wanted = dz.double() * (l.double() / 2).exp()
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    # half a step of the dtype, then exp of a number below 12 and a product in the dtype of sums; 2^-25: subnormals
    bound = (torch.finfo(dtype).eps / 2 + 4 * torch.finfo(sums).eps) * wanted + 2.0**-25
    assert deps.dtype == dtype and ((deps.double() - wanted).abs() <= bound).all()


@everywhere
def test_kl_is_zero_at_equality(run):
    mu = torch.zeros(3, 40, device=run.device)
    with run.use():
        assert (ops.gaussian_kl(mu, mu)[1] == 0).all()


@everywhere
@given(seed=seeds)
def test_is_the_kl_of_torch_distributions(run, seed):
    mu, l, eps = inputs(6, 10, seed=seed % 2**31)
    want = kl_divergence(Normal(mu, (l / 2).exp()), Normal(0.0, 1.0)).sum(1)
    with run.use():
        kl = ops.gaussian_kl(*(a.to(run.device) for a in (mu, l, eps)))[1].cpu()
    torch.testing.assert_close(kl, want)


@everywhere
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_infinite_and_nan(run, dtype):
    inf, nan = math.inf, math.nan
    mu = torch.tensor([[inf, 0], [0, 0], [0, 0], [nan, 0], [0, 0]], device=run.device, dtype=dtype, requires_grad=True)
    l = torch.tensor([[0, 0], [-inf, 0], [inf, 0], [0, 0], [nan, 0]], device=run.device, dtype=dtype,
                     requires_grad=True)
    with run.use():
        z, kl = ops.gaussian_kl(mu, l, torch.ones_like(mu))
        dmu, dl = torch.autograd.grad([z, kl], [mu, l], [torch.ones_like(z), 3 * torch.ones_like(kl)])
    assert kl[:3].tolist() == [inf, inf, inf] and kl[3:].isnan().all()
    assert z[:3, 0].tolist() == [inf, 0, inf] and z[3:, 0].isnan().all() and z[:, 1].tolist() == [1] * 5
    assert dmu[:3, 0].tolist() == [inf, 1, 1] and dmu[3, 0].isnan() and dmu[4, 0] == 1 and dmu[:, 1].tolist() == [1] * 5
    assert dl[:4, 0].tolist() == [0.5, -1.5, inf, 0.5] and dl[4, 0].isnan() and dl[:, 1].tolist() == [0.5] * 5


# ---- the front door --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, kind, words", [
    ((torch.ones(2, 3), torch.ones(3, 2)), ValueError, "log_var must have shape that of mu"),
    ((torch.ones(2, 3), torch.ones(2, 3).double()), TypeError, "log_var must have the dtype of mu"),
    ((torch.tensor(1.0), torch.tensor(1.0)), ValueError, "mu must have shape"),
    ((torch.ones(2, 3), torch.ones(2, 3), torch.ones(2)), ValueError, "eps must have shape that of mu"),
    ((torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3), 1), ValueError, "not both"),
    ((torch.ones(2, 3), torch.ones(2, 3), None, -1), ValueError, "seed must be"),
    ((torch.ones(2, 3), torch.ones(2, 3), None, 0.5), TypeError, "seed must be an int"),
    ((torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3)), TypeError, "mu must be of dtype"),
])
def test_errors(arguments, kind, words):
    with pytest.raises(kind, match=words):
        ops.gaussian_kl(*arguments)


def test_autocast_computes_in_float32():
    mu = torch.ones(2, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        z, kl = ops.gaussian_kl(mu, mu)
    assert z.dtype == kl.dtype == torch.float32
