"""`genmini profile`: recipes, runs, stages, samples and code of one's own; its table, its files, its mistakes."""

import json
import re

import pytest
from check import command as run

from genmini import limits, profiling

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
MADE = ["made", "--data", "digits", "--set", "hidden=16", "--steps", "2"]


@pytest.fixture(autouse=True)
def known_limits(monkeypatch):
    for name in ("copy_bandwidth", "matmul_rate", "convolution_rate"):
        monkeypatch.setattr(limits, name, lambda *_, **__: 1e10)


def profiled(capsys, *words):
    status, out, err = run(capsys, "profile", *words)
    assert status == 0, err
    return out


def test_a_recipe(capsys):
    out = profiled(capsys, *MADE, "--rows", "3", "--trace", "t.json", "--flame", "f.svg", "--memory", "m.png")
    assert out.startswith("made, recipe digits: a training step of 64 examples, on cpu\na step ")
    table = out.split("operator\n")[1].split("\n\n")[0].splitlines()
    shares = [float(re.match(r" *\S+ m?s +([\d.]+)%", line)[1]) for line in table]
    assert len(table) == 5 and sum(shares) == pytest.approx(100, abs=0.3) and shares[:3] == sorted(shares[:3])[::-1]
    assert table[3].endswith("more operators and shapes)")
    assert table[4].endswith("(between operators: Python, autograd)")
    assert "copy 10.0 GB/s" in out and "measured now" in out and "ncu" not in out
    assert json.load(open("t.json"))["traceEvents"] and open("f.svg").read().startswith("<svg")
    assert open("m.png", "rb").read(4) == b"\x89PNG"
    out = profiled(capsys, *MADE, "--rows", "100")
    assert re.search(r"%  genmini::masked_linear  64x64, 16x64, 16  \(room masked_linear\)$", out, re.M), out


def test_the_first_recipe_and_the_stages(capsys):
    assert profiled(capsys, "made", "--steps", "1").startswith("made, recipe digits: a training step")
    small = ["vqvae", "--data", "digits", "--set", "batch=8", "--set", "prior.batch=4", "--steps", "1"]
    assert "stage codes: a training step of 8 examples" in profiled(capsys, *small)
    out = profiled(capsys, *small, "--stage", "prior", "--rows", "100")
    assert "stage prior: a training step of 4 examples" in out and "genmini::masked_conv2d" in out
    status, _, err = run(capsys, "profile", *small, "--stage", "decoder")
    assert status == 2 and err == "genmini: vqvae, recipe digits has no stage 'decoder'; its stages are codes, prior\n"
    assert "ar, recipe series: solved at once" in profiled(capsys, "ar", "--set", "method=yule-walker", "--steps", "1")


def test_a_run_and_its_samples(capsys):
    train = ["train", *MADE, "--set", "batch=32", "--set", "every=2", "--out", "r"]
    assert run(capsys, *train)[0] == 0
    assert profiled(capsys, "r", "--steps", "1").startswith("made of r: a training step of 32 examples, on cpu\n")
    out = profiled(capsys, "r", "--sample", "-n", "7", "--steps", "2")
    assert out.startswith("made of r: 7 samples, on cpu\n") and "genmini::made_sample" in out
    assert profiled(capsys, *MADE, "--sample", "-n", "3").startswith("made, recipe digits: 3 samples")
    assert profiled(capsys, "digits-v1", "--steps", "1").startswith("classifier of digits-v1: a training step of 64")


def test_a_stage_is_of_what_learns(capsys):
    for name in ("vqvae", "digits-v1"):
        status, _, err = run(capsys, "profile", name, "--sample", "--stage", "prior")
        assert status == 2 and err.startswith("genmini: --stage does not fit: it says what learns, and --sample draws")


def test_a_file_that_cannot_be_written_is_named_with_its_option(capsys, tmp_path):
    (tmp_path / "short.py").write_text("import torch\ndef step(): return torch.ones(3) + 1\n")
    (tmp_path / "file").write_text("")
    for option, suffix in (("--trace", "json"), ("--flame", "svg"), ("--memory", "png")):
        status, _, err = run(capsys, "profile", "short:step", "--steps", "1", option, f"file/x.{suffix}")
        assert status == 2 and err.startswith(f"genmini: could not write file/x.{suffix}, "), err
        assert err.endswith(f"; write elsewhere ({option})\n")


def test_code_of_ones_own(capsys, tmp_path):
    (tmp_path / "mine.py").write_text("import torch\nx = torch.ones(64, 64)\ndef step(): return (x @ x).relu()\n")
    out = profiled(capsys, "mine:step", "--steps", "2")
    assert out.startswith(f"mine:step, your own code in {tmp_path / 'mine.py'}, on cpu\n")
    assert re.search(r" 1 +49.2 kB +524 k +\S+%  aten::matmul  64x64, 64x64$", out, re.M), out
    for words, wanted in (
        (["mine:walk"], f"mine ({tmp_path / 'mine.py'}) has no function 'walk' to profile"),
        (["nothing:step"], "nothing:step is no module:function: No module named 'nothing'"),
        (["mine:step", "--sample"], "--sample does not fit: this is your own code"),
        (["mine:step", "--data", "digits"], "--data does not fit: this is your own code"),
    ):
        status, out, err = run(capsys, "profile", *words)
        assert status == 2 and err == f"genmini: {wanted}\n" and not out


@pytest.mark.parametrize("source, status, wanted", [
    ("def step(): raise KeyError('n')", 1, "mine_{}:step raised KeyError: 'n'"),
    ("def step(a): return a", 1, "mine_{}:step raised TypeError: step() missing 1 required positional argument: 'a'"),
    ("x = (", 2, "mine_{}:step: 'mine_{}' cannot be imported: SyntaxError: '(' was never closed (mine_{}.py, line 1)"),
    ("raise ValueError('no')", 2, "mine_{}:step: 'mine_{}' cannot be imported: ValueError: no"),
])
def test_a_mistake_in_code_of_ones_own_is_no_mistake_of_genmini(capsys, tmp_path, source, status, wanted):
    name = f"{len(source)}"  # another module each time: Python imports one once
    (tmp_path / f"mine_{name}.py").write_text(source)
    found, _, err = run(capsys, "profile", f"mine_{name}:step", "--steps", "1")
    assert (found, err) == (status, f"genmini: {wanted.replace('{}', name)}\n")


def test_a_trace_is_written_or_missed_aloud(capsys, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = run(capsys, "profile", *MADE, "--trace", "file/t.json")
    assert status == 2 and err.startswith("genmini: could not write file/t.json"), err
    profiled(capsys, *MADE, "--trace", "new/t.json")
    assert json.load(open("new/t.json"))["traceEvents"]


@pytest.mark.parametrize("option, name", [("--trace", "t.json"), ("--flame", "f.svg"), ("--memory", "m.png")])
def test_a_folder_is_no_file(capsys, tmp_path, option, name):
    (tmp_path / name).mkdir()
    status, out, err = run(capsys, "profile", *MADE, option, name)
    assert status == 2 and not out and err == f"genmini: {option} takes a file, and {name} is a folder\n"


def test_plain_runs_the_steps_alone(capsys, monkeypatch):
    monkeypatch.setattr(profiling, "measured", None)
    out = profiled(capsys, *MADE, "--plain")
    assert out.endswith("on cpu\n2 steps were run, without the profiler\n")


def test_the_kernel_that_leads_gets_its_line_for_ncu(capsys, monkeypatch):
    row = profiling.Row("aten::mm", "4x4, 4x4", 1, 1e-3, 1.0, kernels={"void cutlass::gemm<float>(int)": 1e-3})
    found = profiling.Profile("cuda", 1, 1e-3, 1e-3, [row], 0.0, [], {"copy": 1e12}, None)
    monkeypatch.setattr(profiling.Profile, "held", [])
    monkeypatch.setattr(profiling, "measured", lambda *_: found)
    out = profiled(capsys, *MADE)
    assert re.search(r"^ncu +ncu -k gemm -c 3 --set full -o step genmini .* --plain$", out, re.M), out
    assert "(the GPU waits)" in out


@pytest.mark.parametrize("kernel, name", [
    ("void at::native::(anonymous namespace)::cunn_SoftMaxForward<4, float>(float*, int)", "cunn_SoftMaxForward"),
    ("std::enable_if<!(false), void>::type internal::gemvx::kernel<int, (bool)1>(Params<float>)", "kernel"),
    ("void at::native::elementwise_kernel<128, 2, at::f(int)::{lambda(int)#1}>(int, g<x>)", "elementwise_kernel"),
    ("ampere_sgemm_128x64_tn", "ampere_sgemm_128x64_tn"), ("(anonymous namespace)::f(int)", "f"), ("", ""),
])
def test_a_kernel_is_named_as_ncu_names_it(kernel, name):
    assert profiling.bare(kernel) == name
    row = profiling.Row("aten::x", "4", 1, 1, 1.0, kernels={kernel: 1e-3, "Memcpy HtoD (Pageable -> Device)": 1.0})
    assert profiling.Profile("cuda", 1, 1, 1, [row], 0.0, [], {}, None).kernel == name


@pytest.mark.parametrize("words, wanted", [
    (["nowhere"], "nowhere holds no run: there is no nowhere/run.json"),
    (["made", "--data", "moons"], "made has no recipe for 'moons'"),
    (["made", "--recipe", "letters"], "made has no recipe 'letters'; its recipes are digits"),
    (["made", "--set", "depth=3"], "--set knows no key 'depth'"),
    (["made", "--flame", "x.png"], "--flame takes a .svg file, got x.png"),
    (["made", "--trace", "x"], "--trace takes a .json file, got x"),
    (["digits-v1", "--recipe", "digits"], "--recipe does not fit: this is a run, which has its own recipe"),
    (["classifier", "--sample"], "--sample does not fit: Classifier"),
    (["made", "--device", "tpu"], "no device 'tpu' here"),
])
def test_a_mistake_is_one_line(capsys, words, wanted):
    status, out, err = run(capsys, "profile", *words)
    assert status == 2 and err.startswith(f"genmini: {wanted}") and err.count("\n") == 1 and not out
