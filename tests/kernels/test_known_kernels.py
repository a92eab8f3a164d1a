"""Kernels that many people know are counted as they are brought (genmini/own_cu.py): their results are right, none is
accused that is right, and each is that lacks a barrier or a fence."""

from pathlib import Path

import pytest
from emulated import count, sanitize

from genmini import own_cu

SOURCE = Path(__file__).with_suffix(".cu")
pytestmark = pytest.mark.skipif(bool(count.missing()), reason=count.missing())


def launches(monkeypatch, bug):
    monkeypatch.setenv("XDG_CACHE_HOME", str(sanitize.CACHE.parent))
    monkeypatch.setenv("BUG", "1") if bug else monkeypatch.delenv("BUG", raising=False)
    counted = own_cu.count(SOURCE)
    assert counted.printed == "cudaEventElapsedTime: nothing is timed here; the time is NaN\nnan\n"
    assert all(launch.elsewhere == 0 for launch in counted.launches)
    return {launch.kernel: launch for launch in counted.launches}


def test_what_is_right_is_right_and_not_accused(monkeypatch):
    found = launches(monkeypatch, bug=False)
    assert list(found) == ["interleaved<float>", "by_shuffles<float, 128u>", "single_pass<false>", "scan<false>",
                           "histogram<false>", "product<16>", "softmax<false>", "layer_norm", "saxpy<float>", "saxpy",
                           "derivative", "filter", "largest", "much_shared", "words"]
    assert {name: launch.hazards for name, launch in found.items() if launch.hazards} == {}
    of_shared = [row for row in found["scan<false>"].rows if row.space == "shared"]
    assert all(row.wavefronts == row.wavefronts_ideal for row in of_shared) and len(of_shared) > 8
    zero, = (row for row in found["histogram<false>"].rows if (row.what, row.space) == ("store", "shared"))
    assert (zero.size, zero.lanes) == (16, 32)  # a memset
    assert {row.size for row in found["layer_norm"].rows if row.space == "global"} == {16}
    assert [row.line for row in found["derivative"].rows if row.what == "load" and row.space == "global"] == sorted(
        number for number, text in enumerate(SOURCE.read_text().splitlines(), 1) if "f[" in text and "s[at" in text)


def test_what_lacks_a_barrier_or_a_fence_is_accused(monkeypatch):
    found = launches(monkeypatch, bug=True)
    accused = {name: {hazard.mistake for hazard in launch.hazards} for name, launch in found.items() if launch.hazards}
    assert set(accused) == {"single_pass<true>", "scan<true>", "histogram<true>", "softmax<true>"}
    assert all("race" in mistakes for mistakes in accused.values())
    words = SOURCE.read_text().splitlines()
    one, other = (next(number for number, text in enumerate(words, 1) if f"// single_pass: {part}" in text)
                  for part in ("one", "other"))
    assert (one, other) in [(race.one[1], race.other[1]) for race in found["single_pass<true>"].hazards]
