"""Fixtures for tests of the emulator: its library in each build, and with threads in each order."""

import ctypes

import pytest
from emulated import BUILDS, load

ORDERS = {"forward": (0, 0), "reverse": (1, 0), "random": (2, 7)}


@pytest.fixture(scope="module", params=BUILDS)
def library(request):
    return load(request.param)


@pytest.fixture(scope="module")
def fibers():
    return load("fibers")


@pytest.fixture(params=ORDERS)
def gpu(request, library):
    """The library, with threads run forward, in reverse or in random order."""
    mode, seed = ORDERS[request.param]
    library.gpu_order(ctypes.c_int(mode), ctypes.c_uint64(seed))
    library.order = request.param
    return library
