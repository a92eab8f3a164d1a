"""Which operators of PyTorch a room could serve: found in the order in which a step calls them, with the line to write.

    for swap in found(calls): print(swap.room, swap.line, swap.seconds)
    for sentence in advice(profile): print(sentence)

A room replaces several operators in a row, so a pattern is a regular expression over their names, with a space behind
each; what moves nothing (views) is left out before. A pattern that many other computations have in common also asks for
shapes. What a pattern finds is a hint, not a proof: it sees names and shapes, not which tensor goes where.

What a swap gains is timed by genmini/trials.py.

    used by: genmini/profiling.py, genmini/cli/profile.py    test: tests/project/test_advice.py
"""

import re
from dataclasses import dataclass, field
from math import prod

from genmini import kernels, operations

LEAST, MUCH = 0.02, 0.25  # shares of a step that are worth a sentence
WINS = 1.1  # times as fast: less is within the noise
VIEWS = {
    "as_strided", "chunk", "contiguous", "detach", "expand", "expand_as", "flatten", "movedim", "narrow", "numpy_T",
    "permute", "reshape", "select", "slice", "split", "squeeze", "t", "to", "transpose", "unbind", "unflatten",
    "unsqueeze", "view", "view_as",
}


@dataclass(frozen=True)
class Swap:
    room: str
    line: str  # to write
    operators: tuple  # that it replaces
    seconds: float  # of these, forward and backward
    before: float | None = None  # of a step: by PyTorch, timed alone; None: not timed
    after: float | None = None  # of a step: by the room
    learns: bool = False  # forward and backward
    matches: tuple = field(default=(), repr=False, compare=False)  # the calls, where they match

    rows = property(lambda swap: {row for calls in swap.matches for call in calls for row in call.rows})
    gains = property(lambda swap: swap.before is not None and swap.before > WINS * swap.after)


@dataclass(frozen=True)
class Pattern:
    room: str
    names: str
    line: object  # function of the calls that match -> the line
    fits: object = lambda calls: True


def _named(calls, *names):
    return next(call for call in calls if call.name in names)


def _norm(calls):
    norm = _named(calls, "group_norm")
    return f"layers.GroupNormSiLU({norm.scalars[1]}, {norm.shapes[0][1]})"


def _linear(calls):
    J, K = calls[-1].shapes[1]
    return f"layers.MaskedLinear({K}, {J}, in_degree, out_degree)"


def _conv(calls):
    O, C, *sides = calls[-1].shapes[1]
    return f"layers.MaskedConv2d({C}, {O}, {tuple(sides)})"


def _of_classes(calls):
    """Each target is the number of a class, and none is weighed or smoothed."""
    first, last = calls[0], calls[-1]
    logits = first.shapes[0]
    if first.name == "log_softmax":
        dim = next((number for number in first.scalars if type(number) is int), 1)
        of_one = prod(next(filter(None, last.shapes[1:]), [0])) * (logits[dim:] or [1])[0] == prod(logits)
        return len(logits) > 1 and of_one and not (last.name.startswith("nll_loss") and any(last.shapes[2:]))
    _, target, *more = first.shapes
    smooth = any(isinstance(number, float) and number > 0 for number in first.scalars)
    return len(logits) > 1 and target == logits[:1] + logits[2:] and not any(more) and not smooth


def _least_of_rows(calls):
    """The least of each row, over products of rows with one matrix, or over Euclidean distances from its rows."""
    product = next((call for call in calls if call.name in ("cdist", "mm", "matmul", "addmm")), None)
    if product is None or not any(type(number) is int for number in calls[-1].scalars):  # of no dimension: of all
        return False
    euclidean = product.name != "cdist" or product.scalars[2:3] in ([], [2])
    rows, matrix = ([[]] + [shape for shape in product.shapes if shape])[-2:]
    return euclidean and len(rows) > 1 and len(matrix) == 2


def _of_pairs(calls):
    """Two losses of one matrix, of N rows against N rows."""
    product, *losses = (call for call in calls if call.name in ("matmul", "mm", "cross_entropy_loss"))
    N = product.shapes[0][:1]
    return len(product.shapes[0]) == 2 and all(loss.shapes[0] == N + N and _of_classes([loss]) for loss in losses)


def _of_a_layer(calls):
    """A mask times the weight of a convolution that keeps height and width, of all channels."""
    x, (_, C, *sides) = calls[-1].shapes[:2]
    stride, *padding, dilation = [of for of in calls[-1].scalars if isinstance(of, list)] or [[1], [1]]
    return (_masks_weight(calls) and len(x) == 4 and x[1] == C and {*sides} <= {1, 3, 5, 7}
            and {*stride, *dilation} == {1} and padding in ([], [[side // 2 for side in sides]]))


def _sums_of_codes(calls):
    """One-hot columns times rows: with one-hot rows it would be a look-up."""
    one_hot, product = calls
    return len(one_hot.shapes[0]) == 1 and product.shapes[0][1:] == one_hot.shapes[0] and len(product.shapes[1]) == 2


def _masks_weight(calls):
    """The product before the layer has the shape of the layer's weight: a mask."""
    mask, layer = calls
    return mask.shapes[0] == layer.shapes[1] == mask.shapes[1]


def _of_one_shape(calls):
    products = [call for call in calls if call.name in ("exp", "mul", "add")]
    return len({str(call.shapes[0]) for call in products}) == 1 and len(calls[0].shapes[0]) > 1


def _of_times(calls):
    """One number for each example scales images."""
    first = next(call for call in calls if call.name == "mul")
    small, large = sorted(map(list, first.shapes[:2]), key=lambda shape: sum(shape))
    return len(large) > 2 and len(small) == len(large) and small[0] == large[0] and {*small[1:]} == {1} != {*large[1:]}


PATTERNS = [  # the first that matches takes the calls
    Pattern("group_norm_silu", r"group_norm (?:mul |add )*silu ", _norm),
    Pattern("nearest_code", r"(?:cdist |(?:mm |matmul |addmm |addcmul |mul |add |sub |rsub |neg )+)(?:argmin |min )",
            lambda calls: "ops.nearest_code(z, codebook)",
            _least_of_rows),
    Pattern("info_nce", r"(?:matmul |mm )(?:mul |div |exp |arange )*cross_entropy_loss (?:arange )?cross_entropy_loss ",
            lambda calls: "ops.info_nce(a, b, scale)", _of_pairs),
    Pattern("softmax_nll", r"cross_entropy_loss |log_softmax (?:nll_loss(?:_nd|2d)? |gather |take_along_dim )",
            lambda calls: "ops.softmax_nll(logits, target)", _of_classes),
    Pattern("masked_linear", r"mul linear ", _linear, _masks_weight),
    Pattern("masked_conv2d", r"mul conv2d ", _conv, _of_a_layer),
    Pattern("gaussian_kl", r"(?:randn_like )?(?:mul |div )?exp (?:randn_like )?mul add ",
            lambda calls: "z, kl = ops.gaussian_kl(mu, log_var)",
            lambda calls: any(call.name == "randn_like" for call in calls) and _of_one_shape(calls)),
    Pattern("affine_coupling", r"exp mul add ", lambda calls: "y, logdet = ops.affine_coupling(x, s, t)",
            _of_one_shape),
    Pattern("q_sample", r"(?:randn_like )?mul (?:randn_like )?mul add ",
            lambda calls: "x_t, y = ops.q_sample(x0, t, alpha, sigma)", _of_times),
    Pattern("code_stats", r"one_hot (?:mm |matmul )", lambda calls: "count, total = ops.code_stats(z, index, K)",
            _sums_of_codes),
]


def found(calls):
    """The calls of a step in their order -> [Swap], one for each room and line, the longest first."""
    calls = [call for call in calls if call.name not in VIEWS]
    text = "".join(f"{call.name} " for call in calls)
    starts = [0]
    for call in calls:
        starts.append(starts[-1] + len(call.name) + 1)
    at, taken, sums = {start: i for i, start in enumerate(starts)}, set(), {}
    for pattern in PATTERNS:
        for match in re.finditer(rf"(?<!\S)(?:{pattern.names})", text):
            places = range(at[match.start()], at[match.end()])
            matched = [calls[i] for i in places]
            if taken & set(places) or not pattern.fits(matched):
                continue
            taken |= set(places)
            key = pattern.room, pattern.line(matched), tuple(dict.fromkeys(call.name for call in matched))
            sums.setdefault(key, []).append(matched)
    swaps = [Swap(*key, sum(call.seconds for calls in matches for call in calls), matches=tuple(matches))
             for key, matches in sums.items()]
    return sorted(swaps, key=lambda swap: -swap.seconds)


# ---- advice ----------------------------------------------------------------------------------------------------------


def advice(profile):
    """Sentences on what would make a step of this profile faster, each with the share of the step that it concerns."""
    of_step = lambda seconds: f"{seconds / profile.seconds:.0%} of the step"
    for swap in profile.swaps:
        if swap.seconds > LEAST * profile.seconds:
            yield (f"{of_step(swap.seconds)}, {', '.join(swap.operators)}: the room {swap.room} does these in one, "
                   f"{swap.line}" + _gain(swap, profile))
    rooms = {}
    for row in profile.rows:
        rooms[row.room] = rooms.get(row.room, 0) + row.seconds
    for room, seconds in sorted(rooms.items(), key=lambda item: -item[1]):
        taken = kernels.chosen(room, profile.device) if room else None
        if taken and taken.backend == "reference" and seconds > LEAST * profile.seconds:
            yield f"{of_step(seconds)}, {room}: PyTorch runs its definition here ({taken.why})"
    elementwise = sum(row.seconds for row in profile.rows if operations.is_elementwise(row.operator))
    if elementwise > MUCH * profile.seconds:
        yield f"{of_step(elementwise)}, elementwise operators: torch.compile makes one of several in a row"
    if profile.between > MUCH * profile.seconds:
        yield (f"{of_step(profile.between)} passes between operators, in Python and in autograd: a larger batch, or "
               "torch.compile, makes more of each call")


def _gain(swap, profile):
    """What was timed of both, and what is predicted from that."""
    if swap.before is None:
        return ""
    both = (f"\nmeasured here on these shapes, forward{' and backward' * swap.learns}: "
            f"{1e3 * swap.before:.3g} ms by PyTorch, {1e3 * swap.after:.3g} ms by the room")
    if not swap.gains:
        return f"{both}\nnothing to gain on this machine"
    saved = (1 - swap.after / swap.before) * swap.seconds / profile.seconds
    return f"{both}\npredicted from this ratio and that share: a step shorter by {saved:.0%}"
