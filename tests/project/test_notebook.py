"""Tests of examples/practical.ipynb: its cells run one after another, shortened, and each picture that it shows is
there. Jupyter is not needed."""

import json
import re
import sys
import types
from pathlib import Path

import pytest

from genmini import checkpoint

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "practical.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
TEXT = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown"]


def test_it_is_small_and_stored_without_what_it_printed():
    assert NOTEBOOK.stat().st_size < 20_000 and len({cell["id"] for cell in CELLS}) == len(CELLS)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in CELLS)
    assert all(len(line) <= 120 for text in (*CODE, *TEXT) for line in text.splitlines())
    for text in TEXT:
        for link in re.findall(r"\]\(([\w./-]+)\)", text):
            assert (NOTEBOOK.parent / link).exists(), link


@pytest.mark.usefixtures("folder_of_its_own")
def test_its_cells_run_in_order_and_show_their_pictures(monkeypatch, capsys, tmp_path):
    shown = []
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(version_info=(8, 24)))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(Image=lambda path: shown.append(path)))
    names = {}
    for code in CODE:
        before = len(shown)
        exec(compile(code, str(NOTEBOOK), "exec"), names)
        if code.startswith("STEPS = "):
            names["STEPS"] = 3
        else:
            assert len(shown) == before + 1 and (tmp_path / shown[-1]).stat().st_size > 5000, code
    assert len(shown) == len({*shown}) == len(CODE) - 1
    out = capsys.readouterr().out
    assert [f"{d:2} numbers: squared error" in out for d in (2, 5, 10, 20)] == 4 * [True]
    assert out.count("images whose nearest neighbour is of their class") == 2 and "elbo" in out
    latent = {run: checkpoint.read(tmp_path / "runs/practical" / run)["settings"]["latent"]
              for run in ("autoencoder-2", "vae-2", "vae-5", "vae-10", "vae-20")}
    assert [*latent.values()] == [2, 2, 5, 10, 20]
    assert names["line"].shape == names["pixels"].shape == (9, 8, 8)
