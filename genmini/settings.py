"""Checks of settings. A message names the setting, what it takes and what it got.

    whole(hidden=hidden, width=width)                  whole numbers of at least 1; of SEVERAL, each is checked
    whole(2, 256, levels=levels)                       2 to 256
    number(above=0, rate=rate)                         finite numbers
    share(dropout=dropout)                             at least 0 and below 1
    one_of(("x", "y"), save=save)
    flag(gated=gated)                                  True or False
    image(shape)                                       (H, W) or (C, H, W)

    used by: genmini/models, genmini/nets, genmini/densities.py    test: tests/project/test_settings.py
"""

import math
from numbers import Integral, Real

SEVERAL = {"betas", "hidden", "multiples", "shape"}  # settings that may be a tuple of numbers
REPEATED = {"blocks", "couplings", "halvings", "layers", "masks", "prior_blocks", "scales"}  # made one by one
MOST = 1000  # of either: a damaged run.json may ask for 2^70 blocks


def whole(least=1, most=None, /, **settings):
    """Each is a whole number of at least `least`, and of at most `most` if there is one."""
    allowed = f"at least {least}" if most is None else f"{least} to {most}"
    _check(settings, Integral, "a whole number", allowed, lambda v: least <= v and (most is None or v <= most))
    for name in REPEATED & settings.keys():
        if settings[name] > MOST:
            raise ValueError(f"{name} must be at most {MOST}, got {settings[name]}")


def number(*, least=-math.inf, above=-math.inf, below=math.inf, most=math.inf, **settings):
    """Each is a finite number within these limits."""
    limits = {"at least": least, "above": above, "below": below, "at most": most}
    allowed = " and ".join(f"{words} {limit:g}" for words, limit in limits.items() if math.isfinite(limit))
    fits = lambda v: math.isfinite(v) and least <= v <= most and above < v < below
    _check(settings, Real, "a number", allowed or "finite", fits)


def share(**settings):
    number(least=0, below=1, **settings)


def one_of(options, **settings):
    """Each is one of these words."""
    for name, value in settings.items():
        if not isinstance(value, str) or value not in options:
            *rest, last = map(repr, options)
            raise ValueError(f"{name} must be {', '.join(rest)} or {last}, got {value!r}")


def flag(**settings):
    for name, value in settings.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, got {value!r}")


def image(shape):
    """The shape of an image -> (C, H, W)"""
    if len(shape) not in (2, 3):
        raise ValueError(f"shape must be (H, W) or (C, H, W), got {shape}")
    return (1, *shape)[-3:]


def _check(settings, kind, words, allowed, fits):
    for name, value in settings.items():
        if name in SEVERAL and isinstance(value, tuple | list) and len(value) > MOST:
            raise ValueError(f"{name} must be at most {MOST} numbers, got {len(value)}")
        for v in value if name in SEVERAL and isinstance(value, tuple | list) else (value,):
            if isinstance(v, bool) or not isinstance(v, kind):
                raise ValueError(f"{name} must be {words}, {allowed}, got {value!r}")
            if not fits(v):
                raise ValueError(f"{name} must be {allowed}, got {value!r}")
