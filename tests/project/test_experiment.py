"""What a training leaves when it is interrupted or fails, and what is shown of it on the way and at its end."""

import ast
import os
from pathlib import Path

import pytest
from check import command as run
from check_models import at_step, ctrl_c, same_runs

from genmini import data, experiment, kernels, models, watch

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
FAST = ["--steps", "20", "--set", "hidden=16", "--set", "every=10", "--threads", "1"]


def test_the_same_command_resumes_to_the_same_bits(capsys, tmp_path):
    words = ["train", "made", "--data", "digits", *FAST, "--seed", "3"]
    assert run(capsys, *words, "--out", "whole")[0] == 0
    with ctrl_c() as press, at_step(models.find("made"), 15, press):
        status, _, err = run(capsys, *words, "--out", "parts")
    line = err.splitlines()[-1]
    assert (status == 130 and line.startswith("genmini: interrupted; the weights of step 10, valid")
            and line.endswith("continues from step 15"))

    other = [*words[:-2], "--out", "parts", "--resume"]
    for words_too, says in ((["--seed", "4"], "seed 3, not 4"), (["--seed", "3", "--steps", "30"], "steps 20, not 30"),
                            (["--seed", "3", "--set", "rate=0.1"], "rate 0.002, not 0.1"),
                            (["--seed", "3", "--backend", "reference"],
                             "backend 'auto', not 'reference'")):
        status, _, err = run(capsys, *other, *words_too)
        assert status == 2 and says in err, err
    kernels.use("auto")
    status, out, _ = run(capsys, *words, "--out", "parts", "--resume")
    assert status == 0 and "resumed   parts at step 15" in out
    same_runs(tmp_path / "whole", tmp_path / "parts")
    status, again, _ = run(capsys, *words, "--out", "parts", "--resume")
    assert status == 0 and "nothing left to resume" in again and out.splitlines()[-2:] == again.splitlines()[-2:]


def test_a_full_disk_says_what_is_saved_and_can_be_resumed(capsys, monkeypatch):
    """The system refuses to write more than 2 kB a file from step 15 on, as it would on a full disk."""
    resource = pytest.importorskip("resource")
    made, words = models.find("made"), ["train", "made", "--data", "digits", *FAST, "--out", "r"]
    log_prob, step, (soft, hard) = made.log_prob, [0], resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(model, x, y=None):
        step[0] += model.training
        if model.training and step[0] == 15:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        return log_prob(model, x)

    monkeypatch.setattr(made, "log_prob", full)
    try:
        status, _, err = run(capsys, *words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        monkeypatch.setattr(made, "log_prob", log_prob)
    line = err.splitlines()[-1]
    assert status == 2 and line.startswith("genmini: could not write r/") and "File too large; free some space" in line
    assert line.endswith("; the weights of step 10 are in r; --resume continues from step 10")
    assert not [name for name in os.listdir("r") if name.endswith(".part")]
    assert run(capsys, *words, "--resume")[0] == 0


def test_running_out_of_memory_says_what_is_saved(capsys, monkeypatch):
    import torch

    made, step = models.find("made"), [0]
    log_prob = made.log_prob

    def out_of_memory(model, x, y=None):
        step[0] += model.training
        return log_prob(model, x) if step[0] < 15 else torch.empty(2**60)

    monkeypatch.setattr(made, "log_prob", out_of_memory)
    status, _, err = run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "r")
    line = err.splitlines()[-1]
    assert (status == 1 and "out of memory: a smaller batch" in line
            and line.endswith("step 10 are in r; --resume continues from step 10"))


def test_pictures_are_drawn_as_it_goes(capsys, monkeypatch, tmp_path):
    """Pictures are drawn at the first evaluation after five seconds, and again only after forty times what that took,
    small ones from the first on; they do not change the training. Those whose step is at least a tenth more than that
    of the last one kept stay in progress/, for each stage anew; a training that is not resumed removes what an older
    one left there, and nothing else."""
    now, drawn = [0.0], []
    monkeypatch.setattr(watch.time, "perf_counter", lambda: now[0])

    def picture(path, model, splits):
        drawn.append((path.name, now[0], model.sample(2).sum().item()))
        path.write_text(f"at {now[0]}")
        now[0] += 1

    def frame(model, splits):
        drawn.append(("frame", now[0], model.sample(2).sum().item()))
        now[0] += 0.1
        return f"small, at {now[0] - 0.1:g}".encode()

    def progress():
        return {path.name: path.read_text() for path in (tmp_path / "progress").iterdir()}

    monkeypatch.setattr(watch, "picture", picture)
    monkeypatch.setattr(watch, "frame", frame)
    seen = watch.Watch(tmp_path, None)
    model = models.find("made")((8, 8), hidden=4)
    for second in range(0, 100, 2):
        now[0] = second
        seen(dict(step=30 + second), model)
    of = lambda name: [at for kind, at, _ in drawn if kind == name]
    # 5 = 40 * 0.125, 45 = 40 * 1.125; 4 = 40 * 0.1, and after step 42 it is 48 that is a tenth more
    assert of("samples.png") == [6, 46, 86] and len({total for *_, total in drawn}) == 1
    assert of("frame") == [0, 4, 8, 12, 18, 24, 30, 36, 44, 52, 62, 72, 84, 96]
    assert progress() == {f"{30 + at}.png": f"small, at {at:g}" for at in of("frame")}
    before = {*progress()}
    for mine in ("mine.png", "a1.png", "holiday2024.png"):
        (tmp_path / "progress" / mine).write_text("mine")
    for resume, stage, kept in ((True, "", before), (True, "prior", before | {"prior-9.png"}), (False, "", {"9.png"})):
        seen = watch.Watch(tmp_path, None, resume=resume)
        now[0] += 10
        seen(dict(step=9, **dict(stage=stage) if stage else {}), model)
        assert {*progress()} == {*kept, "mine.png", "a1.png", "holiday2024.png"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "progress").symlink_to(tmp_path / "progress")
    with pytest.raises(ValueError, match="other/progress is no folder, and pictures along the training are kept there"):
        watch.Watch(tmp_path / "other", None)


@pytest.mark.parametrize("wanted", ["digits", "mnist", "idx", "images"])
def test_a_recipe_has_the_same_data_whether_it_is_named_or_found(wanted):
    """A model without a recipe for these data, or for others of their family, says so; your own images are of the
    family of MNIST, too."""
    planned = []
    for name in models.MODELS:
        families = {data.family(recipe["data"]) for recipe in models.recipes(name).values()}
        if families & ({"images", "mnist"} if wanted in data.OWN else {wanted}):
            found = experiment.plan(name, wanted)
            assert experiment.plan(name, wanted, found.recipe_name) == found
            planned.append(name)
        else:
            with pytest.raises(ValueError, match=f"{name} has no recipe for '{wanted}'"):
                experiment.plan(name, wanted)
    assert len(planned) > 10


def test_the_divergence_of_a_density_model_is_in_plain_nats():
    """KL compares two densities of z: only log p(x|z), and what holds it, is of a density of v."""
    plan = experiment.plan("vae", "digits", "digits-gaussian", ["body=mlp", "hidden=4"])
    splits = experiment.splits(plan)
    figures = experiment.figures(experiment.build(plan, splits["train"]), splits["valid"], k=2)
    density = "nats of a density of v"
    assert [(figure.name, figure.unit, figure.bits) for figure in figures] == [
        ("elbo", density, None), ("iwae-2", density, None), ("reconstruction", density, None), ("kl", "nats", None),
    ]


def test_a_command_computes_nothing_and_the_rest_prints_nothing():
    """A command imports PyTorch only to choose threads and a device, and calls nothing that draws, counts, times or
    opens files. Nothing beside the commands prints, but progress to stderr, or pads text to columns."""
    package = Path(experiment.__file__).parent
    nodes = lambda path, kind: (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kind))
    calls = lambda path: {ast.unparse(node.func) for node in nodes(path, ast.Call)}
    modules = {"argparse", "genmini", "inspect", "io", "os", "pathlib", "shlex", "sys", "_options", "_output", ""}
    for path in (package / "cli").glob("*.py"):
        of_import = {alias.name for node in nodes(path, ast.Import) for alias in node.names}
        of_import |= {(node.module or "").partition(".")[0] for node in nodes(path, ast.ImportFrom)}
        beside = {alias.name for node in nodes(path, ast.ImportFrom) for alias in node.names if node.level}
        assert path.name == "__init__.py" or beside <= {"_options", "_output", "one_line"}, path  # no other command
        assert of_import <= modules | ({"torch"} if path.name == "_options.py" else set()), path
        assert {call for call in calls(path) if call.startswith("torch.")} <= {
            "torch.set_num_threads", "torch.device", "torch.empty", "torch.empty(1, device=chosen).item",
        }, path
        called = {call.rpartition(".")[2] for call in calls(path)}
        assert not called & {"sample", "log_prob", "numel", "manual_seed", "perf_counter"}, path
        assert "open" not in calls(path), path
    for path in package.glob("**/*.py"):
        if package / "cli" not in path.parents and path != package / "__init__.py":  # which Ctrl-C may end
            printed = [node for node in nodes(path, ast.Call) if ast.unparse(node.func) == "print"]
            to_stderr = lambda node: any(ast.unparse(each) == "file=sys.stderr" for each in node.keywords)
            assert all(map(to_stderr, printed)), path
            padded = [ast.unparse(node) for node in nodes(path, ast.FormattedValue)
                      if node.format_spec and "<" in ast.unparse(node.format_spec)]
            assert not padded, (path, padded)
