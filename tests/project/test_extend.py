"""docs/extend.md is true: the model that it adds from scratch trains, draws and passes the test that it shows; the room
is built, passes its proofs and those of the layout, and is timed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import copies
import pytest
from check import command

from genmini import models

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "extend.md").read_text()
BLOCKS = {}  # {path: its text}: a file may stand in several blocks
for path, text in re.findall(r"```(?:python|cpp)\n(?:#|//) (\w+/\S+\.\w+)(?:, .*?)?\n(.*?)```", TEXT, re.S):
    BLOCKS[path] = BLOCKS.get(path, "") + text


def test_the_model_of_the_documentation(capsys, tmp_path, monkeypatch):
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "mixture.py").write_text(BLOCKS["genmini/models/mixture.py"])
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path / "added")])
    monkeypatch.setattr(models, "MODELS", (*models.MODELS, "mixture"))
    try:
        shown = {}
        exec(compile(BLOCKS["tests/models/test_mixture.py"], "test_mixture.py", "exec"), shown)
        (law,) = (shown[name] for name in shown if name.startswith("test_"))
        law()
        for line in re.findall(r"^genmini (.*mixture.*)$", TEXT, re.M):
            fast = ["--steps", "20"] if line.startswith("train") else []
            status, out, err = command(capsys, *line.split(), *fast)
            assert status == 0 and "mixture" in out + line, err
        assert (models.find("mixture").cannot("encode") == "Mixture has no latent code"
                and "Mixture has no latent code" in TEXT)
    finally:
        sys.modules.pop("genmini.models.mixture", None)


def test_the_room_of_the_documentation(tmp_path):
    """In a copy of the project: the five files and the line of ops.py are added, then the commands shown run."""
    for name in ("csrc", "kernels", "genmini", "tests", "bench"):
        copies.copy(name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    added = re.findall(r"^\| `(\S*square\.\w+)` \|", TEXT, re.M)
    assert len(added) == 5
    for path in added:
        (tmp_path / path).write_text(BLOCKS[path])
    with (tmp_path / "genmini" / "ops.py").open("a") as file:
        file.write(BLOCKS["genmini/ops.py"])
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "quick", "OMP_NUM_THREADS": "1"}

    def run(*words):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    commands = re.findall(r"^(?:python|pytest) .*square.*$", TEXT[TEXT.index("### 4. The proofs") :], re.M)
    built, proofs, layout = (line.split() for line in commands)
    run(*built[1:])
    for words in (proofs, layout):
        shown = run("-m", *words, "-q", "-p", "no:cacheprovider", "-p", "no:xdist")
        assert re.fullmatch(r"\d+ passed, .*|\d+ passed in .*", shown.splitlines()[-1]), shown
    once = ("import sys; sys.path[:0] = ['.', 'bench']\nimport bench_square, measure, torch\n"
            "measure.copy_bandwidth, torch.compile = lambda: 1e10, lambda function: function\n"
            "measure.times.__defaults__ = 0.0, 1\n"
            "for row in bench_square.rows(): print(row['who'])")
    assert run("-c", once).count("genmini ") == 4
