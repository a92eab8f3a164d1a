"""Before a module is swapped: does the room give the same outputs and gradients on probes, and is it faster?

Probes run on copies: no parameter, buffer, hook or random state of the model is touched. On a copy every parameter and
every floating buffer but the mask holds random numbers, so that a factor which happens to be 1 is seen. The judge is
the owner's own forward in float64: there the room must agree to 1e-9 of the largest number (a sum of 10^4 rounded terms
is closer); in the module's dtype it may be at most twice as far from it as its owner is, and a few roundings more.
"""

import collections
import contextlib
import copy
import math
import statistics
import time

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

HOOKS = [name for name in vars(nn.Module()) if name.endswith("_hooks")]
OF_TORCH = frozenset(vars(nn.Module()))
OF_CALLS = [name for name in HOOKS if "forward" in name or "backward" in name]


def check(module):
    if not isinstance(module, nn.Module):
        raise TypeError(f"genmini.swap takes an nn.Module, an instance, got {module!r}"[:200])


def hooked(module):
    """Whether a call of one of its children runs hooks: a room reads the child's tensors, and would not run them"""
    return any(vars(child)[name] for child in module.children() for name in OF_CALLS)


def copy_of(module):
    """A copy without hooks, whose tensors are leaves."""
    memo = {}
    for part in module.modules():
        memo |= {id(getattr(part, name)): collections.OrderedDict() for name in HOOKS if hasattr(part, name)}
        memo |= {id(tensor): tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in
                 vars(part).values() if isinstance(tensor, torch.Tensor) and not tensor.is_leaf}
    return copy.deepcopy(module, memo)


def tensors(module):
    """{name: parameter, buffer or plain attribute}"""
    plain = {f"{prefix}.{name}".lstrip("."): value for prefix, part in module.named_modules()
             for name, value in vars(part).items() if isinstance(value, torch.Tensor)}
    return {**dict(module.named_parameters()), **dict(module.named_buffers()), **plain}


def to(module, dtype):
    """The module with all its floating tensors in this dtype: those too that nn.Module.to does not know"""
    for part in module.to(dtype).modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                vars(part)[name] = value.detach().to(dtype).requires_grad_(value.requires_grad)
    return module


def plain(module):
    """{name: value} of its attributes that are numbers, words, tuples or None, as a stride or a beta is"""
    return {f"{prefix}.{name}".lstrip("."): value for prefix, part in module.named_modules()
            for name, value in {**part._parameters, **part._buffers, **vars(part)}.items()
            if isinstance(value, int | float | str | tuple | None) and name not in OF_TORCH}


@contextlib.contextmanager
def alone(module):
    """Gradients are recorded, in inference mode too, and the random state is afterwards as before."""
    devices = {tensor.device for tensor in tensors(module).values() if tensor.is_cuda}
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        yield


class Wide(TorchFunctionMode):
    """What is asked for in float32 by name, as x.float() or torch.zeros(N, dtype=torch.float32), is in float64."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        wide = lambda value: torch.float64 if value is torch.float32 else value
        function = torch.Tensor.double if function is torch.Tensor.float else function
        return function(*map(wide, args), **{name: wide(value) for name, value in (kwargs or {}).items()})


@contextlib.contextmanager
def in_float64():
    """A stranger's code computes in float64 inside, if its tensors are: what it makes itself is so too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with Wide():
            yield
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def perturbed(module, but=(), counts=(), small=False):
    """A copy that holds random numbers, but for what is named; counts are at least 1; small ones let long chains of
    layers neither vanish nor overflow"""
    module, noise = copy_of(module), torch.Generator().manual_seed(1)
    for name, tensor in tensors(module).items():
        if tensor.is_floating_point() and name not in but:
            random = torch.randn(tensor.shape, dtype=torch.float64, generator=noise)
            random = random / tensor.shape[-1] if small and tensor.dim() else random
            tensor.copy_(1 + random.abs() if name in counts else random)
    return module


def probe(shape, dtype, device):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(device, dtype)


def like(module):
    """A tensor whose dtype and device are the module's; of a module without any, PyTorch's own"""
    return next((tensor for tensor in tensors(module).values() if tensor.is_floating_point()), torch.empty(0))


def answers(module, inputs, seed=0, call=None, wide=False):
    """{what: its value}: the state after a call, outputs, gradients of a random combination of them; and the form of
    what it returns.   wide: the module is its owner's, in float64"""
    torch.manual_seed(seed)
    inputs, noise = [leaf(x) for x in inputs], torch.Generator().manual_seed(3)
    with in_float64() if wide else contextlib.nullcontext():
        returned = call(module, *inputs) if call else module.forward(*inputs)
    leaves = leaves_of(returned)
    parts = [(torch.randn(y.shape, dtype=torch.float64, generator=noise).to(y) * y).sum()
             for y in leaves if isinstance(y, torch.Tensor) and y.requires_grad]
    if parts:
        sum(part.double() for part in parts).backward()
    state = tensors(module)
    out = {f"{name}, which the call changes,": value for name, value in {**state, **plain(module)}.items()}
    out |= {f"output {i}" if len(leaves) > 1 else "output": y for i, y in enumerate(leaves)}
    out |= {f"the gradient of input {i}": x.grad for i, x in enumerate(inputs) if isinstance(x, torch.Tensor)}
    out |= {f"the gradient of {name}": tensor.grad for name, tensor in state.items() if tensor.is_leaf}
    return out, (type(returned), mapped(lambda leaf: None, returned))


def mapped(f, out):
    """f of every leaf of nested tuples, lists and dictionaries, in these again"""
    if isinstance(out, dict):
        return type(out)((key, mapped(f, value)) for key, value in out.items())
    if isinstance(out, tuple) and hasattr(out, "_fields"):  # of names
        return type(out)(*(mapped(f, value) for value in out))
    return type(out)(mapped(f, value) for value in out) if isinstance(out, tuple | list) else f(out)


def leaves_of(out):
    found = []
    mapped(found.append, out)
    return found


def leaf(x):
    if not isinstance(x, torch.Tensor):
        return x
    return x.detach().clone().requires_grad_(x.is_floating_point())


def distances(answer, exact):
    """{"outputs": the largest relative difference, "gradients": ...} from the answer in float64"""
    far = {"outputs": 0.0, "gradients": 0.0}
    for what, true in exact.items():
        if isinstance(true, torch.Tensor) and not what.endswith("changes,"):
            kind = "gradients" if what.startswith("the gradient") else "outputs"
            now = answer.get(what)
            off = apart(now, true) if isinstance(now, torch.Tensor) else float("inf")
            far[kind] = max(far[kind], float("inf") if math.isnan(off) else off)  # max would pass over NaN
    return far


def apart(a, b):
    """The largest difference, relative to the largest number of b; NaN and infinity agree with themselves"""
    if torch.equal(a, b):
        return 0.0
    a, b = a.detach().double(), b.detach().double()
    gap = torch.where((a == b) | (a.isnan() & b.isnan()), 0, (a - b).abs())
    top = b.abs().nan_to_num(0, 0, 0).max().item() if b.numel() else 0
    return gap.max().item() / (top or 1)


def difference(owner, room, exact=None, most=1e-9):
    """What differs in two answers, or "": by at most `most`, or by the rule with the owner's in float64 as `exact`"""
    (owner, form), (room, other) = owner, room
    if form != other or owner.keys() != room.keys():
        return "what it returns"
    for what, a in owner.items():
        b = room[what]
        if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
            if a is not b and a != b:
                return what
        elif (a.shape, a.dtype, a.requires_grad) != (b.shape, b.dtype, b.requires_grad):
            return f"{what} ({kind(a)}, by the room {kind(b)})"
        elif exact is None:
            if not apart(b, a) <= most:
                return f"{what} (by {apart(b, a):.1e})"
        elif isinstance(exact[0].get(what), torch.Tensor):
            was, now, true = a, b, exact[0][what]
            few = 8 * torch.finfo(a.dtype).eps if a.is_floating_point() else 0
            if not apart(now, true) <= 2 * apart(was, true) + few:
                return f"{what} in {str(a.dtype)[6:]} (off by {apart(now, true):.1e}, before {apart(was, true):.1e})"
    return ""


def reason(error):
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def kind(tensor):
    return f"{str(tensor.dtype)[6:]} {tuple(tensor.shape)}" + ", with a gradient" * tensor.requires_grad


def refusal(base, install, shapes, dtype, call=None):
    """Why the room may not take the place of a module, or "": base is a perturbed copy, install puts the room in, and
    call(module, x) is compared, if it is not the forward."""
    for training in (False, True):
        for shape in shapes:
            what = refusal_in(base.train(training), install, probe(shape, dtype, like(base).device), call)
            if what:
                return f"{what} differs {'in training' if training else 'in evaluation'}"
    return ""


def refusal_in(base, install, x, called=None):
    def call(dtype, swapped=False, seed=0):
        module = to(copy_of(base), dtype)
        if swapped:
            install(module)
            vars(module)["forward"].owner = owner_instead
        return answers(module, [x.to(dtype)], seed, called, wide=dtype == torch.float64 and not swapped)

    exact = call(torch.float64)
    if what := difference(exact, call(torch.float64, seed=1)):
        return f"it is random: from call to call {what}"
    what = difference(exact, call(torch.float64, swapped=True))
    return what or x.dtype != torch.float64 and difference(call(x.dtype), call(x.dtype, swapped=True), exact)


def owner_instead(*args, **kwargs):
    """In the place of the owner's forward while the room is probed: its answers would agree with themselves."""
    raise RuntimeError("its owner would compute this, not the room")


def times_as_fast(before, after, inputs, seconds=0.4):
    """Median of the ratios of the times of `before` and `after`: forward, and backward if any. They are measured in
    turn, and which comes first as well: on a busy machine the second is interrupted more often."""
    once = min(lasts(before, inputs), lasts(before, inputs)) + lasts(after, inputs)
    loops = max(1, round(0.001 / once))
    ratios = []
    for i in range(max(6, min(60, int(seconds / (once * loops))))):
        took = {call: lasts(call, inputs, loops) for call in ((before, after) if i % 2 else (after, before))}
        ratios.append(took[before] / took[after])
    return statistics.median(ratios)


def lasts(call, inputs, loops=1):
    """Seconds of some calls, each forward and backward"""
    wait()
    start = time.perf_counter()
    for _ in range(loops):
        total = [out.sum() for out in leaves_of(call(*map(leaf, inputs)))
                 if isinstance(out, torch.Tensor) and out.requires_grad]
        if total:
            sum(total).backward()
    wait()
    return time.perf_counter() - start


def wait():
    if torch.cuda.is_available():
        torch.cuda.synchronize()
