"""A flame graph as SVG, in one file without scripts or network: a box for each event, as wide as its time, under the
event that called it. The title of a box, shown where the mouse rests, has its whole name, time and share. Parts of a
model have boxes of their own where they were `named` while the profile was taken.

    used by: genmini/profiling.py    test: tests/project/test_profile.py
"""

import contextlib
import re
from dataclasses import dataclass, field
from html import escape

from torch.profiler import record_function

WIDTH, HEIGHT, LETTER = 1200, 18, 6.6  # pixels: of the picture, of a box, of a letter
NARROWEST = 0.4  # pixels; a narrower box is left out
NOISE = re.compile(r"^autograd::engine::evaluate_function: ")
STYLE = ("text{font:11px monospace;pointer-events:none}rect{stroke:#fff;stroke-width:.5}"
         "rect:hover{stroke:#000;stroke-width:1}")


@dataclass
class Frame:
    seconds: float = 0.0
    calls: int = 0
    below: dict = field(default_factory=dict)  # name -> Frame


@contextlib.contextmanager
def named(module):
    """Inside, each call of a part of the module carries its name in the profile."""
    hooks, open_ = [], []

    def enter(name):
        def hook(*_):
            open_.append(record_function(name))
            open_[-1].__enter__()

        return hook

    def leave(*_):
        if open_:
            open_.pop().__exit__(None, None, None)

    for name, part in module.named_modules() if module is not None else ():
        label = f"{name or 'model'} ({type(part).__name__})"
        hooks += [part.register_forward_pre_hook(enter(label)), part.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def frames(events, gpu=False):
    """Events and those that they called, of one name under one caller as one -> the Frame of all"""
    top = Frame()
    for event in events:
        _add(top, event, gpu)
    top.seconds = sum(frame.seconds for frame in top.below.values())
    return top


def _add(frame, event, gpu):
    name = NOISE.sub("", event.name)
    if name != event.name and any(child.name == name for child in event.cpu_children):
        for child in event.cpu_children:  # autograd's own frame around the node of this name
            _add(frame, child, gpu)
        return
    here = frame.below.setdefault(name, Frame())
    here.seconds += (event.device_time_total if gpu else event.time_range.elapsed_us()) / 1e6
    here.calls += 1
    for child in event.cpu_children:
        _add(here, child, gpu)


def svg(events, gpu=False, steps=1):
    """The flame graph of a profile's events, each a step's average, as text."""
    top = frames(events, gpu)
    boxes = []
    rows = _boxes(top, 0.0, WIDTH / max(top.seconds, 1e-12), 0, top.seconds, steps, boxes)
    height = HEIGHT * (rows + 1) + 8
    title = f"{1e3 * top.seconds / steps:.3g} ms a step, of {steps}; a box is as wide as its time"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        f'<style>{STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="4" y="13">{title}</text>', *boxes, "</svg>", ""])


def _boxes(frame, x, scale, depth, total, steps, boxes):
    """Append the boxes below a frame -> how many rows they take"""
    rows = depth
    for name, child in frame.below.items():
        width = child.seconds * scale
        if width >= NARROWEST:
            boxes.append(_box(name, child, x, width, depth, total, steps))
            rows = max(rows, depth + 1, _boxes(child, x, scale, depth + 1, total, steps, boxes))
        x += width
    return rows


def _box(name, frame, x, width, depth, total, steps):
    letters = int((width - 4) / LETTER)
    short = name if len(name) <= letters else f"{name[: letters - 1]}…" if letters > 2 else ""
    ms, share = 1e3 * frame.seconds / steps, frame.seconds / total
    about = f"{name}: {ms:.3g} ms a step, {share:.1%}, {frame.calls / steps:g} calls"
    y = HEIGHT * (depth + 1) + 4
    text = f'<text x="{x + 2:.1f}" y="{y + 13}">{escape(short)}</text>' if short else ""
    return (f'<g><title>{escape(about)}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{HEIGHT}" '
            f'fill="{_colour(name)}"/>{text}</g>')


def _colour(name):
    """Rooms blue, operators of PyTorch orange, gradients red, the rest (modules, steps) grey."""
    if name.startswith("genmini::"):
        return "#8ecae6"
    if name.startswith("aten::"):
        return "#ffcf8f"
    return "#f4a3a0" if re.search(r"Backward\d*$|^torch::autograd", name) else "#dde1e4"
