"""Cruel inputs of an operator, on which a user's kernel must agree with the definition (kernels/_verdict.py).

    for case in cases(operator, (torch.float32,), "cpu"): case.words, case.values

What an operator takes says how its inputs look (kernels/_takes.py): each letter is a size, which is 0, 1, odd, and
longer than a block of threads in turn. Numbers are normal; then huge, tiny, all zero; then tensors lie transposed or at
odd addresses in memory, and those that may be absent are. SPECS says of an operator what its types do not: which
integers, which sizes it cannot have, and where its equation is hardest (ties, for a search).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from . import _operator, _takes

PRIMES = (13, 17, 7, 3, 5)  # the sizes of the letters of an operator, in their order
LONG = 131  # just beyond a block of 128 threads


@dataclass(frozen=True)
class Case:
    words: str  # what is cruel here
    sizes: dict  # of the letters
    dtypes: tuple
    values: list  # of all inputs, in the order of the schema

    def __str__(self):
        sizes = " ".join(f"{letter}={size}" for letter, size in self.sizes.items())
        return f"{self.words}: {sizes}, {' and '.join(str(d).removeprefix('torch.') for d in self.dtypes)}"


@dataclass(frozen=True)
class Spec:
    """What the types of an operator do not say of its inputs."""

    below: dict = field(default_factory=dict)  # an input of integers -> a letter or a number that they are below
    others: Callable = lambda size: [{}]  # of the sizes: the inputs that types do not say; each dict is a case
    full: str = ""  # letters that are at least 1
    small: dict = field(default_factory=dict)  # letters that are never long, and their sizes
    stars: tuple = ()  # the extents that have no letter, in their order
    tame: str = ""  # inputs that are never huge: the equation takes their exponential
    absent: tuple = ()  # the inputs that are absent together
    more: Callable = lambda draw: []  # of Draw: (words, sizes, values by name)
    after: Callable = lambda named: {}  # inputs that follow from others


class Draw:
    """Numbers of one seed, which leave those of the user as they are."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(15)

    def numbers(self, *shape):
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def below(self, end, *shape):
        return torch.randint(max(end, 1), shape, generator=self.generator)


def cases(operator, dtypes, device="cpu"):
    """-> the cases of an operator, for each of these dtypes"""
    spec = spec_of(operator)
    terms = _takes.terms_of(operator.takes, operator.inputs, tensors_of(operator), operator.name,
                            operator.outputs)
    letters = list(dict.fromkeys(e for *_, extents in sorted(terms) for e in extents if e.isalpha()))
    usual = {letter: next_size for letter, next_size in zip(letters, itertools.cycle(PRIMES))} | spec.small
    words = sorted({word for _, _, word, _ in terms} & {"T", "U"})
    for of_words in itertools.product(dtypes, repeat=len(words)):
        make = Maker(operator, spec, terms, dict(zip(words, of_words, strict=True)), device)
        yield make("odd sizes", usual)
        first, *more = spec.others(usual)
        for i, other in enumerate(more, 1):
            words_ = ", ".join(f"{name}={value}" for name, value in other.items() if first.get(name, ()) is not value)
            yield make(words_, usual, others=i)
        for letter in (letter for letter in letters if letter not in spec.full.split()):
            yield make(f"{letter} = 0", usual | {letter: 0})
        yield make("all sizes 1", dict.fromkeys(letters, 1) | spec.small)
        for letter in (letter for letter in letters if letter not in spec.small):
            yield make(f"long {letter}", usual | {letter: LONG})
        huge = 1e2 if torch.float16 in of_words else 1e15  # squares of these, summed, still fit
        yield make("huge numbers", usual, scale=huge)
        yield make("tiny numbers", usual, scale=1 / huge)
        yield make("zeros", usual, scale=0.0)
        yield make("transposed in memory", usual, layout=transposed)
        yield make("at odd addresses", usual, layout=offset)
        if spec.absent:
            yield make(f"{' and '.join(spec.absent)} absent", usual, absent=spec.absent)
        for words_, sizes, named in spec.more(Draw()):
            yield make(words_, sizes, given=named)


def spec_of(operator):
    if operator.name not in SPECS:
        raise ValueError(f"{operator.name} cannot be checked: there are no cruel inputs for it; check=False takes a "
                         f"kernel as it is. Checked are {', '.join(sorted(SPECS))}")
    return SPECS[operator.name]


def tensors_of(operator):
    return [name for name in operator.inputs if "Tensor" in operator.types[name]]


@dataclass
class Maker:
    operator: _operator.Operator
    spec: Spec
    terms: list
    dtypes: dict  # of T and U
    device: str

    def __call__(self, words, sizes, scale=1.0, layout=None, absent=(), others=0, given=None):
        draw, stars, named = Draw(), itertools.cycle(self.spec.stars or (1,)), dict(given or {})
        for _, name, word, extents in sorted(self.terms):
            shape = [next(stars) if e == "*" else int(e) if e.isdigit() else sizes[e] for e in extents]
            if name in named:
                value = named[name]
            elif word in ("T", "U", "R"):
                value = draw.numbers(*shape) * (scale if name not in self.spec.tame.split() else 1.0)
            else:
                end = self.spec.below.get(name, 5)
                value = draw.below(sizes.get(end, end), *shape)
            value = value.to(self.dtype(word)).to(self.device)
            named[name] = layout(value) if layout and value.dim() else value
        named |= dict.fromkeys(absent)
        named |= self.spec.others(sizes)[others]
        named |= self.spec.after(named)
        named = {name: a.to(self.device) if isinstance(a, torch.Tensor) else a for name, a in named.items()}
        return Case(words, sizes, tuple(self.dtypes.values()), self.operator.in_order(named))

    def dtype(self, word):
        if word in ("T", "U"):
            return self.dtypes[word]
        if word == "R":
            return _takes.sum_dtype(*self.dtypes.values())
        return torch.int64 if word in ("int", "host") else getattr(torch, word)


def transposed(tensor):
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def offset(tensor):
    """One number beyond the start of its memory: wide loads may not read it."""
    larger = tensor.new_zeros(tensor.numel() + 1)
    larger[1:] = tensor.flatten()
    return larger[1:].view(tensor.shape)


# ---- what types do not say ------------------------------------------------------------------------------------------


def hard_to_tell(draw):
    """Codes that are equal, rows in the middle of two codes, and codes that float32 cannot tell apart."""
    e = draw.below(3, 7, 3).double()
    z = draw.below(3, 9, 3).double()
    yield "equal codes: the lowest k counts", dict(N=9, K=14, D=3), dict(z=z, e=e.repeat(2, 1))
    middle = torch.cat([e, e + 2])
    yield "rows between codes: the lowest k counts", dict(N=7, K=14, D=3), dict(z=e + 1, e=middle)
    z = 5 * torch.arange(8).double()[:, None] + torch.arange(2)
    near = torch.stack([z + torch.tensor([1000, k / 8]) for k in (1, 0)], 1).view(16, 2)  # at 10^6 + k^2 / 64
    yield "codes that are nearly as near: sum in double", dict(N=8, K=16, D=2), dict(z=z, e=near)
    nan = draw.numbers(4, 3)
    nan[1, 2], nan[2, 0] = float("nan"), float("inf")
    yield "NaN and infinity: index 0", dict(N=4, K=3, D=3), dict(z=nan, e=draw.numbers(3, 3))


def _forward(name, outputs, *inputs):
    """Inputs of a backward that are outputs of the forward's definition"""

    def after(named):
        forward = _operator.OPERATORS[name]
        found = forward.reference(*(named[one] for one in forward.inputs))
        return {one: found[forward.outputs.index(one)] for one in outputs}

    return after


def _kinds(**more):
    return lambda size: [dict(kind=kind, colours=1, **more) for kind in ("A", "B")]


def _groups(size):
    return [dict(G=G, eps=1e-5) for G in dict.fromkeys((size["C"], 1))]


def _noise(size, name="eps"):
    return [dict(seed=None), {name: None, "seed": torch.tensor(7)}]


def _step(size):
    numbers = dict(w=1.0, p=1.25, q=-0.75, a=0.75, k=0.25, c=0.5, quantile=0.9)
    return [dict(threshold=threshold, **numbers, **noise) for noise in _noise(size, "noise")
            for threshold in ("none", "static", "dynamic")]


CODES, DEGREES, NEVER_HUGE = dict(index="K"), dict(in_degree=6, out_degree=6), "gamma beta scale shift"
INVERSE = lambda size: [dict(bound=3.0, least=1e-2, inverse=inverse) for inverse in (False, True)]
STRICT = lambda size: [dict(strict=False), dict(strict=True)]
BETA = lambda size: [dict(beta=0.25)]
SIDES = dict(kh=3, kw=5)
SPECS = {
    "affine_coupling": Spec(tame="s"),
    "affine_coupling_inverse": Spec(tame="s"),
    "affine_coupling_backward": Spec(tame="s", absent=("t",)),
    "affine_coupling_inverse_backward": Spec(tame="s"),
    "code_stats": Spec(dict(index=11), lambda size: [dict(K=11)]),
    "ddim_step": Spec(others=_step, absent=("unconditional",)),
    "gaussian_kl": Spec(others=_noise, tame="log_var"),
    "gaussian_kl_backward": Spec(others=_noise, tame="log_var"),
    "group_norm_silu": Spec(others=_groups, full="C P", tame=NEVER_HUGE, absent=("scale", "shift")),
    "group_norm_silu_backward": Spec(others=_groups, full="C P", tame=NEVER_HUGE, absent=("scale", "shift"),
                                     after=_forward("group_norm_silu", ["stats"])),
    "info_nce": Spec(full="N D", tame="a b scale"),
    "info_nce_backward": Spec(full="N D", tame="a b scale", after=_forward("info_nce", ["stats"])),
    "masked_conv2d": Spec(others=_kinds(), full="C O H W kh kw", small=SIDES, absent=("bias",)),
    "masked_conv2d_backward": Spec(others=_kinds(), full="C O H W kh kw", small=SIDES),
    "masked_conv2d_dw": Spec(others=_kinds(**SIDES), full="C O H W"),
    "masked_conv2d_turned": Spec(others=_kinds(), full="C O H W kh kw", small=SIDES),
    "masked_linear": Spec(DEGREES, STRICT, absent=("bias",)),
    "masked_linear_dw": Spec(DEGREES, STRICT),
    "nade": Spec(dict(x=2), full="D H", tame="W V b c"),
    "nade_backward": Spec(dict(x=2), full="D H", tame="W V c"),
    "nearest_code": Spec(full="K D", more=hard_to_tell),
    "q_sample": Spec(dict(t="times"), lambda size: [
        dict(target=target, **noise) for noise in _noise(size) for target in ("none", "v", "eps")
        if target != "eps" or noise["seed"] is not None], full="times"),  # a given eps is not asked for again
    "quantize": Spec(CODES, BETA, full="K D"),
    "quantize_de": Spec(CODES, full="K D"),
    "quantize_dz": Spec(CODES, BETA, full="K D"),
    "softmax_nll": Spec(dict(target="L"), full="L"),
    "softmax_nll_backward": Spec(dict(target="L"), full="L", after=_forward("softmax_nll", ["m", "log_s"])),
    "spline_coupling": Spec(others=INVERSE, stars=(8,), tame="w"),
    "spline_coupling_backward": Spec(others=INVERSE, stars=(8,), tame="w"),
}
