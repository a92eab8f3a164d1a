"""Laws of the sampler in the NADE room (kernels/nade.py): it draws what the likelihood of test_nade.py says."""

import pytest
import torch
from check import drawn_from, fair
from test_nade import everywhere, inputs, on_each_backend, pixels, space, weights

from genmini import ops


def naive_sample(u, W, V, b, c, x=None, known=0):
    """A whole new network for every pixel."""
    x = torch.zeros(u.shape, dtype=torch.uint8) if x is None else x.clone()
    logits = torch.zeros_like(u)
    for d in range(u.shape[1]):
        logits[:, d] = b[d] + torch.sigmoid(c + x[:, :d].to(W.dtype) @ W[:, :d].T) @ V[d]
        if d >= known:
            x[:, d] = u[:, d] >= torch.sigmoid(-logits[:, d])
    return x, logits


@everywhere
@pytest.mark.parametrize("known", [0, 5, 41])
@pytest.mark.parametrize("shape", [(1, 41, 3), (19, 41, 40), (40, 41, 70)], ids=str)
def test_the_same_noise_gives_the_naive_sample(run, shape, known):
    N, D, H = shape
    u = torch.rand(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    given_x, rest = pixels(N, D, seed=9), weights(D, H, seed=3)
    wanted, logits = naive_sample(u, *rest, given_x, known)
    with run.use():
        got, l = ops.nade_sample(u.to(run.device), *(a.to(run.device) for a in rest), given_x.to(run.device), known,
                                 logits=True)
    assert got.dtype == torch.uint8 and torch.equal(got.cpu(), wanted)
    assert torch.equal(got.cpu()[:, :known], given_x[:, :known])
    torch.testing.assert_close(l.cpu(), logits, rtol=0, atol=1e-12)
    narrow = [a.float() for a in rest]
    with run.use():
        x, l = ops.nade_sample(u.float().to(run.device), *(a.to(run.device) for a in narrow), logits=True)
        assert torch.equal(
            ops.nade_logits(x, *(a.to(run.device) for a in narrow)), l
        ), "the likelihood sees what the sampler saw"
    exact = naive_sample(u, *(a.double() for a in narrow), x.cpu(), D)[1]
    fair(l, exact, naive_sample(u.float(), *narrow, x.cpu(), D)[1], torch.float32)


@on_each_backend
def test_samples_follow_log_prob(run):
    """The sampler draws from the distribution that log_prob reports: chi-square over the whole space."""
    D, N = 4, 4000 if run.backend == "emulated" else 20000
    rest = [a.to(run.device) for a in weights(D, 6, seed=4, scale=1.5, dtype=torch.float32)]
    with run.use():
        x = ops.nade_sample(torch.rand(N, D, device=run.device), *rest)
        wanted = N * ops.nade(space(D).to(run.device), *rest).double().exp().cpu()
    seen = torch.bincount((x.cpu().long() * 2 ** torch.arange(D - 1, -1, -1)).sum(1), minlength=2**D)
    drawn_from(seen, wanted)


def test_the_noise_decides_upwards():
    """u_d below p(x_d = 0) gives 0, above gives 1, as in every model here."""
    zero = [torch.zeros(s) for s in ((2, 3), (3, 2), (3,), (2,))]
    assert ops.nade_sample(torch.tensor([[0.4, 0.5, 0.6]]), *zero).tolist() == [[0, 1, 1]]


def test_errors_name_the_argument():
    x, W, V, b, c = inputs(2, 3, 4)
    with pytest.raises(ValueError, match="known must be from 0 to the count of numbers, 0 to 3, got 4"):
        ops.nade_sample(torch.rand(2, 3), W, V, b, c, x, 4)
    with pytest.raises(ValueError, match="known = 2 needs x, which holds the known numbers, and x is None"):
        ops.nade_sample(torch.rand(2, 3), W, V, b, c, known=2)
    for known, name in ((torch.tensor([1, 2]), "Tensor"), ("3", "str"), (1.0, "float")):
        with pytest.raises(TypeError, match=f"known must be an int, got {name}"):
            ops.nade_sample(torch.rand(2, 3), W, V, b, c, known=known)
    with pytest.raises(ValueError, match="x must have shape that of u"):
        ops.nade_sample(torch.rand(3, 3), W, V, b, c, x, 1)


def test_pixels_that_are_not_given_are_not_checked():
    x, W, V, b, c = inputs(2, 3, 4)
    x[:, 2] = 7
    assert ops.nade_sample(torch.rand(2, 3), W, V, b, c, x, 2)[:, 2].max() <= 1
