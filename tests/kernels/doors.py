"""Front doors with shortcuts, each with small tensors: what test_door.py and test_door_laws.py ask of all of them."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from genmini import ops

SHAPE = (6, 8, 5, 5)
ANGLE = torch.linspace(0.1, 1.5, 7, dtype=torch.float64)


def some(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def levels(*shape, below, seed=0):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def drawn(call, seed):
    """The call, which draws from torch's generator."""
    torch.manual_seed(seed)
    return call()


def q_sample(s, *given, **options):
    return ops.q_sample(given[0], levels(6, below=7, seed=s), ANGLE.cos(), ANGLE.sin(), *given[1:], **options)


@torch.no_grad()
def ddim_step(x, o, u, **options):
    return ops.ddim_step(x, o, 0.6, 0.8, 0.8, 0.6, "v", u, 3.0, **options)


DOORS = {  # name: of a seed, the tensors that have a gradient and the call with them
    "affine_coupling": lambda s: ([some(*SHAPE, seed=s + i) for i in range(3)], ops.affine_coupling),
    "affine_coupling saving y": lambda s: ([some(*SHAPE, seed=s + i) for i in range(3)],
                                           lambda *a: ops.affine_coupling(*a, save="y")),
    "affine_coupling_inverse": lambda s: ([some(*SHAPE, seed=s + i) for i in range(3)], ops.affine_coupling_inverse),
    "spline_coupling": lambda s: ([some(6, 8, seed=s), some(6, 8, 11, seed=s + 1)], ops.spline_coupling),
    "spline_coupling of images": lambda s: ([some(6, 2, 4, seed=s), some(6, 2, 4, 11, seed=s + 1)],
                                            lambda *a: ops.spline_coupling(*a, bound=3)),
    "spline_coupling_inverse": lambda s: ([some(6, 2, 4, seed=s), some(6, 2, 4, 11, seed=s + 1)],
                                          ops.spline_coupling_inverse),
    "gaussian_kl": lambda s: ([some(6, 8, seed=s + i) for i in range(2)],
                              lambda *a: ops.gaussian_kl(*a, eps=some(6, 8, seed=s))),
    "gaussian_kl that draws": lambda s: ([some(6, 8, seed=s + i) for i in range(2)],
                                         lambda *a: drawn(lambda: ops.gaussian_kl(*a), s)),
    "gaussian_kl with a seed": lambda s: ([some(6, 8, seed=s + i) for i in range(2)],
                                          lambda *a: ops.gaussian_kl(*a, seed=s)),
    "q_sample": lambda s: ([some(*SHAPE, seed=s), some(*SHAPE, seed=s + 1)], lambda *a: q_sample(s, *a)),
    "q_sample for x0": lambda s: ([some(*SHAPE, seed=s), some(*SHAPE, seed=s + 1)],
                                  lambda *a: q_sample(s, *a, target="x0")),
    "q_sample for v": lambda s: ([some(*SHAPE, seed=s), some(*SHAPE, seed=s + 1)],
                                 lambda *a: q_sample(s, *a, target="v")),
    "q_sample with a seed": lambda s: ([some(*SHAPE, seed=s)], lambda a: q_sample(s, a, seed=s)),
    "q_sample that draws v": lambda s: ([some(*SHAPE, seed=s)],
                                        lambda a: drawn(lambda: q_sample(s, a, target="v"), s)),
    "ddim_step": lambda s: ([some(*SHAPE, seed=s + i) for i in range(3)], ddim_step),
    "ddim_step with a seed": lambda s: ([some(*SHAPE, seed=s + i) for i in range(3)],
                                        lambda *a: ddim_step(*a, threshold="static", eta=1.0, seed=s)),
    "ddim_step that draws": lambda s: ([some(*SHAPE, seed=s + i) for i in range(3)], lambda *a: drawn(
        lambda: ddim_step(*a, threshold="dynamic", eta=0.5), s)),
    "group_norm_silu": lambda s: ([some(*SHAPE, seed=s), some(8, seed=s + 1), some(8, seed=s + 2)],
                                  lambda x, *a: ops.group_norm_silu(x, 4, *a)),
    "group_norm_silu of halves": lambda s: (
        [some(*SHAPE, seed=s), some(8, seed=s + 1), some(8, seed=s + 2), some(6, 16, seed=s + 3)],
        lambda x, g, b, h: ops.group_norm_silu(x, 4, g, b, *h.chunk(2, 1))),
    "softmax_nll": lambda s: ([some(6, 5, 3, 4, seed=s)],
                              lambda a: ops.softmax_nll(a, levels(6, 3, 4, below=5, seed=s))),
    "info_nce": lambda s: ([some(6, 8, seed=s), some(6, 8, seed=s + 1), some(1, seed=s)[0].exp()], ops.info_nce),
    "masked_linear": lambda s: ([some(6, 8, seed=s), some(5, 8, seed=s + 1), some(5, seed=s + 2)],
                                lambda *a: ops.masked_linear(*a, torch.arange(8), 2 * torch.arange(5))),
    "masked_conv2d": lambda s: ([some(*SHAPE, seed=s), some(3, 8, 3, 3, seed=s + 1), some(3, seed=s + 2)],
                                lambda *a: ops.masked_conv2d(*a, "B")),
    "quantize": lambda s: ([some(6, 8, seed=s), some(5, 8, seed=s + 1)], ops.quantize),
    "code_stats": lambda s: ([some(6, 8, seed=s)], lambda z: ops.code_stats(z, levels(6, below=5, seed=s), 5)),
}
SAMPLERS = [name for name in DOORS if name.startswith("ddim_step")]  # they have no gradient
IN_PYTORCH = [name for name in DOORS if name.startswith(("q_sample", "code_stats"))]  # their gradients


def results(inputs, call, order=1):
    """All outputs of a call, and the gradients of order 1, or 1 and 2, of the inputs that require one."""
    leaves = [a for a in inputs if a.requires_grad]
    outs = call(*inputs)
    outs = outs if isinstance(outs, tuple) else (outs,)
    moving = [o for o in outs if o.requires_grad]
    along = [some(*o.shape, seed=9).to(o) for o in moving]
    grads = torch.autograd.grad(moving, leaves, along, create_graph=order == 2, allow_unused=True) if moving else ()
    found = [*outs, *grads]
    if order == 2:
        twice = [g for g in grads if g is not None and g.requires_grad]
        found += torch.autograd.grad([g.square().sum() for g in twice], leaves, allow_unused=True) if twice else []
    return [a if a is None else a.detach() for a in found]


def of_door(name, seed, order=1):
    inputs, call = DOORS[name](seed)
    return results([a.requires_grad_() for a in inputs], call, order)


def same(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one.shape == other.shape and one.stride() == other.stride() and torch.equal(one, other))


def warm(call):
    """Forward passes go the short way from the third on, their backward passes two later."""
    for _ in range(5):
        call()


class Seen(TorchDispatchMode):
    """What it sees goes the whole way."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments, named=None):
        self.names.append(function.name())
        return function(*arguments, **(named or {}))
