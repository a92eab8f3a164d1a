"""Tests of the checks of settings: what is allowed passes, and what is not is named, with what is allowed."""

import pytest
from check_models import of_series

from genmini import models
from genmini.settings import REPEATED, SEVERAL, flag, image, number, one_of, share, whole
from genmini.train import Loop

INF, NAN = float("inf"), float("nan")


def test_what_is_allowed_passes():
    whole(hidden=(1, 10**20), width=1, multiples=())
    whole(2, 256, levels=2, more=256)
    number(least=0, below=1, zero=0, dropout=0.999)
    number(above=0, rate=1e-300)
    share(betas=(0.0, 0.9))
    number(anything=-1e300)
    share(dropout=0.0, average=0.99)
    one_of(("x", "y"), save="y")
    flag(gated=True, direct=False)
    assert image((3, 4)) == (1, 3, 4) and image((2, 3, 4)) == (2, 3, 4)


@pytest.mark.parametrize("check, message", [
    (lambda: whole(hidden=0), "hidden must be at least 1, got 0"),
    (lambda: whole(hidden=(4, 0)), "hidden must be at least 1, got (4, 0)"),
    (lambda: whole(latent=(2, 3)), "latent must be a whole number, at least 1, got (2, 3)"),
    (lambda: number(least=0, decay=(0.1,)), "decay must be a number, at least 0, got (0.1,)"),
    (lambda: whole(hidden=2.0), "hidden must be a whole number, at least 1, got 2.0"),
    (lambda: whole(hidden=True), "hidden must be a whole number, at least 1, got True"),
    (lambda: whole(0, width=3, blocks=-1), "blocks must be at least 0, got -1"),
    (lambda: whole(2, 256, levels=257), "levels must be 2 to 256, got 257"),
    (lambda: whole(2, 256, levels=None), "levels must be a whole number, 2 to 256, got None"),
    (lambda: number(above=0, bound=0.0), "bound must be above 0, got 0.0"),
    (lambda: number(above=0, bound=INF), "bound must be above 0, got inf"),
    (lambda: number(least=0, beta=NAN), "beta must be at least 0, got nan"),
    (lambda: number(beta=NAN), "beta must be finite, got nan"),
    (lambda: number(above=0, below=0.5, margin=0.5), "margin must be above 0 and below 0.5, got 0.5"),
    (lambda: number(least=0, most=1, miss=2.0), "miss must be at least 0 and at most 1, got 2.0"),
    (lambda: number(least=0, beta="1"), "beta must be a number, at least 0, got '1'"),
    (lambda: share(dropout=1), "dropout must be at least 0 and below 1, got 1"),
    (lambda: one_of(("x", "y"), save="z"), "save must be 'x' or 'y', got 'z'"),
    (lambda: one_of(("a", "b", "c"), kind=0), "kind must be 'a', 'b' or 'c', got 0"),
    (lambda: flag(gated=True, resample="False"), "resample must be True or False, got 'False'"),
    (lambda: image((3,)), "shape must be (H, W) or (C, H, W), got (3,)"),
])
def test_what_is_not_is_named(check, message):
    with pytest.raises(ValueError) as error:
        check()
    assert str(error.value) == message


def family_and_shape(name):
    family = models.find(name)
    return family, (100,) if of_series(family) or family.of_text else (8, 8)


# what no model can be made with, by the name of the setting
WRONG = {
    **dict.fromkeys(("hidden", "width", "heads", "latent", "K", "dim", "layers", "couplings", "components", "features",
                     "masks", "prior_width"), (0, -1)),
    **dict.fromkeys(("blocks", "prior_blocks", "scales", "halvings", "classes", "revive", "p"), (-1, -2)),
    **dict.fromkeys(("dropout", "prior_dropout", "average"), (-0.1, 1.0, NAN)),
    **dict.fromkeys(("binary", "miss"), (-0.1, 1.1, NAN)),
    **dict.fromkeys(("beta", "free_bits", "gamma"), (-1.0, NAN, INF)),
    **dict.fromkeys(("bound", "delta", "alpha"), (0.0, -1.0, NAN, INF)),
    "first": (0,), "kernel": (0,), "levels": (1, 0),
}


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_refuses_what_no_network_can_have(name):
    """Python and the command line refuse the same settings: those of the constructor."""
    family, shape = family_and_shape(name)
    taken = family(shape).settings.keys()
    for key in WRONG.keys() & taken - ({"levels"} if of_series(family) else set()):
        for value in WRONG[key]:
            with pytest.raises(ValueError, match=f"{key} must be .*, got "):
                family(shape, **{key: value})


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_refuses_several_numbers_where_it_takes_one(name):
    family, shape = family_and_shape(name)
    for key, value in family(shape).settings.items():
        if isinstance(value, int | float):
            for several in ((value, value), [value]):
                with pytest.raises(ValueError, match=f"^{key} must be one value, got"):
                    family(shape, **{key: several})


def test_the_loop_refuses_what_no_training_can_have():
    for wrong in (dict(steps=0), dict(decay=-0.1), dict(decay=NAN), dict(rate=0.0), dict(clip=-1.0), dict(every=0)):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"{name} must be .*, got"):
            Loop(**dict(steps=1) | wrong).check(None)


@pytest.mark.parametrize("name", models.MODELS)
def test_what_a_model_makes_one_by_one_has_a_bound(name):
    """2^70 blocks, or a tuple of 100,000 layers, would be made without end."""
    family, shape = family_and_shape(name)
    settings = family(shape).settings
    for setting in REPEATED & settings.keys():
        with pytest.raises(ValueError, match=f"{setting} must be at most 1000, got {2**70}"):
            family(shape, **{setting: 2**70})
        whole(**{setting: 1000})
    for setting in SEVERAL & settings.keys() - {"shape"}:
        if isinstance(settings[setting], tuple):
            with pytest.raises(ValueError, match=f"{setting} must be at most 1000 numbers, got 100000"):
                family(shape, **{setting: (1,) * 100_000})


def test_a_diffusion_has_a_bounded_number_of_times():
    with pytest.raises(ValueError, match="T must be 2 to 100000, got 1000000000"):
        models.find("diffusion")((8, 8), T=10**9)
