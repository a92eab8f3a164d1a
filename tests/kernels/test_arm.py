"""The native kernels compile for processors other than x86, and `make test-arm` sees other bits."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "csrc"))
import arm  # noqa: E402  (csrc/arm.py)
import build  # noqa: E402  (csrc/build.py)

NADE = next(path for path in arm.drivers() if path.stem == "nade_cpu")


@pytest.mark.skipif(build.compiler("cpu") is None, reason="there is no g++")
def test_the_portable_code_compiles_alone():
    """As where g++ makes no code for AVX."""
    words = [*build.compiler("cpu"), *build.GXX, "-Werror", "-fsyntax-only", "-DONLY_PORTABLE"]
    done = subprocess.run([*words, *map(str, build.sources("cpu"))], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.thorough
@pytest.mark.skipif(bool(arm.missing()), reason=arm.missing())
def test_a_kernel_gives_the_same_bits_on_arm():
    (made,) = (path for path in arm.drivers() if path.stem == "made_sample_cpu")
    passed, printed = arm.compare(made)
    assert passed and "checksum" in printed, printed


def test_every_native_kernel_is_compared():
    assert {path.stem.removesuffix("_cpu") for path in arm.drivers()} == {path.stem for path in build.sources("cpu")}


def test_other_bits_and_a_program_that_fails_are_failures(monkeypatch):
    monkeypatch.setattr(arm, "output", lambda source, kind, before=(): f"all right, checksum {'01'[kind == 'arm']}")
    passed, printed = arm.compare(NADE)
    assert not passed and "other bits" in printed and "checksum 1" in printed

    def fails(*_):
        raise RuntimeError("exit status 1")

    monkeypatch.setattr(arm, "output", fails)
    passed, printed = arm.compare(NADE)
    assert not passed and "nade_cpu: exit status 1" in printed


@pytest.mark.parametrize("words", [["arm.py", "nade_cpu", "nade_arm"], ["sanitize.py", "--only", "nade_arm"]])
def test_a_driver_that_is_none_is_named(monkeypatch, capsys, words):
    monkeypatch.setattr(arm, "missing", lambda: "")
    monkeypatch.setattr(arm, "compare", lambda source: (True, source.stem))
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="2"):
        (arm if words[0] == "arm.py" else arm.sanitize).main()
    assert "no driver nade_arm; there are" in capsys.readouterr().err


def test_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(arm.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["arm.py"])
    with pytest.raises(SystemExit, match="needs aarch64-linux-gnu-g.. and qemu-aarch64 .*apt install g.*qemu-user"):
        arm.main()
