"""Constants that stand in a room and in its C source are equal: each side is read from its own file."""

import re
from pathlib import Path

import pytest
import torch
from genmini.kernels import _library, affine_coupling, ddim_step, made_sample, q_sample, spline_coupling

CSRC = Path(__file__).resolve().parents[2] / "csrc"


@pytest.mark.parametrize("room, name, file", [(affine_coupling, "CHUNK", "affine_coupling.cu"),
                                              (affine_coupling, "CHUNK", "cpu/threads.h:PART"),
                                              (affine_coupling, "SHORT", "affine_coupling.cu"),
                                              (made_sample, "DEEPEST", "made_sample.cu"),
                                              (spline_coupling, "MOST_BINS", "spline_coupling.cu"),
                                              (spline_coupling, "MOST_BINS", "spline_coupling.cpp")])
def test_a_number_is_that_of_the_source(room, name, file):
    file, _, there = file.partition(":")  # its name there, if it is another
    (value,) = re.findall(rf"^constexpr int(?:64_t)? {there or name} = (\d+);", (CSRC / file).read_text(), re.M)
    assert getattr(room, name) == int(value)


@pytest.mark.parametrize("words, name, file", [(q_sample.TARGETS, "Target", "q_sample.cpp"),
                                               (ddim_step.THRESHOLDS, "Threshold", "ddim_step.cpp")])
def test_words_have_the_order_of_the_enumeration(words, name, file):
    (names,) = re.findall(rf"^enum {name} {{(.+?)}};", (CSRC / file).read_text(), re.M | re.S)
    assert [word.upper() for word in words] == re.findall(r"\w+", names)


def test_dtypes_have_the_codes_of_the_source():
    codes = re.findall(r"if \(dtype == (\d)\) f\((\w+)\(\)\);", (CSRC / "cpu" / "numbers.h").read_text())
    types = {"float": torch.float32, "double": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
    assert _library.DTYPES == {types[name]: int(code) for code, name in codes}
