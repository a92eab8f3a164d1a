"""The examples of genmini.swap run, shortened, and say that nothing but the time changes."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = {"swap_vqvae": ["--batch", "4", "--codes", "16", "--dimension", "8"],
         "swap_made": ["--batch", "8", "--hidden", "20"],
         "swap_flow": ["--batch", "8", "--hidden", "20", "--flows", "2"]}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("folder_of_its_own")
def test_an_example_swaps_verifies_trains_and_draws(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--steps", "3", "--out", "picture.png", *SMALL[name]])
    monkeypatch.syspath_prepend(EXAMPLES)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "before and after agree" in out
    apart = float(re.search(r"3 steps: losses differ by (\S+) of the largest at most", out)[1])
    assert apart < 1e-5  # a loss is a sum of some thousand float32
    assert min(Image.open("picture.png").size) > 300


def test_each_example_is_here():
    assert {path.stem for path in EXAMPLES.glob("swap_*.py")} == {*SMALL}
