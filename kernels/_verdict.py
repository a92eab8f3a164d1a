"""Is a user's kernel right? It is run on the cruel inputs of its operator, and held to the definition in float64.

    report = judge(kernel, "cpu"); report.right; print(report)

Whole numbers must be those of the definition. Other numbers may be off by twice what PyTorch is off, evaluating the
definition in the same dtype, plus one rounding of the largest number, plus what the definition itself moves by when the
numbers of the inputs move by up to 32 roundings of the dtype of sums: a sum of some thousand numbers in any order is as
near as that. Noise of a seed is the same to 3e-6 (kernels/_noise.py). Infinity and NaN must stand where the definition
and PyTorch's evaluation of it have them. Inputs stay as they were, outputs are new tensors in each run, two runs
give the same bits, and numbers that changed in place are read again.
"""

import threading
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from . import _cruel, _library, _source
from ._check import without_autocast
from ._takes import sum_dtype

_one_at_a_time = threading.RLock()  # `poisoned` changes the whole process
MOST = 6  # different findings that a report shows
ROUNDINGS, TRIES, NOISE = 32, 4, 3e-6


class WrongKernel(RuntimeError):
    """A user's kernel is not what its operator defines; the message is the report."""


class Unfit(ValueError):
    """What a user's kernel returned has another kind, shape or dtype than its operator has."""


@dataclass
class Report:
    kernel: str  # the function, its file and line
    operator: str
    backend: str
    device: str
    passed: list = field(default_factory=list)  # cases
    wrong: list = field(default_factory=list)  # (case, what is wrong)

    right = property(lambda report: not report.wrong)

    def __str__(self):
        tried, what = len(self.passed) + len(self.wrong), f"{self.kernel}, backend {self.backend!r} of {self.operator},"
        if self.right:
            return f"{what} is right on all {tried} inputs ({self.device})"
        lines = [f"{what} is wrong on {len(self.wrong)} of {tried} inputs ({self.device}), and is not used:"]
        found = {}
        for case, finding in self.wrong:
            found.setdefault(finding, []).append(case)
        for finding, (case, *others) in list(found.items())[:MOST]:
            lines += [f"  {case}" + f" (so, too: {_words(others)})" * bool(others), f"      {finding}"]
        if len(found) > MOST:
            lines.append(f"  more: {_words(case for cases in list(found.values())[MOST:] for case in cases)}")
        if self.passed:
            lines.append(f"  right: {_words(self.passed)}")
        return "\n".join(lines)


def _words(cases):
    return "; ".join(dict.fromkeys(case.words for case in cases))


def judge(kernel, device):
    report = Report(kernel.name, kernel.operator.name, kernel.backend, str(device))
    with torch.device("cpu"):  # whatever the user's default
        cases = [*_cruel.cases(kernel.operator, kernel.dtypes, device)]
    for case in cases:
        with _one_at_a_time, without_autocast("cpu"):
            finding = judged(kernel, case) or (remembers(kernel, case) if case is cases[0] else "")
        if finding:
            report.wrong.append((case, finding))
        else:
            report.passed.append(case)
    return report


@torch.no_grad()
def judged(kernel, case):
    """What is wrong in this case, or an empty string."""
    operator, before = kernel.operator, each_tensor(torch.clone, case.values)
    try:
        with poisoned():
            found, again = (tensors(kernel.run(case.values)) for _ in range(2))
    except (_library.NotBuilt, NotImplementedError):
        raise  # on all inputs
    except Unfit as error:
        return str(error)
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}{_where(error, kernel.function)}"
    for name, value, then in zip(operator.inputs, case.values, before, strict=True):
        if isinstance(value, torch.Tensor) and not same(value, then):
            return f"it overwrote its input {name}"
    values = each_tensor(torch.Tensor.cpu, before)
    unit = torch.finfo(sum_dtype(*case.dtypes)).eps / 2
    with torch.device("cpu"):
        exact, pytorch = tensors(operator.reference(*in_double(values))), tensors(operator.reference(*values))
        near = [tensors(operator.reference(*moved(values, unit, seed))) for seed in range(TRIES)]
    noise = NOISE if dict(zip(operator.inputs, values, strict=True)).get("seed") is not None else 0.0
    for i, name in enumerate(operator.outputs):
        if finding := compared(found[i].cpu(), exact[i], pytorch[i], [each[i] for each in near], noise):
            return f"{name}{finding}"
        if found[i].numel() and found[i].untyped_storage().data_ptr() == again[i].untyped_storage().data_ptr():
            return f"{name} lies in the memory of the call before, which is overwritten: return a new tensor each time"
        if not same(found[i], again[i]):
            return f"{name} differs between two runs: do two threads write to one place, or is a number never written?"
    return ""


@torch.no_grad()
def remembers(kernel, case):
    """What is wrong where other numbers lie in the memory of an earlier call, as weights do after a step."""
    values = each_tensor(torch.clone, case.values)
    kernel.run(values)
    for value in values:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            value.copy_(value.flip([*range(value.dim())]))
    try:
        found, fresh = (tensors(kernel.run(each)) for each in (values, each_tensor(torch.clone, values)))
    except Exception as error:
        return f"in a later call it raised {type(error).__name__}: {error}{_where(error, kernel.function)}"
    for name, one, other in zip(kernel.operator.outputs, found, fresh, strict=True):
        if not same(one, other):
            return f"{name} is that of an earlier call, whose inputs had other numbers in the same memory"
    return ""


def compared(got, exact, pytorch, near, noise):
    """What is wrong with an output, or an empty string; near: the definition at inputs that are moved a little."""
    if not got.is_floating_point():
        return _told(got != exact, got, exact, "")
    eps, got, exact, pytorch = torch.finfo(got.dtype).eps, got.double(), exact.double(), pytorch.double()
    finite = exact.isfinite() & pytorch.isfinite()
    never = ~exact.isfinite() & ~pytorch.isfinite()  # where one of them is finite, the dtype overflows
    misplaced = never & (got.nan_to_num(7.0) != exact.nan_to_num(7.0)) | finite & ~got.isfinite()
    if misplaced.any() or not finite.any():
        return _told(misplaced, got, exact, "" if got[misplaced].isfinite().all() else "; was it ever written?")
    largest = lambda a: a[finite & a.isfinite()].abs().max().item()
    allowed = 2 * largest(pytorch - exact) + eps * largest(exact) + noise * max(1.0, largest(exact))
    allowed += max(largest(other - exact) for other in near)
    off = torch.where(finite, (got - exact).abs(), 0.0)
    return _told(off > allowed, got, exact, f", off by {off.max():.3g} at most, where {allowed:.3g} is allowed")


def _told(bad, got, exact, more):
    """Where it is wrong first, what was expected there, and what came."""
    if not bad.any():
        return ""
    at = tuple(bad.nonzero()[0].tolist())
    numbers = f"{exact[at].item():.6g}, came {got[at].item():.6g}" if exact.is_floating_point() else (
        f"{exact[at].item()}, came {got[at].item()}")
    place = f"[{', '.join(map(str, at))}]" if at else ""
    return f"{place}: expected {numbers}{more} ({bad.sum()} of {bad.numel()} numbers are wrong)"


@contextmanager
def poisoned():
    """Inside, torch.empty is filled with NaN, or with the largest whole number: what is never written is seen, and what
    a kernels.Source writes outside its tensors, too."""
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=warns or not before)
    _source.guarding = True
    try:
        yield
    finally:
        _source.guarding = False
        torch.use_deterministic_algorithms(before, warn_only=warns)


# ---- tensors --------------------------------------------------------------------------------------------------------


def tensors(outputs):
    return outputs if isinstance(outputs, tuple | list) else (outputs,)


def each_tensor(function, values):
    return [function(value) if isinstance(value, torch.Tensor) else value for value in values]


def same(one, other):
    """The same numbers, NaN at the same places"""
    return torch.equal(one, other) if not one.is_floating_point() else torch.equal(
        one.nan_to_num(7.0), other.nan_to_num(7.0)) and torch.equal(one.isnan(), other.isnan())


def in_double(values):
    return each_tensor(lambda a: a.double() if a.is_floating_point() else a, values)


def moved(values, unit, seed):
    generator = torch.Generator().manual_seed(seed)
    share = lambda a: ROUNDINGS * unit * (2 * torch.rand(a.shape, generator=generator, dtype=a.dtype) - 1)
    return each_tensor(lambda a: a + a * share(a) if a.is_floating_point() else a, in_double(values))


def _where(error, function):
    """The last line of the user's file that the error went through."""
    file = function.__code__.co_filename if hasattr(function, "__code__") else None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", in line {frames[-1].lineno} of {Path(file).name}" if frames else ""
