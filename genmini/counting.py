"""What a room's kernels do to memory, counted on a CPU, by line of their source.

    counted = count("affine_coupling", rung="naive", N=64)     runs the room once, forward and backward
    for launch in counted.launches: print(launch.kernel, launch.rows)

CUDA kernels are counted by the emulator, a warp at a time (csrc/count.py), Triton's by its interpreter, a tile at a
time (kernels/_tiles.py). The sizes are small: counts of a request do not depend on how many requests there are.
docs/counting.md says what each counter means. used by: genmini/cli/count.py
"""

import inspect
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from genmini import files, kernels, ops
from genmini.csrc import count as counters
from genmini.models.made import MADE
from genmini.models.pixelcnn import PixelCNN


@dataclass(frozen=True)
class Counted:
    room: str
    rung: str
    sizes: dict  # of the inputs, by name
    launches: list  # of genmini.csrc.count.Launch, or of Triton's genmini.kernels._tiles.Launch
    source: Path

    in_triton = property(lambda counted: counted.source.suffix == ".py")

    @property
    def files(self):
        """The paths of the sources in which something may be counted, its own first."""
        if not self.in_triton:
            return counters.build.reads(self.source)
        return [*dict.fromkeys([self.source, *(path for one in self.launches for path in one.files.values())])]

    @property
    def names(self):
        """{name of a file in machine code: its name here}, of a .cu"""
        return {path.name: path.name for path in self.files if not counters.of_the_emulator(path)}

    def library(self):
        """What nvcc made of a .cu, or why there is nothing."""
        (found,) = (each for each in kernels.libraries() if (each.name, each.kind) == (self.source.stem, "cuda"))
        return found


# ---- inputs: each function makes them -> a call that runs the operator, and its gradient if it has one ---------------


def affine_coupling(N=64, D=3072):
    return _both(ops.affine_coupling, *(_moved(N, D) for _ in range(3)))


def spline_coupling(N=256, D=32, K=8):
    return _both(ops.spline_coupling, _moved(N, D, scale=2), _moved(N, D, 3 * K - 1))


def nearest_code(N=256, K=256, D=64):
    z, e = _codes(N, K, D)
    return lambda: ops.nearest_code(z, e)


def quantize(N=512, K=64, D=64):
    z, e = (a.requires_grad_() for a in _codes(N, K, D))
    return _both(ops.quantize_step, z, e, torch.randint(K, (N,)))


def code_stats(N=2048, K=64, D=64):
    z, index = torch.randn(N, D), torch.randint(K, (N,))
    return lambda: ops.code_stats(z, index, K)


def nade(N=8, D=64, H=100):
    return _both(ops.nade, torch.randint(2, (N, D)), *_nade(D, H))


def nade_sample(N=8, D=64, H=100):
    u, weights = torch.rand(N, D), _nade(D, H)
    return lambda: ops.nade_sample(u, *weights)


def made_sample(N=16, D=64, H=128):
    model = MADE(D, (H,)).requires_grad_(False)
    return lambda: model.sample(N)


def pixelcnn_sample(N=4, side=6, width=16, blocks=2):
    model = PixelCNN((side, side), width=width, blocks=blocks).eval().requires_grad_(False)
    return lambda: model.sample(N)


def gaussian_kl(N=128, D=2048):
    return _both(ops.gaussian_kl, _moved(N, D), _moved(N, D), torch.randn(N, D))


def group_norm_silu(N=32, C=32, side=14):
    return _both(ops.group_norm_silu, _moved(N, C, side, side), C // 8, _moved(C), _moved(C))


def info_nce(N=256, D=64):
    return _both(ops.info_nce, _moved(N, D), _moved(N, D), torch.tensor(2.0, requires_grad=True))


def masked_conv2d(N=16, C=32, O=32, side=14, k=3):
    return _both(ops.masked_conv2d, _moved(N, C, side, side), _moved(O, C, k, k), _moved(O), "B")


def masked_linear(N=256, K=512, J=512):
    degrees = (torch.arange(n) * 64 // n for n in (K, J))
    return _both(ops.masked_linear, _moved(N, K), _moved(J, K), _moved(J), *degrees)


def softmax_nll(N=16, L=256, P=256):
    return _both(ops.softmax_nll, _moved(N, L, P), torch.randint(L, (N, P)))


def q_sample(N=128, D=3072, T=1000):
    angle = torch.linspace(0.01, 1.56, T, dtype=torch.float64)
    x0, t, eps, alpha, sigma = torch.randn(N, D), torch.randint(T, (N,)), torch.randn(N, D), angle.cos(), angle.sin()
    return lambda: ops.q_sample(x0, t, alpha, sigma, eps)


def ddim_step(N=64, D=3072):
    x, output = torch.randn(N, D), torch.randn(N, D)
    return lambda: ops.ddim_step(x, output, 0.6, 0.8, 0.8, 0.6, threshold="dynamic")


INPUTS = {function.__name__: function for function in (
    affine_coupling, spline_coupling, nearest_code, quantize, code_stats, nade, nade_sample, made_sample,
    pixelcnn_sample, gaussian_kl, group_norm_silu, info_nce, masked_conv2d, masked_linear, softmax_nll, q_sample,
    ddim_step)}


def _moved(*shape, scale=1.0):
    """Standard normal numbers times the scale, of which a gradient is wanted."""
    return (scale * torch.randn(*shape)).requires_grad_()


def _codes(N, K, D):
    """A trained codebook: rows lie about their codes."""
    e = torch.randn(K, D)
    return e[torch.randint(K, (N,))] + 0.7 * torch.randn(N, D), e


def _nade(D, H):
    return [_moved(*size, scale=scale) for size, scale in (((H, D), 0.05), ((D, H), 0.05), ((D,), 0.1), ((H,), 0.1))]


def _both(function, *inputs):
    """A call of the function and of its gradient."""
    moved = [a for a in inputs if isinstance(a, torch.Tensor) and a.requires_grad]

    def call():
        outputs = function(*inputs)
        outputs = [out for out in (outputs if isinstance(outputs, tuple) else (outputs,)) if out.requires_grad]
        torch.autograd.grad(outputs, moved, [torch.ones_like(out) for out in outputs])

    return call


# ---- counting -------------------------------------------------------------------------------------------------------


def count(room, rung=None, l2=math.inf, **sizes):
    """Count one run of a room, on its best rung if none is named. A CUDA source is compiled with counters, once.

    l2: bytes of the second cache, of a room in Triton; it holds everything if they are not given.
    """
    rung, sizes = checked(room, rung, sizes)
    if l2 < math.inf and kernels.ROOMS[room].language != "triton":
        raise ValueError(f"{room} is in CUDA: in its emulator the second cache holds everything")
    this, run = kernels.ROOMS[room], made(room, **sizes)
    source = counters.build.CSRC / f"{this.source}.cu"
    if this.language == "triton":
        kernels.chosen(room, request=f"emulated:{rung}")  # or the reason why Triton cannot interpret here
        source = Path(sys.modules[f"genmini.kernels.{this.source}"].__file__)
    counted = kernels.counting_tiles(l2) if this.language == "triton" else kernels.counting(this.source)
    with counted as launches, kernels.use("emulated", rung):
        run()
    if this.language == "triton":
        launches = [replace(launch, rung=rung) for launch in launches]
    return Counted(room, rung, sizes, merged(launches), source)


def count_own(room, backend, **sizes):
    """Count one run of a room with the kernel that a user registered as this backend: of its .cu (kernels.Source), or
    in Triton."""
    sizes = sizes_of(room, sizes)
    report = kernels.checked(room, backend)  # its cruel inputs are not counted
    if not report.right:
        raise kernels.WrongKernel(str(report))
    run = made(room, **sizes)
    with kernels.counting_sources() as sources, kernels.counting_tiles() as tiles, kernels.use(backend):
        run()
    found = [*sources, *([(tiles[0].source, tiles)] if tiles else [])]
    if len(found) != 1:
        raise ValueError(f"backend {backend!r} of {room} launches kernels of {len(found) or 'no'} sources here: one is "
                         "counted, a .cu that it calls through genmini.Source, or kernels in Triton")
    ((path, launches),) = found
    return Counted(room, backend, sizes, merged(launches), path)


def made(room, **sizes):
    """A call that runs the room, and its gradient if it has one, on inputs of these sizes, which seed 0 draws."""
    sizes = sizes_of(room, sizes)
    torch.manual_seed(0)
    return INPUTS[room](**sizes)


def rooms():
    """The rooms that can be counted."""
    return [*INPUTS]


def checked(room, rung, sizes):
    """-> the rung, all sizes; ValueError if there is no such room, rung or size."""
    if room not in kernels.ROOMS:
        raise ValueError(f"unknown room {room!r}; the rooms are {', '.join(rooms())}")
    rungs = kernels.rungs(room)
    if rung not in (None, *rungs):
        raise ValueError(f"{room} has no rung {rung!r}; its rungs are {', '.join(rungs)}")
    return rung or rungs[-1], sizes_of(room, sizes)


def sizes_of(room, sizes):
    """The sizes of a room's inputs, with these in the place of the small ones; ValueError for one that it has not."""
    if room not in INPUTS:
        raise ValueError(f"{room} has no inputs to be counted with: give it a function in genmini/counting.py")
    known = {name: parameter.default for name, parameter in inspect.signature(INPUTS[room]).parameters.items()}
    if unknown := set(sizes) - set(known):
        raise ValueError(f"{room} has no size {min(unknown)!r}; its sizes are "
                         f"{', '.join(f'{name}={size}' for name, size in known.items())}")
    return known | sizes


def merged(launches):
    """Launches of the same kernel on the same grid as one, in the order of the first."""
    found = {}
    for launch in launches:
        found[launch.key] = found[launch.key] + launch if launch.key in found else launch
    return list(found.values())


# ---- the source -----------------------------------------------------------------------------------------------------


def save(path, counted, prediction=None):
    """Write all counters as JSON, and what is compiled and predicted (genmini/predict.py), if given."""
    more = {} if prediction is None else prediction.as_json()
    content = dict(room=counted.room, rung=counted.rung, sizes=counted.sizes,
                   launches=[launch.as_json() for launch in counted.launches], source=counted.source.name) | more
    files.write(path, json.dumps(content, indent=1).encode(), "--json")


@dataclass
class Line:
    """A line of the source, and the sum of what all launches did there."""

    file: str
    number: int
    text: str
    requests: int  # of memory
    executed: int  # basic blocks that begin here, by warps
    lanes: float  # of a request, or else of a basic block, on average
    sectors: float  # of a request of global memory, on average
    sectors_ideal: float
    wavefronts: float  # of a request of shared memory, on average
    wavefronts_ideal: float


def annotated(counted):
    """The lines of the files in which something was counted, the room's own file first."""
    rows = [row for launch in counted.launches for row in launch.rows]
    branches = [branch for launch in counted.launches for branch in launch.branches]
    files = {path.name: path for path in counted.files}
    seen = {part.file for part in (*rows, *branches)}
    return [_line(file, number, text, [row for row in rows if row.file == file and row.line == number],
                  [branch for branch in branches if branch.file == file and branch.line == number])
            for file, path in files.items() if file in seen
            for number, text in enumerate(path.read_text().splitlines(), 1)]


def _line(file, number, text, rows, branches):
    """Means of the rows weigh each by its requests."""
    mean = lambda of, rows: sum(of(row) * row.inst_executed for row in rows) / max(_executed(rows), 1)
    of_global, of_shared = ([row for row in rows if row.space == space] for space in ("global", "shared"))
    executed = sum(branch.executed for branch in branches)
    lanes = mean(lambda row: row.lanes, rows) if rows else sum(b.lanes for b in branches) / max(executed, 1)
    return Line(file, number, text, _executed(of_global + of_shared), executed, lanes,
                mean(lambda row: row.sectors, of_global), mean(lambda row: row.sectors_ideal, of_global),
                mean(lambda row: row.wavefronts, of_shared), mean(lambda row: row.wavefronts_ideal, of_shared))


def _executed(rows):
    return sum(row.inst_executed for row in rows)
