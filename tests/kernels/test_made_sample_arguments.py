"""What the front door of made_sample takes and refuses (kernels/made_sample.py)."""

import pytest
import torch
from genmini.kernels import _check
from genmini.kernels import made_sample as room
from test_made_sample import everywhere, net, noise, pixels

from genmini import ops


def test_no_gradient_and_16_bits():
    weights, biases, degrees, _ = net(3, (5,), dtype=torch.bfloat16)
    x, l = ops.made_sample(noise(2, 3), [w.requires_grad_() for w in weights], biases, degrees, logits=True)
    assert l.dtype == torch.float32 and not l.requires_grad
    wide = [w.detach().float() for w in weights], [b.float() for b in biases], degrees
    assert torch.equal(ops.made_sample(noise(2, 3), *wide, logits=True)[1], l)


@pytest.mark.parametrize("dtype", [*_check.FLOATS, *_check.INTEGERS, torch.bool], ids=str)
def test_x_of_every_dtype_is_the_same_x(dtype):
    network, u, x = net(5, (7,)), noise(4, 5), pixels(4, 5, 2)
    weights, biases, degrees, _ = network
    wanted = ops.made_sample(u, weights, biases, degrees, x=x, known=3, logits=True)
    got = ops.made_sample(u, weights, biases, degrees, x=x.to(dtype), known=3, logits=True)
    assert got[0].dtype == torch.uint8 and all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


OUTSIDE = {torch.uint8: [], torch.int16: [300, -1], torch.int64: [256, 300, -1], torch.float32: [256, -1, 0.5]}


@everywhere
@pytest.mark.parametrize("dtype", OUTSIDE, ids=str)
def test_x_of_256_levels_is_completed(run, dtype):
    """255 is the last level and is taken; what a byte cannot hold is refused, and does not wrap around."""
    weight, u = torch.zeros(2 * 256, 2 * 255, device=run.device), torch.full((2, 2), 0.5, device=run.device)
    complete = lambda first: ops.made_sample(
        u, [weight], [None], [], 256, x=torch.tensor([[first, 0], [3, 0]], dtype=dtype, device=run.device), known=1
    )
    with run.use():
        assert complete(255).tolist() == [[255, 128], [3, 128]]  # P(x_d <= 127) = 1/2 is at most u_d
        for outside in OUTSIDE[dtype]:
            with pytest.raises(ValueError, match="x must hold 0 ... 255, and it holds other values"):
                complete(outside)


def test_errors_name_the_argument():
    weights, biases, degrees, A = net(3, (5,))
    u, x = noise(2, 3), pixels(2, 3, 2)
    draw = ops.made_sample
    with pytest.raises(TypeError, match="weights must be a list or a tuple, got Tensor"):
        draw(u, weights[0], biases, degrees)
    with pytest.raises(TypeError, match="biases must be a list or a tuple, got NoneType"):
        draw(u, weights, None, degrees)
    with pytest.raises(TypeError, match="degrees must be a list or a tuple, got int"):
        draw(u, weights, biases, 3)
    with pytest.raises(ValueError, match="degrees must ascend from at least 0 to at most 3"):
        draw(u, weights, biases, [degrees[0].flip(0)])
    with pytest.raises(ValueError, match="degrees must ascend from at least 0 to at most 3"):
        draw(u, weights, biases, [degrees[0] + 3])
    with pytest.raises(ValueError,
                       match=r"weights\[1\] must have shape \(outputs, units below\) = \(3, 5\), got \(3, 4\)"):
        draw(u, [weights[0], weights[1][:, :4]], biases, degrees)
    with pytest.raises(ValueError,
                       match=r"biases\[0\] must have shape \(units of weights\[0\],\) = \(5,\), got \(4,\)"):
        draw(u, weights, [biases[0][:4], biases[1]], degrees)
    with pytest.raises(ValueError, match=r"degrees\[0\] must have shape"):
        draw(u, weights, biases, [degrees[0][:4]])
    with pytest.raises(TypeError, match=r"degrees\[0\] must be of dtype int64"):
        draw(u, weights, biases, [degrees[0].double()])
    with pytest.raises(ValueError,
                       match="weights and biases must be those of 0 hidden layers and of the output, got 2, 2"):
        draw(u, weights, biases, [])
    with pytest.raises(TypeError, match=r"weights\[1\] must have the dtype of weights\[0\]"):
        draw(u, [weights[0], weights[1].float()], biases, degrees)
    with pytest.raises(ValueError, match=r"direct must have shape \(outputs, inputs\) = \(3, 3\)"):
        draw(u, weights, biases, degrees, 2, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="x must hold 0 ... 1, and it holds other values"):
        draw(u, weights, biases, degrees, x=x + 2, known=3)
    with pytest.raises(ValueError, match="x must hold 0 ... 1, and it holds other values"):
        draw(u, weights, biases, degrees, x=x + 0.5, known=3)
    with pytest.raises(ValueError, match="known = 2 needs x, which holds the known numbers, and x is None"):
        draw(u, weights, biases, degrees, known=2)
    for known, name in ((torch.tensor([1, 2]), "Tensor"), ("3", "str"), (1.0, "float")):
        with pytest.raises(TypeError, match=f"known must be an int, got {name}"):
            draw(u, weights, biases, degrees, known=known)
    with pytest.raises(ValueError, match="known must be from 0 to the count of numbers, 0 to 3, got 4"):
        draw(u, weights, biases, degrees, x=x, known=4)
    with pytest.raises(ValueError, match="levels must be the number of levels, which a byte holds, 2 to 256, got 257"):
        draw(u, weights, biases, degrees, levels=257)
    with pytest.raises(ValueError, match=f"at most {room.DEEPEST - 1} layers"):
        draw(u, [torch.zeros(3, 3)] * room.DEEPEST, [None] * room.DEEPEST, [torch.zeros(3).long()] * (room.DEEPEST - 1))
