"""What was swapped for which room, what was left and why, and what is only advised: a table, and JSON."""

import json
from dataclasses import asdict, dataclass, field


@dataclass
class Row:
    """What became of one module."""

    name: str  # its name in the model, as named_modules() gives it
    module: str  # its class
    room: str  # the operator that computes it, or could
    state: str  # "swapped", "left", or "advised"
    why: str = ""  # it was left; or the line to write
    expected: float | None = None  # times as fast as before, forward and backward, on a probe of one call
    measured: float | None = None  # the same on the inputs that `verify` was given

    def cells(self):
        times = lambda gain: "" if gain is None else f"{gain:.2f}x"
        return self.name or "(the model)", self.module, self.room, self.state, times(self.expected), \
            times(self.measured), self.why


@dataclass
class Report:
    """The rows of a model, and what `verify` measured of the whole.

        report = genmini.swap(model)
        print(report)                       # a table
        report.swapped, report.left         # rows
        report.json()                       # text

    same: whether outputs and gradients agree, and if not, what differs
    error: the largest difference of outputs and of gradients, before and after, from `judge`, float64 if the model can
    compute in it; relative to the largest number of the tensor
    """

    rows: list = field(default_factory=list)
    measured: float | None = None  # times as fast: one forward and one backward pass of the whole model
    same: bool | None = None
    differs: str = ""
    judge: str = "float64"
    error: dict = field(default_factory=dict)

    @property
    def swapped(self):
        """The modules that a room computes now."""
        return [row for row in self.rows if row.state == "swapped"]

    @property
    def left(self):
        """Those that look like one, and were left: row.why says for what reason."""
        return [row for row in self.rows if row.state == "left"]

    @property
    def advised(self):
        """Those that a room could compute if you write the line row.why."""
        return [row for row in self.rows if row.state == "advised"]

    def json(self):
        """The same as text: `json.loads(report.json())["rows"][0]["room"]`"""
        return json.dumps(asdict(self), indent=1)

    def __str__(self):
        head = "module", "class", "room", "state", "expected", "measured", "why"
        cells = [head, *(row.cells() for row in self.rows)]
        wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in cells]
        if not self.rows:
            nothing = "no module here looks like one that a room computes"
            lines = [nothing if self.same is None else "nothing is swapped"]
        if self.same is not None:
            lines += ["before and after agree" if self.same else f"before and after DIFFER: {self.differs}",
                      f"away from {self.judge}: " + ", ".join(f"{what} {far:.1e}" for what, far in self.error.items())]
        if self.measured is not None:
            lines += [f"the whole model, forward and backward: {self.measured:.2f} times as fast as before"]
        return "\n".join(lines)

    __repr__ = __str__
