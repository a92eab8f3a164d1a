"""What the kernels of a user's own .cu do to memory, counted on a CPU: a file and a call, nothing is registered.

    counted = count("my.cu", "Array<float> x(64), y(64); copy<<<1, 64>>>(x, y);")
    for launch in counted.launches: print(launch.kernel, launch.rows)

The call is statements of C++. csrc/unit.py puts file and call into one translation unit, g++ compiles it with
counters, and a process of its own runs it (csrc/run_call.py): what crashes or hangs there ends nothing here. Compilers
and the process are started from lists of words: no shell reads a path or a call. What was compiled stays in the user's
cache until the file, what it includes, the call, or the compiler changes.

    used by: genmini/cli/count.py    test: tests/kernels/test_count_own.py
"""

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from genmini import files, kernels
from genmini.counting import Counted, merged
from genmini.csrc import build, unit
from genmini.csrc import count as counters

HEADER = build.CSRC / "own" / "call.h"
FLAGS = ["-w", "-fmax-errors=4", f"-I{HEADER.parent}"]
FLAGS += ["-fno-show-column", "-fno-diagnostics-show-caret"]  # columns are those of the rewritten line
SECONDS = 60  # that a call may take
KEPT = 20  # calls that stay compiled
SHOWN = 24  # lines of a compiler's output
PRINTED = 20_000  # bytes of what the call prints


class CannotCount(RuntimeError):
    """The call does not compile, crashes, or does not end: its text has several lines."""


class NoCall(CannotCount):
    """Nobody said which kernels run."""


@dataclass(frozen=True)
class Own(Counted):
    call: str
    printed: str
    folder: Path  # of what was compiled

    @property
    def names(self):
        return super().names | {_safe(self.source): self.source.name}

    def library(self):
        return _by_nvcc(self)


def count(path, call="", seconds=SECONDS):
    """Count the launches of a call of the kernels in a .cu; without a call, of its main()."""
    source, text = read(path)
    if not call and not unit.has_main(text):
        raise NoCall(_without_a_call(path, unit.kernels(text)))
    if counters.missing():
        raise RuntimeError(counters.missing())
    folder = _compiled(source, text, call, str(path))
    told, printed = _run(folder / "own.counted.so", seconds)
    kind, _, rest = told.partition("\n")
    copy = os.path.realpath(folder / "text" / _safe(source))
    names = counters.names(source) | {copy: source.name}
    if kind != "counted":
        raise CannotCount("\n".join([*printed.splitlines(), _what_happened(kind, rest, folder, source, names)]))
    launches = counters.placed(rest, folder / "own.counted.so", names)
    if not launches:
        raise CannotCount(f"the call launches no kernel of {path}: kernel<<<blocks, threads>>>(...) does")
    return Own(source.name, "", {}, merged(launches), source, call, printed, folder)


def read(path):
    """-> the path, resolved, and the text; ValueError or OSError with the reason where there is none."""
    files.check_name(path)
    source = Path(path).resolve()
    if not source.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not source.is_file():
        raise ValueError(f"{path} is no file")
    try:
        return source, source.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: see byte {error.start}") from None
    except OSError as error:
        raise OSError(f"could not read {path}: {error.strerror}") from None


def _without_a_call(path, found):
    if not found:
        return f"{path} has no kernel, that is a function `__global__ void name(...) {{`, and no main()"
    return "\n".join([f"{path} has no main(): say by --call which of its kernels run, and on what. It has",
                      *(f"  {kernel}" for kernel in found), "An example, whose sizes may not be those of the kernel:",
                      f"  genmini count {shlex.quote(str(path))} --call {shlex.quote(unit.example(found))}"])


# ---- compiling -------------------------------------------------------------------------------------------------------


def _safe(source):
    """A name that compilers, debug information and the tools that read it take without quotes."""
    return source.name if re.fullmatch(r"[A-Za-z0-9_][\w.-]*", source.name, re.A) else "source.cu"


def _compiled(source, text, call, shown):
    """-> a folder with own.counted.so: that of before, if all that it is made of is as it was."""
    key = hashlib.sha256(build.key("counted", HEADER).encode())
    for part in (build.contents(source).hexdigest(), str(source), call, *FLAGS):
        key.update(f"{part}\0".encode("utf-8", "surrogateescape"))
    folder = _folder(key.hexdigest()[:24])
    library = folder / "own.counted.so"
    if not library.exists():
        (folder / "text").mkdir(exist_ok=True)
        copy = folder / "text" / _safe(source)  # compilers name this path, which has no character of the user's
        files.write(copy, text.encode())
        files.write(folder / "own.cu", unit.of(text, call, shown, copy).encode())
        files.write(folder / "cuda.cu", unit.for_nvcc(text, call, f"text/{copy.name}").encode())
        with contextlib.suppress(FileExistsError):
            (folder / "user").symlink_to(source.parent)
        fresh = f"own.{os.getpid()}.so"
        compiled, linked = build.commands("counted", Path("own.cu"), fresh)
        linked = [_counters(linked, folder) if word == str(build.COUNTERS) else word for word in linked]
        linked.append("-Wl,-Bsymbolic")  # main() is that of the file, not that of Python
        for words in ([*compiled, *FLAGS, "-iquote", str(folder / "user")], linked):
            log = _output(words, folder)
            if log:
                raise CannotCount(_by_their_names(log, folder, shown, source))
        Path(folder / f"{fresh}.o").unlink(missing_ok=True)
        os.replace(folder / fresh, library)
    os.utime(folder)  # the newest are kept
    return folder


def _counters(linked, folder):
    """The counters, compiled: two thirds of what g++ has to do, and the same for every call."""
    words = [word for word in linked[: linked.index("-Wl,-z,defs")] if word != "-shared"]
    path = folder.parent / f"count.{build.key('counted', HEADER)[:16]}.o"
    if not path.exists():
        for old in folder.parent.glob("count.*.o"):
            old.unlink(missing_ok=True)
        fresh = folder / f"count.{os.getpid()}.o"
        if log := _output([*words, "-c", str(build.COUNTERS), "-o", str(fresh)], folder):
            raise CannotCount(f"the counters do not compile:\n{log}")
        os.replace(fresh, path)
    return str(path)


def _folder(key):
    """In the user's cache, or where nothing can be written there, in a folder that ends with this process."""
    above = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genmini" / "counted"
    try:
        (above / key).mkdir(parents=True, exist_ok=True)
        if not os.access(above / key, os.W_OK):
            raise PermissionError
        by_age = sorted((path for path in above.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
        for old in by_age[:-KEPT]:
            if old.name != key:
                shutil.rmtree(old, ignore_errors=True)
        return above / key
    except OSError:
        here = Path(_lives_as_long().name) / key
        here.mkdir(exist_ok=True)
        return here


_kept = []


def _lives_as_long():
    if not _kept:
        _kept.append(tempfile.TemporaryDirectory(prefix="genmini"))
    return _kept[0]


def _output(words, folder):
    """What a compiler says that refuses, or nothing."""
    done = subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=os.environ | {"LC_ALL": "C"})
    return done.stdout.decode(errors="replace") or f"{words[0]} ended with {done.returncode}" if done.returncode else ""


def _by_their_names(log, folder, shown, source):
    """The compiler's output with the user's paths, shortened."""
    log = log.replace(str(folder / "text" / _safe(source)), shown).replace(str(folder / "user"), str(source.parent))
    ours = "In file included from own.cu", "compilation terminated"
    lines = [line for line in log.splitlines() if not line.startswith(ours)]
    more = [f"... and {len(lines) - SHOWN} more lines"] if len(lines) > SHOWN else []
    return "\n".join([f"{shown} and its call do not compile:", *lines[:SHOWN], *more,
                      "docs/counting.md lists what of CUDA the emulator has"])


def _by_nvcc(own):
    """The kernels.Library that nvcc makes of the same file and call."""
    path = own.folder / "cuda.so"
    if build.compiler("cuda") is None:
        return kernels.Library(own.room, "cuda", path, False, "nvcc was not found on PATH or in CUDA_HOME")
    words = [*build.compiler("cuda"), *build.NVCC, "-w"]
    key = hashlib.sha256(_output([*words[:1], "--no-such-flag"], own.folder).encode() + " ".join(words).encode())
    path = own.folder / f"cuda.{key.hexdigest()[:12]}.so"
    log = ""
    if not path.exists():
        (own.folder / "csrc").unlink(missing_ok=True)
        (own.folder / "csrc").symlink_to(build.CSRC)  # nvcc starts a shell: it gets no path of the user's
        fresh = f"cuda.{os.getpid()}.so"
        log = _output([*words, "-Icsrc", "-Iuser", "-o", fresh, "cuda.cu"], own.folder)
        if not log:
            os.replace(own.folder / fresh, path)
    lines = log.strip().splitlines()
    first = next((line for line in lines if "error" in line), lines[-1] if lines else "")
    first = first.replace(f"text/{_safe(own.source)}", own.source.name)
    return kernels.Library(own.room, "cuda", path, not log, f"nvcc refuses it: {first}" if log else "")


# ---- running ---------------------------------------------------------------------------------------------------------


def _functions(library):
    """"where code arrays where code arrays ...": where a function lies, its bytes, and what the arrays take that it
    declares __shared__; without lambdas, one of which launches a kernel whose template arguments are deduced."""
    done = subprocess.run(["nm", "-C", "-S", str(library)], capture_output=True, text=True)
    symbols = re.findall(r"^([0-9a-f]+) ([0-9a-f]+) (\w) (?:void )?(.*?)(?: \[clone .*)?$", done.stdout, re.M)
    arrays = Counter()
    for _, size, kind, name in symbols:
        if kind in "bBdDuV":
            arrays[name.rpartition("::")[0]] += int(size, 16)
    return " ".join(f"{int(at, 16)} {int(size, 16)} {arrays[name]}" for at, size, kind, name in symbols
                    if kind in "tTwW" and not counters.of_a_lambda(name))


def _run(library, seconds):
    """-> what the process reports (csrc/own/arrays.h), and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        report, printed, functions = (Path(folder) / name for name in ("report", "printed", "functions"))
        functions.write_text(_functions(library))
        words = [sys.executable, "-I", "-S", str(build.CSRC / "run_call.py"), str(library), str(report),
                 str(functions)]
        with open(printed, "wb") as output:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                       start_new_session=True)
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise CannotCount(f"the call did not end within {seconds} s, and was stopped: a loop without end? "
                                  "Smaller sizes take less; --seconds gives it more") from None
            finally:
                with contextlib.suppress(ProcessLookupError):  # and what the call itself started
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        with open(printed, "rb") as output:
            text = output.read(PRINTED).decode(errors="replace")
        if printed.stat().st_size > PRINTED:
            text += f"\n... and {printed.stat().st_size - PRINTED} more bytes"
        told = report.read_text() if report.exists() else ""
        return f"ended\n{status}" if not told or (status and told.startswith("counted")) else told, text


def _what_happened(kind, text, folder, source, names):
    if kind == "crashed":
        offset, _, text = text.partition("\n")
        place = (0 <= int(offset) < 2**40) and counters.frames(folder / "own.counted.so", [int(offset)])[int(offset)]
        file, line = counters.place(place or (), names)
        return f"the call crashed{f' in {file}:{line}' * bool(file)}: {text}"
    if kind == "refused":
        copy = _safe(source)
        text = text.replace(str(folder / "text" / copy), source.name).replace(f" in {copy}:", f" in {source.name}:")
        return f"the call failed: {text}"
    status = int(text)
    if status < 0:
        return f"the call was ended by signal {-status} ({signal.strsignal(-status)}): did memory run out?"
    return f"the call ended its process by exit, with status {status}: it is counted where that is 0"
