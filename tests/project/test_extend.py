"""docs/extend.md is true: the model that it adds from scratch trains, draws and passes the test that it shows."""

import re
import sys
from pathlib import Path

import pytest
from check import command

from genmini import models

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
TEXT = (Path(__file__).resolve().parents[2] / "docs" / "extend.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, re.S))


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
