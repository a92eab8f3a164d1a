"""Tests of README and docs/: links lead somewhere, examples run, commands do what is written beside them."""

import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from check import command
from PIL import Image

from genmini import data, models
from genmini.data import captions, shapes
from genmini.models import diffusion
from genmini.studies import (
    _few_labels,
    caption,
    complete,
    edit,
    guide,
    inpaint,
    optimum,
    restore,
    semi_supervised,
    sweep,
    vary,
    warp,
)
from genmini.studies import words as of_words

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = [page for page in PAGES if page.stem != "extend"]  # its blocks are files: tests/project/test_extend.py
MAKEFILE = (ROOT / "Makefile").read_text()
(DEMO,) = (shlex.split(line) for line in re.findall(r"^demo:.*\n\t\$\(PY\) -m genmini (.*)", MAKEFILE, re.M))
EXAMPLES = [(page.name, i, text) for page in RUN
            for i, text in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@each_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([\w./-]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


@each_page
def test_text_is_at_most_120_columns_wide(page):
    """Rows of a table and links cannot be broken; README's lines are short all the same."""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        assert len(line) <= 120 or (page.name != "README.md" and (line.startswith("|") or "](" in line)), number


def test_models_stand_in_the_order_of_the_course():
    """In README's map and in the table of docs/data.md, as in `genmini list`."""
    readme, table = (ROOT / "README.md").read_text(), (ROOT / "docs" / "data.md").read_text()
    assert tuple(re.findall(r"^\| .*\[\w+\]\(genmini/models/(\w+)\.py\)", readme, re.M)) == models.MODELS
    assert tuple(re.findall(r"^\| `(\w+)` \| (?:yes|no) \|", table, re.M)) == models.MODELS


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("name, i, example", EXAMPLES, ids=[f"{name}-{i}" for name, i, _ in EXAMPLES])
def test_an_example_runs(name, i, example, tmp_path):
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def commands(page):
    """The commands `genmini ...` of a page's code blocks, without the comment behind; \\ continues a line."""
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.S | re.M)).replace("\\\n", " ")
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^genmini .*", blocks, re.M)]


def test_every_command_of_genmini_is_shown():
    shown = {words[0] for page in PAGES for words in commands(page)}
    assert {path.stem for path in (ROOT / "genmini" / "cli").glob("[a-z]*.py")} <= shown


def test_every_make_target_that_a_page_shows_is_there():
    targets = {*re.findall(r"^([a-z-]+):", MAKEFILE, re.M)}
    shown = {target for page in PAGES for target in re.findall(r"(?:`|^|> )make ([a-z-]+)", page.read_text(), re.M)}
    assert {"demo", "test", "bench", "gpu"} <= shown and shown - {"table-"} <= targets  # `make table-...`


def short(words):
    """The command, with a training of few steps, and on few scenes of shapes."""
    trains = (words[0] == "train" and models.find(words[1]).cannot("fit")
              or words[0] == "study" and words[1] in ("latent-dim", "alpha"))
    drawn = words[0] == "train" and data.family(words[words.index("--data") + 1]) == "shapes"
    for option in ("--steps", "--scenes"):
        words = [word for i, word in enumerate(words) if option not in (word, words[i - 1] if i else "")]
    return [*words, *(["--steps", "2"] if trains else []), *(["--scenes", "2000"] if drawn else [])]


@pytest.fixture
def small(monkeypatch):
    """Few examples, draws and steps of studies and of samplers: here a command runs, tests of its own say what it
    finds."""
    path = diffusion.Diffusion.path
    monkeypatch.setattr(diffusion.Diffusion, "path", lambda self, steps: path(self, min(steps, 8)))
    for counts in (shapes.COUNT, captions.COUNT):
        for split, n in dict(train=2000, valid=100, test=30).items():  # of shapes, recipes say how many train has
            monkeypatch.setitem(counts, split, n)
    for study, name, n in ((caption, "N", 2), (complete, "IMAGES", 10), (edit, "N", 3), (guide, "N", 20),
                           (inpaint, "IMAGES", 3), (of_words, "N", 50), (optimum, "STEPS", 20),
                           (restore, "IMAGES", 10), (semi_supervised, "DRAWS", 2), (sweep, "EACH", 2),
                           (sweep, "TEXTS", sweep.TEXTS[:3]), (sweep, "WEIGHTS", (1.0, 3.0)), (vary, "N", 4),
                           (warp, "SIDE", 40)):
        monkeypatch.setattr(study, name, n)
    for which in (_few_labels.OF_CODES, _few_labels.OF_PIXELS):
        monkeypatch.setitem(which, "steps", 2)


def own_data(folder):
    """What the pages call `fashion`, an IDX set with labels, `photos`, images in a sub-folder for each class, and
    `shop.csv`, a series."""
    noise = np.random.RandomState(0)
    sold = "\n".join(f"{day},{20 + 5 * (day % 7) + noise.randn():.2f}" for day in range(200))
    (folder / "shop.csv").write_text(f"day,sold\n{sold}\n")
    (folder / "fashion").mkdir()
    for name, N in (("train", 60), ("t10k", 20)):
        images = struct.pack(">4I", 0x803, N, 28, 28) + noise.randint(256, size=(N, 28, 28)).astype(np.uint8).tobytes()
        labels = struct.pack(">2I", 0x801, N) + (np.arange(N) % 10).astype(np.uint8).tobytes()
        (folder / "fashion" / f"{name}-images-idx3-ubyte").write_bytes(images)
        (folder / "fashion" / f"{name}-labels-idx1-ubyte").write_bytes(labels)
    for i in range(60):
        path = folder / "photos" / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.randint(256, size=(20, 24, 3)).astype(np.uint8)).save(path)


def trained(words):
    """(the name of the run that a command trains, or None; the command without the option that names it)"""
    if words[0] != "train":
        return None, words
    if "--out" not in words:
        return f"runs/{words[1]}-{words[words.index('--data') + 1]}", words
    at = words.index("--out")
    return words[at + 1], words[:at] + words[at + 2:]


def scripts():
    """[(page, commands)]: the commands of each page, with short trainings, in scripts that share no run.

    What was shown before is left out: a command that did the same, with runs of equal trainings; and a training of
    such a run that nothing left in its script takes.
    """
    found, shown = [], set()
    for page in RUN:
        lines = [short(words) for words in [*commands(page), *([DEMO] if page.name == "README.md" else [])]]
        runs, does, groups = {}, [], []  # {name: number of its training}, what a line does, [(names, numbers of lines)]
        for i, words in enumerate(lines):
            name, rest = trained(words)
            takes = set() if name else {word for word in words if word in runs}
            does.append(tuple(does[runs[word]] if word in takes else word for word in rest))
            if name and name not in runs:  # a run without a name of its own is numbered where there is one already
                runs[name], takes = i, {*takes, name}
            joined = [(takes, [i]), *(group for group in groups if group[0] & takes)]
            groups = [group for group in groups if not group[0] & takes]
            groups.append((set().union(*(names for names, _ in joined)), sum((numbers for _, numbers in joined), [])))
        for names, numbers in sorted(groups, key=lambda group: min(group[1])):
            left = [i for i in numbers if does[i] not in shown]
            left += [runs[name] for name in names if any(name in lines[i] for i in left)]
            shown |= {does[i] for i in left}
            found += [(page, [lines[i] for i in sorted({*left})])] if left else []
    return found


def test_scripts_share_no_run_and_repeat_nothing(tmp_path, monkeypatch):
    pages = [tmp_path / "1.md", tmp_path / "2.md"]
    pages[0].write_text("```\ngenmini train vae --data digits\ngenmini list\ngenmini train vae --data digits\n"
                        "genmini train gan --data digits --out a\ngenmini study grid runs/vae-digits\n```")
    pages[1].write_text("```\ngenmini train gan --data digits --out vae\ngenmini train vae --data digits --out b\n"
                        "genmini list\ngenmini study grid b\ngenmini sample b\ngenmini train cvae --data digits\n"
                        "genmini study progress runs/cvae-digits vae\ngenmini study grid a\n```")
    monkeypatch.setattr(sys.modules[__name__], "RUN", pages)
    assert [(page.stem, "; ".join(map(shlex.join, script)).replace(" --data digits", "").replace(" --steps 2", ""))
            for page, script in scripts()] == [
        ("1", "train vae; study grid runs/vae-digits"), ("1", "list"), ("1", "train gan --out a"),
        ("2", "train gan --out vae; train cvae; study progress runs/cvae-digits vae"),
        ("2", "train vae --out b; sample b"), ("2", "study grid a")]


@pytest.mark.docs
@pytest.mark.parametrize("page, script", [pytest.param(*each, id=f"{each[0].name}-{i}")
                                          for i, each in enumerate(scripts())])
def test_the_commands_of_a_page_run_one_after_the_other(page, script, tmp_path, monkeypatch, capsys, small):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    own_data(tmp_path)
    for words in script:
        status, _, err = command(capsys, *words)
        assert status == 0, f"{page.name}: genmini {shlex.join(words)}: {err}"
