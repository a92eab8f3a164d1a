"""A user's own .cu and a call (genmini/own_cu.py): what is counted, and what is said of a call that goes wrong."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from emulated import ROOT, build, count, sanitize

from genmini import own_cu

pytestmark = pytest.mark.skipif(bool(count.missing()), reason=count.missing())
TRANSPOSE = ROOT / "examples" / "transpose.cu"
PAGE = (ROOT / "docs" / "counting.md").read_text()
(CALL,) = re.findall(r'^genmini count examples/transpose.cu --call "([^"]*)"$', PAGE.replace("\\\n", ""), re.M)
SOURCE = r"""#include <csignal>
#include <cuda_runtime.h>
#include <device_launch_parameters.h>
#include "more.h"
__global__ void put(float* x, int step) {
    x[int(threadIdx.x) * step] = more(1);    // of put
}
__global__ void stuck(float* x) {
    if (threadIdx.x < 16) __syncthreads();    // of stuck
    else x[threadIdx.x] = __shfl_sync(0xffffffff, x[0], 3);
}
__global__ void endless(volatile float* x) {
    while (x[0] == 0) {}
}
__global__ void divide(int* x, int n) { x[0] /= n; }
extern __shared__ float outside[];
__global__ void shared(float* x) {
    float* half = (float*)outside + blockDim.x / 2;
    outside[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x < 16) x[threadIdx.x] = *(outside + threadIdx.x) + half[threadIdx.x];
}
__device__ int deep(int n) {
    volatile char much[4096];
    much[n & 4095] = 1;
    return deep(n + 1) + much[5];
}
__global__ void recurs(float* x) { x[0] = deep(0); }
__global__ void reversed(const int4* a, float* b, int n) {
    extern __shared__ float s[];
    s[threadIdx.x] = float(a[threadIdx.x].y) + __expf(0) + rsqrtf(1);    // of reversed
    __syncthreads();
    if (threadIdx.x < warpSize) b[threadIdx.x] = s[n - 1 - threadIdx.x];
}
template <int N> __global__ void much(float* x) {
    __shared__ float s[N];
    s[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] += s[threadIdx.x];
}
template <class T> __global__ void __launch_bounds__(64) few(T* x) { x[threadIdx.x] = 1; }
template <class T> __global__ void many(T* x) {
    __shared__ T s[13000];
    s[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] += s[threadIdx.x];
}
template <class T> static __global__ void fixed(T* x, int by) {    // g++ makes a copy of it for one value of by
    __shared__ T s[13000];
    s[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] += s[threadIdx.x ^ by];
}
template <class F> __global__ void __launch_bounds__(int(sizeof(float)) * 16) each(float* x, F f) {
    x[threadIdx.x] = f(threadIdx.x);
}
__global__ void ends(float* x) {
    x[threadIdx.x] = 1;
#ifndef __CUDACC__
    if (threadIdx.x == 3) exit(1);
#endif
}
int main(int argc, char** argv) {
    const char* way = getenv("WAY");
    auto is = [&](const char* name) { return !strcmp(way, name); };
    if (is("far")) { Array<float> x(64); put<<<1, 32>>>(x, 512); }
    if (is("beside")) { Array<float> x(60); put<<<1, 2>>>(x, 64); }
    if (is("near")) { Array<float> x(60); put<<<1, 61>>>(x, 1); }
    if (is("before")) { Array<float> x(64); put<<<1, 32>>>(x, -1); }
    if (is("host")) { float* x = (float*)malloc(256); put<<<1, 32>>>(x, 1); }
    if (is("none")) put<<<1, 32>>>(nullptr, 1);
    if (is("stuck")) { Array<float> x(64); stuck<<<1, 32>>>(x); }
    if (is("endless")) { Array<float> x(64); endless<<<1, 32>>>(x); }
    if (is("shared")) { Array<float> x(32); shared<<<1, 32, 128>>>(x); x.print(3); }
    if (is("forgotten")) { Array<float> x(32); shared<<<1, 32>>>(x); }
    if (is("recurs")) { Array<float> x(64); recurs<<<1, 1>>>(x); }
    if (is("divide")) { Array<int> x(64); divide<<<1, 1>>>(x, 0); }
    if (is("large")) { Array<float> x(64); put<<<1, 1025>>>(x, 1); }
    if (is("empty")) { Array<float> x(64); put<<<0, 32>>>(x, 1); }
    if (is("memory")) { Array<double> huge(1ll << 50); }
    if (is("negative")) { Array<double> few(-1); }
    if (is("assert")) assert(argc == 2);
    if (is("exit")) exit(3);
    if (is("ends")) { Array<float> x(32); ends<<<1, 32>>>(x); }
    if (is("promised")) { Array<float> x(65); few<<<1, 65>>>(x.p); }
    if (is("leaves")) { Array<float> x(64); put<<<1, 32>>>(x, 1); exit(0); }
    if (is("forbidden")) { Array<float> x(32); shared<<<1, 32, 49153>>>(x); }
    if (is("both")) { Array<float> x(32); much<10000><<<1, 32, 10000>>>(x); }
#ifndef __CUDACC__    // which does not compile it
    if (is("arrays")) { Array<float> x(32); much<13000><<<1, 32>>>(x); }
    if (is("deduced arrays")) { Array<float> x(32); many<<<1, 32>>>(x); }
    if (is("copied arrays")) { Array<float> x(32); fixed<<<1, 32>>>(x, 0); }
    if (is("promised to f")) { Array<float> x(65); each<<<1, 65>>>(x.p, [](auto i) { return float(i); }); }
#endif
    if (is("fresh")) {
        int4* a;
        float* b;
        std::vector<int> host(4 * 60);
        cudaMallocManaged(&a, 64 * sizeof(int4)), cudaMalloc(&b, 32 * sizeof(float));
        std::copy(host.begin(), host.end(), (int*)a);    // by a memmove that no counter sees
        reversed<<<1, 64, 256>>>(a, b, 64);
        divide<<<1, 1>>>((int*)b + 31, 3), divide<<<1, 1>>>((int*)b + 32 - 1, 3);    // what reversed wrote
        cudaMemset(b, 0, 4);
    }
    if (is("behind")) { Array<int4> a(60); Array<float> b(32); reversed<<<1, 64, 256>>>(a, b, 64); }
    if (is("killed")) raise(9);
    if (is("shell")) { Array<float> x(64); put<<<1, 32>>>(x, 1); printf("status %d\n", system("exit 0")); }
    if (is("runtime")) {
        int host[256], *a;
        float *b, back[32];
        for (int i = 0; i < 256; i++) host[i] = i;
        cudaError_t error = cudaMalloc((void**)&a, sizeof host);
        if (error != cudaSuccess) printf("%s\n", cudaGetErrorString(error));
        cudaMalloc(&b, 32 * sizeof(float));
        cudaMemcpy(a, host, sizeof host, cudaMemcpyHostToDevice);
        cudaMemset(b, 0, 32 * sizeof(float));
        reversed<<<dim3(1), 64, 64 * sizeof(float)>>>((const int4*)a, b, 64);
        cudaDeviceSynchronize();
        cudaMemcpy(back, b, sizeof back, cudaMemcpyDeviceToHost);
        printf("%g %g %d\n", back[0], back[31], argc);
        cudaFree(a), cudaFree(b);
    }
}
"""
MORE = "__device__ inline float more(int n) { return n + 1; }\n"
SEEN = {  # WAY: what is said of it
    "beside": "the call crashed in k.cu:6: thread (1,0,0) of block (0,0,0) touched 16 bytes behind the end of x, which "
              "has 240 bytes",
    "far": "the call crashed in k.cu:6: thread (1,0,0) of block (0,0,0) touched 1792 bytes behind the end of x, which "
           "has 256 bytes",
    "near": "LAUNCH: a kernel wrote 0 bytes behind the end of x, which has 240 bytes",
    "before": "LAUNCH: a kernel wrote 124 bytes before the start of x, which has 256 bytes",
    "host": "LAUNCH: argument 0 points to no array of the program's",
    "none": "the call crashed in k.cu:6: thread (0,0,0) of block (0,0,0) touched an address near 0",
    "stuck": "LAUNCH: block (0,0,0) of grid (1,1,1): dead-lock: threads 0-15 at __syncthreads in k.cu:9; "
             "threads 16-31 at __shfl_sync(0xffffffff) in k.cu:10",
    "endless": "the call did not end within 1 s, and was stopped: a loop without end? Smaller sizes take less; "
               "--seconds gives it more",
    "forgotten": "the call crashed in k.cu:19: thread (0,0,0) of block (0,0,0) touched 0 bytes behind the end of the "
                 "dynamic shared memory, which has 0 bytes: kernel<<<grid, block, bytes>>>",
    "recurs": "the call crashed in k.cu:23: thread (0,0,0) of block (0,0,0) touched an address in no array of the "
              "call, near the stack: a recursion without end, or variables too large for it?",
    "divide": "the call crashed in k.cu:15: thread (0,0,0) of block (0,0,0) divided an integer by zero",
    "large": "LAUNCH: a block of (1025,1,1) threads; the limits are (1024,1024,64) and 1024 in all",
    "forbidden": "LAUNCH: 49153 bytes of dynamic shared memory; before a launch with more than 49152 "
                 "cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) must allow them",
    "both": "LAUNCH: 10000 bytes of dynamic shared memory and 40000 of arrays declared __shared__; before a launch "
            "with more than 49152 cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) "
            "must allow them",
    "arrays": "LAUNCH: 52000 bytes of arrays declared __shared__; nvcc takes at most 49152",
    "deduced arrays": "LAUNCH: 52000 bytes of arrays declared __shared__; nvcc takes at most 49152",
    "copied arrays": "LAUNCH: 52000 bytes of arrays declared __shared__; nvcc takes at most 49152",
    "promised to f": "LAUNCH: a block of (65,1,1) threads; the kernel's __launch_bounds__ promise at most 64",
    "promised": "LAUNCH: a block of (65,1,1) threads; the kernel's __launch_bounds__ promise at most 64",
    "ends": "LAUNCH: thread (3,0,0) of block (0,0,0) called exit, which is the host's",
    "empty": "LAUNCH: a launch of 0 blocks, which CUDA calls an error",
    "memory": "the call failed: huge of 9007199.254741 GB is larger than the free memory here",
    "negative": "the call failed: few has fewer than 0 numbers",
    "exit": "the call ended its process by exit, with status 3: it is counted where that is 0",
    "killed": "the call was ended by signal 9 (Killed): did memory run out?",
    "nothing": "the call launches no kernel of k.cu: kernel<<<blocks, threads>>>(...) does",
}


@pytest.fixture(autouse=True)
def a_cache(monkeypatch):
    """What is compiled stays with what other tests compile."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(sanitize.CACHE.parent))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Names that a shell would take apart, and lines of what it would run."""
    folder = tmp_path_factory.mktemp("own") / "it's \"ours\"; touch pwned; $(touch pwned) `touch pwned` é\\n"
    folder.mkdir()
    (folder / "k.cu").write_text(SOURCE)
    (folder / "more.h").write_text(MORE)
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def row(counted, launch, words, what, space):
    (line,) = (number for number, text in enumerate(counted.source.read_text().splitlines(), 1) if words in text)
    (found,) = (row for row in counted.launches[launch].rows
                if (row.file, row.line, row.what, row.space) == (counted.source.name, line, what, space))
    return found


# ---- what is counted -------------------------------------------------------------------------------------------------


def test_a_transposition_naive_tiled_and_padded():
    """The naive one writes columns: 32 sectors, where 4 hold 32 floats. A tile of 32 columns is read by columns, 32
    words of one bank; with a 33rd each lies in a bank of its own."""
    counted = own_cu.count(TRANSPOSE, CALL)
    assert [launch.kernel for launch in counted.launches] == ["naive", "tiled<32>", "tiled<33>"]
    assert counted.printed == "y = 0 64 128 192 ...\n" and all(launch.elsewhere == 0 for launch in counted.launches)
    of_global = lambda launch, words, what: ((found := row(counted, launch, words, what, "global")).inst_executed,
                                             found.lanes, found.sectors, found.sectors_ideal)
    assert of_global(0, "float v = x[row", "load") == (128, 32, 4, 4)
    assert of_global(0, "y[column * n + row] =", "store") == (128, 32, 32, 4)
    for launch, wavefronts in ((1, 32), (2, 1)):
        assert of_global(launch, "tile[threadIdx.y][threadIdx.x] =", "load") == (128, 32, 4, 4)
        assert of_global(launch, "= tile[threadIdx.x]", "store") == (128, 32, 4, 4)
        found = row(counted, launch, "= tile[threadIdx.x]", "load", "shared")
        assert (found.inst_executed, found.wavefronts, found.wavefronts_ideal) == (128, wavefronts, 1)
        found = row(counted, launch, "tile[threadIdx.y][threadIdx.x] =", "store", "shared")
        assert (found.wavefronts, found.wavefronts_ideal) == (1, 1)
        assert counted.launches[launch].barriers == 4 * 32
    for launch in counted.launches:
        arrays = {(row.what, example.array) for row in launch.rows if row.space == "global" for example in row.examples}
        assert arrays == {("load", "x float32 64 64"), ("store", "y float32 64 64")}


def test_what_a_main_asks_of_the_cuda_runtime(here, monkeypatch):
    monkeypatch.setenv("WAY", "runtime")
    counted = own_cu.count("k.cu")
    assert counted.printed == "255 131 1\n"  # a[63].y = 253, and 2
    assert row(counted, 0, "of reversed", "load", "global").size == 4
    arrays = {example.array for row in counted.launches[0].rows for example in row.examples if row.space == "global"}
    assert arrays == {"a bytes 1024", "b float32 32"} and counted.launches[0].dynamic_shared == 256
    assert counted.launches[0].elsewhere == 0


def test_dynamic_shared_memory_that_is_named_outside_of_the_kernel(here, monkeypatch):
    monkeypatch.setenv("WAY", "shared")
    counted = own_cu.count("k.cu")
    assert counted.printed == "x = 16 18 20 ...\n" and row(counted, 0, "outside[threadIdx.x] =", "store", "shared")
    assert counted.launches[0].divergent == 1  # the branch right behind the barrier


def test_a_main_may_end_by_exit(here, monkeypatch):
    monkeypatch.setenv("WAY", "leaves")
    assert row(own_cu.count("k.cu"), 0, "of put", "store", "global").inst_executed == 1


def test_reads_of_what_nobody_wrote_in_memory_of_cudaMalloc_are_accused(here, monkeypatch):
    """Also of cudaMallocManaged, where the host may write by functions that are not counted."""
    monkeypatch.setenv("WAY", "fresh")
    first, *others = own_cu.count("k.cu").launches
    (found,) = first.hazards
    assert (found.mistake, found.space, found.times, found.threads) == ("unwritten", "global", 4, (60, 60))
    assert "// of reversed" in SOURCE.splitlines()[found.one[1] - 1] and not any(launch.hazards for launch in others)


def test_reads_just_behind_an_array_are_accused(here, monkeypatch):
    """Memory can be touched there, as on a GPU, whose arrays begin every 256 bytes; nothing crashes."""
    monkeypatch.setenv("WAY", "behind")
    (found,) = own_cu.count("k.cu").launches[0].hazards
    assert (found.mistake, found.space, found.times, found.threads) == ("outside", "global", 4, (60, 60))
    assert "// of reversed" in SOURCE.splitlines()[found.one[1] - 1]


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", SEEN)
def test_a_call_that_goes_wrong_is_named(here, monkeypatch, way):
    monkeypatch.setenv("WAY", way)
    with pytest.raises(own_cu.CannotCount) as error:
        own_cu.count("k.cu", seconds=1 if way == "endless" else 60)
    line = next((number for number, text in enumerate(SOURCE.splitlines(), 1) if f'is("{way}")' in text), None)
    assert str(error.value) == SEEN[way].replace("LAUNCH", f"the call failed: the launch in k.cu:{line}")


def test_a_place_has_the_users_name_of_the_file(tmp_path):
    """Compilers saw another one."""
    told = f"the launch in {tmp_path}/text/source.cu:9: dead-lock: threads 0-15 at __syncthreads in source.cu:3"
    assert own_cu._what_happened("refused", told, tmp_path, Path("a b.cu"), {}) == (
        "the call failed: the launch in a b.cu:9: dead-lock: threads 0-15 at __syncthreads in a b.cu:3")


def test_a_failed_assertion_is_shown(here, monkeypatch):
    monkeypatch.setenv("WAY", "assert")
    with pytest.raises(own_cu.CannotCount) as error:
        own_cu.count("k.cu")
    printed, what = str(error.value).splitlines()
    assert "k.cu:" in printed and "Assertion `argc == 2' failed." in printed
    assert what == "the call crashed: called abort, as a failed assert does"


def test_no_shell_reads_a_path_or_a_call(here, monkeypatch):
    """What the C++ of a call starts is its own affair; nothing is left in the folder of the source."""
    def forbidden(*words, **options):
        raise AssertionError("a shell")

    popen = subprocess.Popen
    monkeypatch.setattr(os, "system", forbidden)
    monkeypatch.setattr(subprocess, "Popen", lambda words, **options: (
        forbidden() if options.get("shell") or isinstance(words, str) else popen(words, **options)))
    monkeypatch.setenv("WAY", "shell")
    counted = own_cu.count("k.cu")
    assert counted.printed == "status 0\n" and counted.launches[0].kernel == "put"
    assert row(counted, 0, "of put", "store", "global").file == "k.cu"
    assert sorted(path.name for path in here.iterdir()) == ["k.cu", "more.h"]


def test_errors_of_the_compiler_have_the_users_lines(here):
    """Those of the file, of a header of the user's, and of the call."""
    wrong = here.parent / "wrong"
    wrong.mkdir(exist_ok=True)
    (wrong / "w.cu").write_text('#include "w.h"\n\n__global__ void k(int* x) { x[0] = y; }\n')
    (wrong / "w.h").write_text("inline int f() { return z; }\n")
    with pytest.raises(own_cu.CannotCount) as error:
        own_cu.count(str(wrong / "w.cu"), "int n = 1;\nk<<<1, 1>>>(n);")
    text = str(error.value)
    assert f"\n{wrong}/w.cu:3: error: 'y' was not declared" in text
    assert f"\n{wrong}/w.h:1: error: 'z' was not declared" in text and "--call:2:" in text
    assert text.startswith(f"{wrong}/w.cu and its call do not compile:\n") and "genmini/counted" not in text


def test_what_is_no_source_is_refused(here, monkeypatch):
    (here.parent / "latin.cu").write_bytes(b"// \xe9t\xe9\n")
    (here.parent / "folder.cu").mkdir(exist_ok=True)
    (here.parent / "empty.cu").write_text("int f();\n")
    for name, words in (("none.cu", "there is no file ../none.cu"), ("folder.cu", "../folder.cu is no file"),
                        ("latin.cu", "../latin.cu is no text in UTF-8: see byte 3")):
        with pytest.raises((ValueError, OSError), match=words):
            own_cu.count(f"../{name}", "k<<<1, 1>>>();")
    (here.parent / "of_latin.cu").write_text('#include "latin.cu"\n')
    with pytest.raises(ValueError, match=f"{re.escape(str(here.parent))}/latin.cu is no text in UTF-8: see byte 3"):
        own_cu.count("../of_latin.cu", "k<<<1, 1>>>();")
    with pytest.raises(own_cu.NoCall, match="empty.cu has no kernel, that is a function `__global__ void name"):
        own_cu.count("../empty.cu")
    with pytest.raises(own_cu.NoCall) as error:
        own_cu.count(TRANSPOSE)
    assert "\n  tiled<int W>(const float* x, float* y, int n)\n" in str(error.value)
    assert "--call 'Array<float> x(1024); Array<float> y(1024); naive<<<32, 32>>>(x, y, 1024);'" in str(error.value)


# ---- what is kept ----------------------------------------------------------------------------------------------------


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """A function that compiles without a compiler -> how many times a file and a call were compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    commands = []

    def output(words, folder):
        commands.append(words)
        Path(folder, words[words.index("-o") + 1]).write_text("a library")

    monkeypatch.setattr(own_cu, "_output", output)

    def compile(path, call="k();"):
        folder = own_cu._compiled(*own_cu.read(path), call, str(path))
        return folder, sum("own.cu" in words for words in commands)

    return compile


def test_what_did_not_change_is_compiled_once(tmp_path, compiled):
    one, other = tmp_path / "a" / "k.cu", tmp_path / "b" / "k.cu"
    for path in (one, other):
        path.parent.mkdir()
        path.write_text('# include  "h.h"\n')
        (path.parent / "h.h").write_text("1")
    first, times = compiled(one)
    assert times == 1 and compiled(one) == (first, 1)
    assert compiled(other)[1] == 2 and compiled(other)[0] != first  # of the same name and contents
    assert compiled(one, "l();")[1] == 3
    one.write_text('# include  "h.h"\n// changed')
    assert compiled(one)[1] == 4
    (one.parent / "h.h").write_text("2")
    assert compiled(one)[1] == 5 and compiled(other)[1] == 5


def test_few_calls_are_kept_and_a_cache_that_cannot_be_written_is_done_without(tmp_path, compiled, monkeypatch):
    path = tmp_path / "k.cu"
    path.write_text("")
    monkeypatch.setattr(own_cu, "KEPT", 3)
    for i in range(5):
        last, _ = compiled(path, f"k({i});")
        os.utime(last, (i, i))
    assert len([each for each in last.parent.iterdir() if each.is_dir()]) == 3
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # a file
    elsewhere, times = compiled(path)
    assert times == 6 and (elsewhere / "own.counted.so").exists() and tmp_path not in elsewhere.parents


@pytest.mark.skipif(build.compiler("cuda") is None, reason="there is no nvcc")
def test_nvcc_compiles_the_same_call(here, monkeypatch):
    """From a path that a shell would take apart; nvcc starts one."""
    monkeypatch.setenv("WAY", "shell")
    library = own_cu.count("k.cu").library()
    assert library.built, library.log
    assert sorted(path.name for path in here.iterdir()) == ["k.cu", "more.h"]
    assert not list(library.path.parent.rglob("pwned*"))


@pytest.mark.parametrize("function, wanted", [
    ("void each<main::{lambda(int)#2}>(int, main::{lambda(int)#2})", False),
    ("void f<float>(float*) [clone .constprop.0]", False),
    ("decltype (((*(({lambda((auto:1)...)#1} const* const)0)).(operator()<int>))(static_cast<int&&>({parm#1}))) "
     "main::{lambda((auto:1)...)#1}::_FUN<int, main::{lambda(int)#2}>(int, main::{lambda(int)#2})", True),
    ("host<float>(float*)::{lambda((auto:1)...)#2}::operator()<float*>(float*) const", True),
])
def test_a_kernel_whose_template_argument_is_a_lambda_is_none(function, wanted):
    assert count.of_a_lambda(function) == wanted
