"""csrc/build.py: what is built, when it is built again, and what a missing or failing compiler leaves behind."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "csrc"))
import build  # noqa: E402


@pytest.fixture
def csrc(tmp_path):
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "words.h").write_text("#define ANSWER 42\n")
    (tmp_path / "csrc" / "answer.cpp").write_text('#include "words.h"\nextern "C" int answer() { return ANSWER; }\n')
    return tmp_path / "csrc"


def built(csrc, **options):
    (result,) = build.build(csrc.parent / "lib", ["cpu"], csrc, **options)
    return result


def test_a_library_is_built_once_and_again_when_a_header_changes(csrc):
    first = built(csrc)
    assert first.ok and first.path.name == "answer.cpu.so"
    stamp = first.path.stat().st_mtime_ns
    assert built(csrc).path.stat().st_mtime_ns == stamp
    (csrc / "words.h").write_text("#define ANSWER 43\n")
    assert built(csrc).path.stat().st_mtime_ns > stamp
    assert ctypes.CDLL(str(first.path)).answer() == 43


def test_a_failing_compiler_leaves_its_log_and_no_library(csrc):
    assert built(csrc).ok
    (csrc / "answer.cpp").write_text("int answer() { return 42 }\n")
    result = built(csrc)
    assert not result.ok and not result.path.exists()
    assert "error: expected" in result.path.with_suffix(".log").read_text() and "error: expected" in result.report()


def test_a_missing_compiler_is_reported_and_is_no_error(csrc, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = built(csrc)
    assert not result.ok and "no-such-compiler was not found" in result.report()


def test_a_missing_compiler_leaves_a_library_of_the_present_sources(csrc, monkeypatch):
    """It may have been built on another machine. One of other sources goes; a file that only looks newer does not
    count."""
    library = built(csrc).path
    monkeypatch.setenv("CXX", "no-such-compiler")
    os.utime(csrc / "words.h", ns=(library.stat().st_mtime_ns + 10**9,) * 2)
    assert built(csrc).ok and library.exists()
    (csrc / "words.h").write_text("#define ANSWER 43\n")
    assert not built(csrc).ok and not library.exists()


def test_a_library_knows_its_sources_and_learns_them_without_being_built_again(csrc):
    library, source = built(csrc).path, csrc / "answer.cpp"
    assert not build.stale(library, source)
    library.with_suffix(".sources").unlink()
    stamp = library.stat().st_mtime_ns
    assert built(csrc).path.stat().st_mtime_ns == stamp
    (csrc / "words.h").write_text("#define ANSWER 43\n")
    assert build.stale(library, source)
    assert not build.stale(built(csrc).path, source)


def test_a_library_without_its_log_is_not_built_again(csrc):
    library = built(csrc).path
    library.with_suffix(".log").unlink()
    stamp = library.stat().st_mtime_ns
    assert built(csrc).ok and library.stat().st_mtime_ns == stamp


def test_cxx_may_have_several_words(csrc, monkeypatch):
    (csrc / "answer.cpp").write_text('extern "C" int answer() { return WORD; }\n')
    monkeypatch.setenv("CXX", "g++ -DWORD=7")
    result = built(csrc)
    assert result.ok and ctypes.CDLL(str(result.path)).answer() == 7, result.log


def test_strict_fails_where_a_compiler_fails(tmp_path):
    command = [sys.executable, str(ROOT / "csrc" / "build.py"), "--kinds", "cpu", "--out", str(tmp_path), "--only",
               "nearest_code"]
    environment = {**os.environ, "CXX": "no-such-compiler"}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    assert subprocess.run([*command, "--strict"], env=environment, capture_output=True).returncode == 1
    assert subprocess.run(command, env={**environment, "GENMINI_STRICT": "1"}, capture_output=True).returncode == 1


def test_every_source_is_built_for_every_kind():
    """The libraries under test were compiled from the present sources, and by nvcc too where there is one."""
    for kind in build.KINDS:
        if build.compiler(kind) is None:
            assert kind == "cuda", "a C++ compiler is needed"
            continue
        for source in build.sources(kind):
            key = ROOT / "kernels" / "lib" / f"{source.stem}.{kind}.key"
            assert key.exists() and key.read_text() == build.key(kind, source), (
                f"{source.name} is newer than its library: make build"
            )


HEADERS = sorted(path.relative_to(build.CSRC) for path in build.CSRC.rglob("*.h"))


@pytest.mark.parametrize("header", HEADERS, ids=str)
def test_a_header_needs_no_includer(header):
    command = [*build.compiler("cpu"), *build.GXX, "-w", "-x", "c++", "-fsyntax-only", str(build.CSRC / header)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_native_kernel_that_each_set_teaches(tmp_path, monkeypatch):
    """The example in the comment of csrc/cpu/each_set.h compiles without a warning and is right for each set."""
    comment = (build.CSRC / "cpu" / "each_set.h").read_text()
    lines = re.search(r"//   // csrc/scale.cpp.*?(?=// GENMINI_CPU)", comment, re.S)[0].splitlines()
    shutil.copytree(build.CSRC / "cpu", tmp_path / "csrc" / "cpu")
    (tmp_path / "csrc" / "scale.cpp").write_text(
        "\n".join(line.removeprefix("//").removeprefix("   ") for line in lines) + "\n"
    )
    result = built(tmp_path / "csrc")
    assert result.ok and "warning" not in result.log, result.log
    N, D = 5, 37  # a vector, and a rest, of every width
    x, y = (ctypes.c_float * (N * D))(*range(N * D)), (ctypes.c_float * (N * D + 1))()
    scale = ctypes.CDLL(str(result.path)).scale_cpu
    for name in ("portable", "avx2", "avx512"):
        monkeypatch.setenv("GENMINI_CPU", name)
        y[:] = [-1.0] * len(y)
        assert scale(x, y, ctypes.c_double(0.5), ctypes.c_int64(N), ctypes.c_int64(D), 2) == 0
        assert list(y) == [0.5 * i for i in range(N * D)] + [-1.0]


def test_setup_needs_no_torch():
    program = "import sys; sys.modules['torch'] = None; sys.argv = ['setup.py', '--name']; import setup"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "genmini" in done.stdout, done.stderr
