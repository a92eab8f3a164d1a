"""Where does the time of a step go? Ranked hot spots, each beside what this machine could do.

    found = genmini.profile(model, x)                  a training step of a copy of the model: loss, gradients, AdamW
    found = genmini.profile(lambda: model.sample(64))  or whatever a function does
    for row in found.rows: print(row.operator, row.seconds, row.of_bound)
    found.trace("step.json");  found.flame("step.svg");  found.memory("step.png")

torch.profiler measures. What is added here: time goes to the outermost operator, as `aten::linear` or a room's
`genmini::masked_linear`, and to none twice; what passes between operators (Python, autograd) is a row of its own, so
that shares sum to one; bytes and operations are counted from shapes (genmini/operations.py), and the bound is the
longer of bytes / copy bandwidth and operations / rate of a matrix product, as genmini/limits.py measures them now.
Each time is the 20 % quantile over the steps, which load from elsewhere changes least. On a GPU the time of an operator
is that of its kernels, and what is between is the time in which the GPU waits.

    used by: genmini/cli/profile.py, genmini/__init__.py    test: tests/project/test_profile.py
"""

import bisect
import copy
import math
import re
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, record_function

from genmini import advice, calls, files, flame, kernels, limits, operations, plots, trials
from genmini.data import Data
from genmini.loop import Loop, Training
from genmini.models._model import Model

WARM = 2  # steps before the first that is measured
STEP = "genmini: a step"
AUTOGRAD = re.compile(r"autograd::engine::evaluate_function: |torch::autograd::|.*Backward\d*$")


@dataclass(frozen=True)
class Row:
    """An operator on inputs of certain shapes, in a step."""

    operator: str  # as aten::linear
    shapes: str  # as 64x100, 50x100
    calls: float
    seconds: float
    share: float  # of the step
    bytes: int | None = None  # of all calls; None: not counted
    operations: int | None = None
    bound: float | None = None  # seconds that this machine takes at least
    room: str = ""  # of genmini, that serves it
    could: str = ""  # a room that could (genmini/advice.py)
    kernels: dict = field(default_factory=dict, hash=False)  # of a GPU: {name: seconds}

    of_bound = property(lambda row: row.bound / row.seconds if row.bound and row.seconds else None)


@dataclass(frozen=True)
class Profile:
    device: str
    steps: int
    plain: float  # seconds of a step without the profiler
    seconds: float  # of a step under the profiler: the sum of the rows and of what is between
    rows: list  # the longest first
    between: float  # seconds of a step that no operator takes
    swaps: list  # genmini.advice.Swap: what rooms could serve
    limits: dict  # what the machine reaches: "copy" in bytes a second, operations a second by dtype
    profiler: object = field(repr=False, hash=False)

    @property
    def held(self):
        """Along the profile, [(nanoseconds, bytes held above what was held before)]."""
        return limits.allocations(self.profiler, self.device)

    @property
    def peak(self):
        return max((held for _, held in self.held), default=0)

    @property
    def kernel(self):
        """The name of the GPU kernel that takes longest, as ncu takes it; "" on a CPU."""
        sums = {}
        for row in self.rows:
            for name, seconds in row.kernels.items():
                if not name.startswith(("Memcpy ", "Memset ")):
                    sums[name] = sums.get(name, 0) + seconds
        return bare(max(sums, key=sums.get, default=""))

    def trace(self, path):
        """Write a trace for chrome://tracing or ui.perfetto.dev."""
        with tempfile.TemporaryDirectory() as folder:  # PyTorch raises nothing where it cannot write
            whole = Path(folder) / "trace.json"
            self.profiler.export_chrome_trace(str(whole))
            files.write(path, whole.read_bytes(), "--trace")

    def flame(self, path):
        """Write a flame graph as SVG: modules, operators and what these call, by their time."""
        files.write(path, flame.svg(roots(self.profiler), _on_gpu(self.device), self.steps).encode(), "--flame")

    def memory(self, path):
        """Write a picture of the memory that tensors take, over time, as PNG."""
        figure, ((panel,),) = plots.new_figure(1, 1, 9.0, 3.5)
        begin = self.held[0][0] if self.held else 0
        panel.plot([(ns - begin) / 1e6 for ns, _ in self.held], [held / 1e6 for _, held in self.held],
                   drawstyle="steps-post", color="tab:blue", linewidth=0.8)
        panel.set(xlabel=f"ms, of {self.steps} steps under the profiler", ylabel="MB above what was held before",
                  title=f"memory of tensors on {self.device}: at most {self.peak / 1e6:.3g} MB")
        plots.save(figure, path, "--memory")


# ---- what is profiled ------------------------------------------------------------------------------------------------


def profile(subject, inputs=(), *, loss=None, steps=5):
    """Profile training steps of a model, or calls of any function, the subject -> Profile

    inputs: a tensor, or a tuple of them: of a genmini model x, or x and y. Another nn.Module is called with them; loss:
    a function of what it returns (default: the mean of its squares). The model itself does not learn: a copy does. What
    is no module is called, with these inputs.
    """
    inputs = inputs if isinstance(inputs, tuple | list) else (inputs,)
    if not callable(subject):
        raise ValueError(f"profile takes a module or a function, got {type(subject).__name__}")
    if steps < 1:
        raise ValueError(f"profile takes steps from 1, got {steps}")
    if not isinstance(subject, nn.Module):
        return measured(lambda: subject(*inputs), _device(inputs), steps)
    with torch.inference_mode(False), torch.enable_grad():
        learns = copy.deepcopy(subject)
        if isinstance(learns, Model):
            return measured(training_step(learns, _as_data(learns, *inputs)), str(learns.device), steps, learns)
        return measured(_step(learns, inputs, loss), _device((*learns.parameters(), *inputs)), steps, learns)


def training_step(model, train, seed=0, **settings):
    """A function that makes one step of training, as genmini.train does. settings: those of genmini.loop.Loop"""
    if not model.cannot("fit"):
        return lambda: model.fit(train.x, **settings)
    loop = Loop(**dict(steps=1000, batch=len(train)) | settings)
    loop.check(train)
    return Training(model, train, train, loop, None, seed=seed, run=None, watch=None, measure=None, progress=False).step


def _as_data(model, x, y=None):
    y = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    return Data("inputs", "train", x, y, model.levels)


def _step(network, inputs, loss):
    moved = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(moved, fused=True) if moved else None
    loss = loss or (lambda out: sum(part.float().square().mean() for part in torch.utils._pytree.tree_leaves(out)
                                    if isinstance(part, torch.Tensor) and part.is_floating_point()))

    def step():
        out = loss(network(*inputs))
        if optimiser:
            if not torch.is_tensor(out) or not out.requires_grad:
                raise ValueError("the model returns nothing that has a gradient: give a loss, or a function")
            optimiser.zero_grad()
            out.backward()
            optimiser.step()

    return step


def _device(values):
    return next((str(value.device) for value in values if isinstance(value, torch.Tensor)), "cpu")


# ---- measuring -------------------------------------------------------------------------------------------------------


def measured(step, device="cpu", steps=5, module=None):
    """Profile a function that makes one step -> Profile. module: whose parts the flame graph names"""
    wait = torch.cuda.synchronize if _on_gpu(device) else lambda: None
    repeated(step, min(WARM, steps))
    times = []
    for _ in range(steps):
        wait()
        began = time.perf_counter()
        step()
        wait()
        times.append(time.perf_counter() - began)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * _on_gpu(device)
    watched = lambda: torch.profiler.profile(activities=activities, record_shapes=True, profile_memory=True)
    with watched():  # it prepares itself
        step()
    with flame.named(module), watched() as profiler:
        for _ in range(steps):
            with record_function(STEP):
                step()
                wait()
    return _summed(profiler, device, steps, _quick(times))


def repeated(step, steps):
    for _ in range(steps):
        step()


def _summed(profiler, device, steps, plain):
    """The Profile: for each operator on each shapes, and for what is between, the 20 % quantile over the steps."""
    gpu, top = _on_gpu(device), roots(profiler)
    begun = [event for event in top if event.name == STEP]
    starts = [event.time_range.start for event in begun]
    every = [(event, forward, bisect.bisect(starts, event.time_range.start) - 1)
             for root in top for event, forward in outermost(root)]
    groups, rest = {}, [event.time_range.elapsed_us() / 1e6 for event in begun]
    for event, _, i in every:
        groups.setdefault(calls.row(event), []).append((i, event))
        rest[i] -= _seconds(event, gpu)
    spent = {key: _of_a_step(((i, _seconds(event, gpu)) for i, event in group), steps) for key, group in groups.items()}
    between = max(_quick(rest), 0.0)  # negative where operators run at once
    total = between + sum(spent.values())
    costs = {key: _all(cost(event) for _, event in group) for key, group in groups.items()}
    reached = _reached(groups, costs, device)
    rows = []
    for key, group in groups.items():
        counted, more = costs[key], {}
        if counted:
            bound = max(counted.bytes / reached["copy"], counted.operations / reached.get(counted.dtype, math.inf))
            more = dict(bytes=counted.bytes // steps, operations=counted.operations // steps, bound=bound / steps)
        rows.append(Row(*key, len(group) / steps, spent[key], spent[key] / total, **more, room=room_of(key[0]),
                        kernels=_kernels(group, steps) if gpu else {}))
    of_a_call = {key: seconds * steps / len(groups[key]) for key, seconds in spent.items()}
    swaps = [trials.timed(swap, device) if swap.seconds > advice.LEAST * total else swap
             for swap in advice.found(calls.calls(every, of_a_call, steps - 1))]
    could = {row: swap.room for swap in reversed(swaps) for row in swap.rows}
    rows = [replace(row, could=could.get((row.operator, row.shapes), "")) for row in rows]
    rows.sort(key=lambda row: -row.seconds)
    return Profile(device, steps, plain, total, rows, between, swaps, reached, profiler)


def _of_a_step(events, steps):
    sums = [0.0] * steps
    for i, seconds in events:
        sums[i] += seconds
    return _quick(sums)


def _quick(seconds):
    return sorted(seconds)[int(0.2 * (len(seconds) - 1))]


def _reached(groups, costs, device):
    """{"copy": bytes a second, dtype: operations a second}, for dtypes in which something is multiplied. Where there
    are convolutions, the rate is that of a product or of a convolution: libraries differ."""
    dense = [key for key, cost in costs.items() if cost and cost.operations > cost.bytes]
    reached = {"copy": limits.copy_bandwidth(device, quick=True)}
    for dtype in {costs[key].dtype for key in dense}:
        reached[dtype] = limits.matmul_rate(device, dtype, quick=True)
        if any("conv" in operator for operator, _ in dense):
            reached[dtype] = max(reached[dtype], limits.convolution_rate(device, dtype, quick=True))
    return reached


def roots(profiler):
    """The events of the CPU that no other holds, in their order."""
    events = profiler.events()
    if events and "input_dtypes" not in vars(events[0]):  # PyTorch 2.11 leaves dtypes with the library below
        found = {event.correlation_id(): event.dtypes() for event in profiler.profiler.kineto_results.events()
                 if event.dtypes()}
        for event in events:
            event.input_dtypes = found.get(event.id, [])
    return [event for event in events if event.cpu_parent is None and event.device_type.name == "CPU"
            and not event.name.startswith(("[memory]", "ProfilerStep"))]


def outermost(event, forward=True):
    """The operators under an event that no other operator called, and whether each belongs to no gradient and to no
    step of an optimiser."""
    if "::" in event.name and not event.is_user_annotation and not AUTOGRAD.match(event.name):
        yield event, forward
        return
    forward = forward and not AUTOGRAD.match(event.name) and not event.name.startswith("Optimizer.")
    for child in event.cpu_children:
        yield from outermost(child, forward)


def cost(event):
    """What the operator costs at least; where it is not known, what those cost that it calls. None: nothing is known"""
    allocated = event.device_memory_usage or event.cpu_memory_usage
    shapes = vars(event).get("structured_input_shapes") or event.input_shapes  # the first has those in lists, too
    own = operations.of(event.name, shapes, event.input_dtypes, event.concrete_inputs, allocated)
    if own and (own.operations or not event.name.startswith("genmini::")):
        return own
    below = _all(map(cost, event.cpu_children))
    if own and below:  # of a room written in PyTorch the operations are those that it calls
        return operations.Cost(own.bytes, below.operations, below.dtype)
    if below and below.bytes < operations.inputs(shapes, event.input_dtypes):
        return None  # of what it calls, only a part is known
    return own or below


def _all(costs):
    known = [cost for cost in costs if cost is not None]
    return sum(known[1:], known[0]) if known else None


def _seconds(event, gpu):
    return (event.device_time_total if gpu else event.time_range.elapsed_us()) / 1e6


def _kernels(group, steps):
    sums = {}
    for _, event in group:
        for one in (event, *calls.below(event)):
            for kernel in one.kernels:
                sums[kernel.name] = sums.get(kernel.name, 0) + kernel.duration / 1e6 / steps
    return sums


def bare(kernel):
    """"void at::(anonymous namespace)::f<float, (bool)1>(int)" -> "f", its function, as ncu names it"""
    name, before = kernel.replace("(anonymous namespace)::", ""), ""
    while name != before:
        name, before = re.sub(r"<[^<>()]*>|\([^<>()]*\)", "", name), name
    return name.split(" ")[-1].rpartition("::")[2]


def room_of(operator):
    """The room that serves an operator: gaussian_kl of genmini::gaussian_kl_backward, "" of those of PyTorch."""
    space, _, name = operator.partition("::")
    return max((room for room in kernels.ROOMS if name.startswith(room)), key=len, default="") * (space == "genmini")


def _on_gpu(device):
    return torch.device(device).type == "cuda"
