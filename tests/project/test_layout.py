"""Tests of the layout: siblings exist under one name, headings stand in one order, imports run one way, and every
equation is cited by its line."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import genmini
from genmini import kernels, layers, ops

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in (ROOT / "kernels").glob("[a-z]*.py"))
MODELS = sorted((ROOT / "genmini" / "models").glob("[a-z]*.py"))
SECTIONS = ["reference", "kernel", "launcher", "gradient", "registration"]
HEADINGS = ["Math", "Shapes", "Traffic", "Tiling"]
each_room = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


def docstring(path):
    return ast.get_docstring(ast.parse(path.read_text()))


@each_room
def test_a_room_has_its_siblings(path):
    name = path.stem
    assert (ROOT / "tests" / "kernels" / f"test_{name}.py").exists()
    assert (ROOT / "bench" / f"bench_{name}.py").exists()
    text = docstring(path)
    for sibling in re.findall(r"(?:csrc|tests|bench|docs)/[\w./-]+\.\w+", text):
        assert (ROOT / sibling).exists(), sibling
    languages = {room.language for room in kernels.ROOMS.values() if room.source == name}
    assert languages, f"{name} registers no operator"
    assert ("cuda" in languages) == (ROOT / "csrc" / f"{name}.cu").exists()
    assert (any(room.cpu == "C++" for room in kernels.ROOMS.values() if room.source == name)
            == (ROOT / "csrc" / f"{name}.cpp").exists())


@each_room
def test_a_room_names_its_relatives_in_one_form(path):
    """kernels: files, a layer or a model that uses them, test, bench, and perhaps a proof."""
    name, text = path.stem, path.read_text()
    lines = docstring(path).partition("\n\nMath\n")[0].rpartition("\n\n")[2].splitlines()
    named = [part.partition(": ") for line in lines for part in re.split(r" {4}", line.removeprefix("    "))]
    assert re.fullmatch(r"kernels( layer| model)? test bench( proof)?", " ".join(label for label, *_ in named)), lines
    relatives = {label: value for label, _, value in named}
    sources = [source for kind in ("cu", "cpp") if (ROOT / (source := f"csrc/{name}.{kind}")).exists()]
    helpers = [f"kernels/{module.rpartition('.')[2]}.py" for module in imported(path)
               if re.fullmatch(r"genmini\.kernels\._\w+", module)]
    helpers = [file for file in dict.fromkeys(helpers) if file.endswith("_cpu.py") or "\n@triton.jit\n" in
               (ROOT / file).read_text()]
    here = ["below"] if "\n@triton.jit\n" in text else []
    assert relatives["kernels"] == ", ".join([*here, *helpers, *sources])
    assert relatives["test"] == f"tests/kernels/test_{name}.py" and relatives["bench"] == f"bench/bench_{name}.py"
    users = [ROOT / "genmini" / "layers.py", *MODELS]
    assert {"layer", "model"} & {*relatives} or not any(f"ops.{name}" in user.read_text() for user in users)
    assert "layer" not in relatives or hasattr(layers, relatives["layer"].removeprefix("genmini.layers."))
    assert "model" not in relatives or ROOT / relatives["model"] in MODELS


@pytest.mark.parametrize("folder", ["genmini", "tests/models", "tests/project"])
def test_files_have_at_most_340_lines(folder):
    lines = {path.name: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {name: count for name, count in lines.items() if count > 340} == {} and len(lines) > 20


def test_every_cuda_source_has_a_room():
    assert {p.stem for p in (ROOT / "csrc").glob("*.cu")} <= {room.source for room in kernels.ROOMS.values()}


@each_room
def test_a_room_reads_in_the_same_order(path):
    text = docstring(path)
    assert text.splitlines()[0].endswith("?"), "a room begins with its question"
    places = [text.index(f"\n{heading}\n") for heading in HEADINGS]
    assert places == sorted(places)
    ruled = re.findall(r"^# ---- (\w+)", path.read_text(), re.M)
    assert [name for name in ruled if name in SECTIONS] == SECTIONS, ruled
    assert "cpu" not in ruled or ruled.index("cpu") == 1, "what is fast in PyTorch follows the reference"


@each_room
def test_a_room_stays_a_room(path):
    assert 75 <= len(path.read_text().splitlines()) <= 280


@each_room
def test_the_wiring_is_short_and_no_function_of_a_room_sees_a_request(path):
    text = path.read_text()
    assert not re.search(r"\brequest\b|\b_backend\b", text)
    section = text[text.index("# ---- registration") :].splitlines()
    first_door = next(i for i, line in enumerate(section) if re.match(r"def [a-z]", line))
    assert first_door <= 30, f"{first_door} lines before the first front door"


def imported(path):
    """Modules that a file imports, absolute: kernels as genmini.kernels."""
    package = ("genmini.kernels" if path.parent.name == "kernels"
               else ".".join(path.relative_to(ROOT).parent.parts)).split(".")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@each_room
def test_a_room_imports_no_room(path):
    others = {f"genmini.kernels.{p.stem}" for p in FILES} - {f"genmini.kernels.{path.stem}"}
    assert not others & set(imported(path))


LAYERS = (  # of genmini: each imports only those before it
    "_version", "kernels", "settings", "files", "means", "attributes", "schedule", "descent", "limits", "operations",
    "calls", "advice", "flame", "data", "ops", "trials", "layers", "swap", "outputs", "densities", "samplers",
    "guidance", "conditions", "nets", "models", "checkpoint", "info", "counting", "own_cu", "cards", "compiling",
    "predict", "folder", "loop", "train", "metrics", "plots", "samples", "profiling", "ladder", "page", "watch",
    "experiment", "steps", "ranking", "ship", "studies", "cli", "__main__",
)


def upwards(layer, modules):
    """Those of the modules that lie above the layer."""
    above = {f"genmini.{name}" for name in LAYERS[LAYERS.index(layer) + 1 :]}
    above |= {"genmini.load"} if "genmini.checkpoint" in above else set()
    return {module for module in modules if ".".join(module.split(".")[:2]) in above}


def test_every_module_has_its_place_among_the_layers():
    inside = (ROOT / "genmini").iterdir()
    found = {path.stem for path in inside if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert sorted(LAYERS) == sorted(found - {"__init__"} | {"kernels"})
    modules = "genmini.models.vae", "genmini.experiment", "genmini.load", "torch.train", "genmini.loops"
    assert upwards("models", modules) == {"genmini.experiment", "genmini.load"} and not upwards("__main__", modules)


@pytest.mark.parametrize("path", sorted([*ROOT.glob("kernels/*.py"), *ROOT.glob("genmini/**/*.py")]),
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_run_one_way(path):
    names = path.relative_to(ROOT).with_suffix("").parts
    layer = "kernels" if names[0] == "kernels" else names[1]
    if layer != "__init__":  # of genmini, which hands on what is above it when it is asked for
        assert not upwards(layer, imported(path))


@pytest.mark.parametrize("path", sorted(ROOT.glob("genmini/**/*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_docstring_names_files_that_are_there_and_users_that_import_it(path):
    text = docstring(path) or ""
    for name in re.findall(r"\b(?:genmini|kernels|csrc|tests|bench|docs)/[\w./-]+\.\w+", text):
        assert (ROOT / name).exists(), name
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for users in re.findall(r"used by: (.*?)(?: {4}|$)", text, re.M):
        for user in re.findall(r"[\w/]+\.py", users):
            user = ROOT / user if "/" in user else ROOT / "genmini" / "models" / user
            assert own in set(imported(user)), user


def test_the_package_lists_what_it_offers_once():
    shown = re.findall(r"^    genmini\.(\w+)  ", genmini.__doc__, re.M)
    assert sorted(shown) == sorted({*genmini.__all__} - {"__version__"})
    assert all(getattr(genmini, name) is not None for name in genmini.__all__)


def test_csrc_and_the_build_know_no_framework():
    for path in [*(ROOT / "csrc").rglob("*.cu"), *(ROOT / "csrc").rglob("*.cpp"), *(ROOT / "csrc").rglob("*.h")]:
        assert not re.search(r"#include.*(torch|ATen|Python\.h|pybind)", path.read_text()), path
    for path in (ROOT / "setup.py", *(ROOT / "csrc").glob("*.py")):
        assert not any(module.split(".")[0] == "torch" for module in imported(path)), path


def test_lines_have_at_most_120_columns():
    """Those of Python are ruff's; a row of a table, as pages of docs have it, is one line."""
    of_csrc = (path for path in (ROOT / "csrc").rglob("*.*") if path.suffix in (".cu", ".cpp", ".h", ".gdb", ".py"))
    for path in (*of_csrc, ROOT / "Makefile", ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob(".ci/run")):
        assert not [line for line in path.read_text().splitlines() if len(line) > 120], path


def test_instructions_that_no_kernel_uses_are_marked():
    kernels_of_csrc = "".join(path.read_text() for path in (ROOT / "csrc").glob("*.cu"))
    lines = re.findall(r"^(?:(?:LOAD_MATRIX|MMA)\(|.*uint32_t (?=to_tf32))(\w+)(.*)",
                       (ROOT / "csrc" / "gpu.h").read_text(), re.M)
    assert len(lines) == 16
    for name, rest in lines:
        assert ("tests only" in rest) == (f"{name}(" not in kernels_of_csrc), name
    kernels_of_csrc += "".join(path.read_text() for path in (ROOT / "csrc").glob("*.h"))  # gpu.h is a kernel's words
    run = [path for pattern in ("tests/kernels/test_emulator*.cu", "csrc/drivers/planted/*.cu")
           for path in ROOT.glob(pattern)]
    run = "".join(path.read_text() for path in run)
    for header, count in (("atomics.h", 11), ("warp.h", 23), ("memory.h", 3), ("words.h", 17)):
        start = r"^(?:(?:ATOMIC|REDUCE|ROUNDED)\(|(?:template <class T> )?(?:COUNTED_CALL )?(?:static inline )?\w+ )"
        text = (ROOT / "csrc" / "emulator" / header).read_text()
        lines = re.findall(start + r"((?:__(?!attribute)|atomic[A-Z]|make_)\w+)[(,](.*)", text, re.M)
        assert len(lines) == count
        for name, rest in lines:
            assert ("tests only" in rest) == (f"{name}(" not in kernels_of_csrc), name
            assert "tests only" not in rest or name in run, f"{name} is run by nobody"


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_every_numbered_equation_is_a_line(path):
    """The line that is equation (4) ends in the comment `# (4)`, `# log of (4)`, or `# inside sigma: (4)` where sigma
    is applied elsewhere. Other comments may mention an equation, but do not count."""
    code = path.read_text().replace(docstring(path), "")
    equations = set(re.findall(r"\((\d+)\)\s*$", docstring(path), re.M))
    assert equations, "a model numbers its equations"
    ends = re.findall(r"^\s*[^#\s].*# (?:log of |inside \w+: )?((?:\(\d+\)(?:, | or |$))+)$", code, re.M)
    lines = set(re.findall(r"\d+", " ".join(ends)))
    assert equations <= lines, f"no line ends in # ({min(equations - lines)})"
    assert equations >= set(re.findall(r"#.*\((\d+)\)", code)), "a comment cites an equation that is not there"


def test_front_doors_are_operators():
    rooms = {name for name in dir(ops) if callable(getattr(ops, name)) and not name.startswith("_")}
    assert set(kernels.ROOMS) <= rooms


def test_the_readme_maps_every_room():
    readme = (ROOT / "README.md").read_text()
    for path in [*FILES, *MODELS]:
        assert str(path.relative_to(ROOT)) in readme, path


def test_the_debugger_of_the_documentation_shows_what_the_source_says():
    """docs/emulator.md shows what gdb prints: each line of code that it shows, and the function of each frame, stand in
    the file that it names. (tests/kernels/test_emulator_tools.py runs the session.)"""
    text = (ROOT / "docs" / "emulator.md").read_text()
    frames = re.findall(r"(\w+)(?:<[^()]*>)? \([^()]*\)\s+at (csrc/[\w./]+):[\d.]+\n(?:[\d.]+\t(.*)\n)?", text)
    assert len(frames) > 5
    for function, path, code in frames:
        source = (ROOT / path).resolve().read_text()
        assert re.search(rf"\b{function}\(", source), (function, path)
        assert not code or code.strip() in source, (path, code)
    for session in text.split("$ GENMINI_EMULATOR_THREADS=1 gdb")[1:]:  # gdb numbers the values that it prints
        values = re.findall(r"^\$(\d+) = ", session, re.M)
        assert values == [str(n) for n in range(1, len(values) + 1)] and values
    planted = (ROOT / "csrc/drivers/planted/barrier_missing_in_a_reduction.cu").read_text().splitlines()
    listed = re.findall(r"^(\d+)\t(.*)$", text, re.M)
    shown = listed + [(number, code) for code, number in re.findall(r"^(.*?) *// line (\d+)$", text, re.M)]
    assert shown
    for number, code in shown:
        assert planted[int(number) - 1].strip() == code.strip(), number


def texts():
    """Every text file of the repository; of a copy that is no git checkout, those in its own folders."""
    listed = (subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
              if (ROOT / ".git").exists() else None)
    if listed and listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        folders = ("csrc", "kernels", "genmini", "tests", "bench", "docs")
        paths = [*ROOT.glob("*.*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    for path in paths:
        if path.is_file() and not {"__pycache__", "lib"} & set(path.parts) and b"\0" not in path.read_bytes():
            yield path


def test_the_repository_speaks_of_the_project_alone():
    seen = 0
    for path in texts():
        seen += 1
        assert not re.search(r"/(home|root|work|tmp|opt)/", path.read_text(errors="ignore")), path
    assert seen > 50
