"""One training a folder, files that are whole or not there, and what a kill leaves behind."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from check import command as run
from check_models import at_step, ctrl_c

from genmini import checkpoint, counting, experiment, files, folder, ladder, limits, models, page, predict

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
FAST = ["--steps", "20", "--set", "hidden=16", "--set", "every=10", "--threads", "1"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def other_process():
    """Starts Python programs, and ends what is left of them."""
    started = []

    def start(program):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        words = [sys.executable, "-c", program]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


HOLD = "import sys, time; from genmini import files\nwith files.lock('r'): print('held', flush=True); time.sleep(600)"


def test_a_folder_is_held_by_one_process_and_free_when_it_is_killed(other_process):
    os.mkdir("r")
    holder = other_process(HOLD)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"r is in use: process {holder.pid} trains there"), files.lock("r"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with files.lock("r"):
        assert os.path.exists("r/.lock")
    assert os.listdir("r") == []


def contents(folder):
    """The bytes of each file below it, without the lock's"""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_folder_in_use_is_neither_trained_in_nor_overwritten(capsys, other_process):
    words = ["train", "made", "--data", "digits", *FAST, "--out", "r"]
    assert run(capsys, *words)[0] == 0
    before = contents("r")
    holder = other_process(HOLD)
    assert holder.stdout.readline() == "held\n"
    for more in (["--overwrite"], ["--overwrite", "--seed", "1"]):
        status, _, err = run(capsys, *words, *more)
        assert status == 2 and f"r is in use: process {holder.pid} trains there" in err
    os.rename("r/run.json", "run.json")  # a training that has saved nothing yet
    status, _, err = run(capsys, *words)
    assert status == 2 and "r is in use" in err
    os.rename("run.json", "r/run.json")
    assert contents("r") == before
    holder.kill()
    holder.wait()
    assert run(capsys, *words, "--overwrite")[0] == 0


def test_an_unfinished_training_is_not_resumed_twice_at_a_time(capsys, other_process):
    words = ["train", "made", "--data", "digits", *FAST, "--out", "r"]
    with ctrl_c() as press, at_step(models.find("made"), 15, press):
        assert run(capsys, *words)[0] == 130
    before = contents("r")
    holder = other_process(HOLD)
    assert holder.stdout.readline() == "held\n"
    status, _, err = run(capsys, *words, "--resume")
    assert status == 2 and f"r is in use: process {holder.pid} trains there" in err
    assert contents("r") == before
    holder.kill()
    holder.wait()
    assert run(capsys, *words, "--resume")[0] == 0


def test_the_second_of_two_trainings_is_told_what_it_finds_once_it_is_alone():
    """The folder was free when the second one looked, and holds a run when it has the lock."""
    plan = experiment.plan("made", "digits", assignments=["hidden=4"], steps=2)
    splits = experiment.splits(plan)
    model = experiment.build(plan, splits["train"])
    experiment.train(plan, model, splits, "r", progress=False)
    with pytest.raises(ValueError, match="r already holds a run"):
        experiment.train(plan, model, splits, "r", progress=False)


def test_folders_without_a_name_are_taken_once():
    folders, barrier = [], threading.Barrier(8)

    def take():
        barrier.wait()
        folders.append(folder.new("made-digits"))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 8 and all(folder.is_dir() for folder in folders)


def test_a_training_that_saves_nothing_leaves_nothing(capsys, monkeypatch):
    words = ["train", "made", "--data", "digits", *FAST]
    assert run(capsys, *words, "--set", "rate=1e30")[0] == 1 and os.listdir("runs") == []
    os.mkdir("mine")
    Path("mine/notes.txt").write_text("mine")
    assert run(capsys, *words, "--set", "rate=1e30", "--out", "mine")[0] == 1 and os.listdir("mine") == ["notes.txt"]


def test_a_killed_training_leaves_a_run_that_resumes_and_its_parts_are_removed(capsys, other_process, monkeypatch):
    """After a kill amid the writing of a file the lock is released; the next training removes the half file."""
    words = ["train", "made", "--data", "digits", *FAST, "--out", "r"]
    program = f"""
import os, signal
from genmini import files
from genmini.cli import main
replace, seen = os.replace, []
def killed(source, target):
    seen.append(target)
    if len(seen) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killed
main({words!r})
"""
    process = other_process(program)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = sorted(os.listdir("r"))
    assert ".lock" in left and sum(name.endswith(".part") for name in left) == 1
    Path(f"r/model-3.safetensors.{os.getpid()}.part").write_text("of a process that is there")
    status, out, _ = run(capsys, *words, "--resume")
    assert status == 0 and "resumed" in out
    parts = [name for name in os.listdir("r") if name.endswith(".part") or name == ".lock"]
    assert parts == [f"model-3.safetensors.{os.getpid()}.part"]


def test_a_file_replaces_the_parts_of_processes_that_are_gone(other_process):
    gone = other_process("pass")
    gone.wait()
    kept = [f"x.npy.{os.getppid()}.part", f"y.npy.{gone.pid}.part", "x.npy.notes.part"]
    for name in (*kept, f"x.npy.{gone.pid}.part"):
        Path(name).write_text("half")
    files.write("x.npy", b"whole")
    assert sorted(os.listdir()) == sorted([*kept, "x.npy"])
    assert Path("x.npy").read_bytes() == b"whole"


def test_a_full_disk_is_named_with_what_to_do(capsys, monkeypatch):
    model = models.find("made")((8, 8), hidden=4)
    checkpoint.save("r", model, {"step": 1, "data": "digits-threshold"})
    Path("r/old.npy").write_bytes(b"old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    for path in ("r/old.npy", "x.png"):
        status, _, err = run(capsys, "sample", "r", "--out", path)
        assert status == 2 and err.startswith(f"genmini: could not write {path}, ") and err.count("\n") == 1
        assert "bytes: No space left on device; free some space, or write elsewhere (--out)" in err
    for name in ("copy_bandwidth", "matmul_rate"):
        monkeypatch.setattr(limits, name, lambda *_, **__: 1e10)
    counted, climbed = counting.Counted("nade", "", {}, [], ROOT), ladder.Ladder("nade", {}, "cpu", [], {}, 1, 1, "")
    for option, write in (("--html", lambda: page.write("page", [])), ("--json", lambda: counting.save("x", counted)),
                          ("--plot", lambda: ladder.roofline("x.png", climbed, predict.named("h100")))):
        with pytest.raises(OSError, match=rf"free some space, or write elsewhere \({option}\)"):
            write()
    status, _, err = run(capsys, "study", "complete", "r", "--out", "x.png")
    assert status == 2 and "could not write x.png, " in err and "No space left on device; free some space" in err
    assert Path("r/old.npy").read_bytes() == b"old" and not list(Path().rglob("*.part")) and not os.path.exists("x.png")


@pytest.mark.parametrize("setting", ["precision=half", "shift=0.5"])
def test_a_training_that_fails_before_it_saves_leaves_the_run_that_it_was_to_replace(capsys, setting):
    first = ["train", "realnvp", "--data", "moons", "--steps", "5", "--set", "hidden=4", "--set", "every=5"]
    assert run(capsys, *first, "--out", "r")[0] == 0
    before = contents("r")
    status, _, err = run(capsys, *first, "--out", "r", "--overwrite", "--set", setting)
    assert status == 2 and err.startswith("genmini: ")
    assert contents("r") == before


def test_files_of_others_are_neither_replaced_nor_removed(capsys):
    words = ["train", "made", "--data", "digits", *FAST]
    for name in ("model-00001-of-00002.safetensors", "samples.png", "metrics.jsonl"):
        of_others = Path(name.partition(".")[0])
        of_others.mkdir()
        (of_others / name).write_text("not of genmini")
        for more in ([], ["--overwrite"]):
            status, _, err = run(capsys, *words, *more, "--out", str(of_others))
            assert status == 2 and f"holds no run, and a training would replace its {name}: choose another" in err
        assert (of_others / name).read_text() == "not of genmini"
    files.write("drawn/progress/3.png", b"not of genmini")
    assert "a training would replace its 3.png" in run(capsys, *words, "--out", "drawn")[2]
    assert run(capsys, *words, "--out", "r")[0] == 0
    for name in ("model-00001-of-00002.safetensors", "notes.1999999.part"):
        (Path("r") / name).write_text("not of genmini")
    assert run(capsys, *words, "--out", "r", "--overwrite")[0] == 0
    assert (Path("r") / "notes.1999999.part").exists() and (Path("r") / "model-00001-of-00002.safetensors").exists()


def test_a_lock_is_not_written_through_a_link(capsys):
    Path("target").write_text("not of genmini")
    os.mkdir("r")
    os.symlink("../target", "r/.lock")
    status, _, err = run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "r")
    assert status == 2 and "could not write to r" in err and Path("target").read_text() == "not of genmini"


def test_a_file_whose_name_is_a_pattern_is_written():
    files.write("a**b[1].npy", b"1")
    assert Path("a**b[1].npy").read_bytes() == b"1"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("path", [".", "/"])
def test_a_folder_without_a_name_is_no_file(path):
    with pytest.raises(IsADirectoryError, match=f"could not write {path}: it is a folder"):
        files.write(path, b"x")


def test_a_pipe_in_the_place_of_weights_does_not_hang(capsys):
    assert run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "r")[0] == 0
    (weights,) = Path("r").glob("model-*.safetensors")
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(ValueError, match="r is damaged: No such file"):
        checkpoint.load("r")
