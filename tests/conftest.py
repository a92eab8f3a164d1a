"""Set up pytest: Triton's interpreter where there is no GPU, hypothesis' profiles, NaN in new memory, a fresh backend.

The interpreter must be chosen before anything imports triton.
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
from hypothesis import HealthCheck, Phase, settings

from genmini import kernels, models

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("default", deadline=None, derandomize=True, database=None, max_examples=20,
                          suppress_health_check=QUIET)
settings.register_profile("thorough", deadline=None, database=None, max_examples=100, print_blob=True,
                          suppress_health_check=QUIET)
# "quick" does not shrink what fails
settings.register_profile("quick", parent=settings.get_profile("default"), phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(config, items):
    """Tests marked `thorough`, `docs` or `peers` run when they are asked for: by `make test-thorough` and so on."""
    wanted = config.option.markexpr or ""
    all_of_them = os.environ.get("GENMINI_THOROUGH") == "1"
    waits = {name: name not in wanted for name in ("docs", "peers")}
    waits["thorough"] = not all_of_them and "thorough" not in wanted
    later = [item for item in items if any(skip and item.get_closest_marker(name) for name, skip in waits.items())]
    config.hook.pytest_deselected(items=later)
    items[:] = [item for item in items if item not in later]


def called(function, arguments):
    return function(**arguments)


# Python keeps the frames of calls in chunks of 16 KB, and maps a new chunk for a call that does not fit, until it
# returns. In a loop just below the end of a chunk that is two system calls a call, up to half of the time of a test on
# Triton's interpreter. This frame is so large that a chunk of a megabyte is made for it, and all further ones fit.
called.__code__ = called.__code__.replace(co_stacksize=2**16)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    called(pyfuncitem.obj, {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames})
    return True


@pytest.fixture(autouse=True)
def poisoned_and_fresh():
    """Fill torch.empty with NaN, so that an element never written is seen; start each test on the default backend."""
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    with kernels.use(os.environ.get("GENMINI_BACKEND", "auto")):
        yield


@pytest.fixture
def only_these(monkeypatch):
    """A function that leaves only these recipes, {model: {name: recipe}}. The commit is clean, whatever this checkout
    is; afterwards there are as many threads as before."""
    import measure

    def leave(recipes):
        monkeypatch.setattr(models, "MODELS", tuple(recipes))
        monkeypatch.setattr(models, "recipes", lambda name: recipes[name])
        monkeypatch.setattr(measure, "commit", lambda: "abc1234")
        return recipes

    threads = torch.get_num_threads()
    yield leave
    torch.set_num_threads(threads)


@pytest.fixture
def folder_of_its_own(tmp_path, monkeypatch):
    """Runs land in a folder of the test; one thread, and as many as before afterwards."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
