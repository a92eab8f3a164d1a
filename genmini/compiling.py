"""What Triton's compiler makes of a room's kernels for a card: registers, shared memory, spills.

    usage = of("q_sample", ["fused"], dict(N=2, D=96), [80, 90])       {(90, "fused N=2 D=96 ..."): Usage(...), ...}

Triton is an interpreter or a compiler for a whole process, and this one interprets. So a child process runs the same
room on the same inputs, where each launch stops behind the compiler; the outputs are what lay in memory, which nobody
reads. No GPU is needed: ptxas comes with Triton. The keys are those of what is counted (kernels/_tiles.py).

    used by: genmini/predict.py    test: tests/kernels/test_count_tiles.py
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from genmini import counting, kernels
from genmini.csrc import compiled
from genmini.kernels import _backend, _tiles


def of(room, rungs, sizes, architectures):
    """-> {(architecture, kernel and its arguments): Usage} of the rungs' launches, and why there is none, or ""."""
    if compiled.missing():
        return {}, compiled.missing()
    given = dict(room=room, rungs=[*rungs], sizes=sizes, architectures=[*architectures])
    environment = os.environ | {"TRITON_INTERPRET": "0", "GENMINI_BACKEND": "auto",
                                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "usage.json"
        words = [sys.executable, "-m", "genmini.compiling", json.dumps(given | dict(path=str(found)))]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        if done.returncode:
            return {}, f"Triton did not compile: {(done.stderr.strip() or 'no word of it').splitlines()[-1]}"
        found = json.loads(found.read_text())
    return {(architecture, kernel): compiled.Usage(**usage) for architecture, kernel, usage in found}, ""


def child(path, room, rungs, sizes, architectures):
    """Compile, and write [[architecture, kernel and its arguments, what it takes]] as JSON."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class NoDevice:
        architecture = None
        get_current_target = staticmethod(lambda: GPUTarget("cuda", NoDevice.architecture, 32))
        get_current_device = staticmethod(lambda: NoDevice.architecture)  # each has kernels of its own
        get_current_stream = staticmethod(lambda device=0: 0)

    binaries, run = {}, JITFunction.run

    def compile_only(kernel, *arguments, grid, warmup, **options):
        binary = run(kernel, *arguments, grid=grid, warmup=True, **options)
        name = _tiles.binary(kernel.__name__, _tiles.texts(kernel.arg_names, arguments, options))
        binaries[NoDevice.architecture, name] = binary

    driver.set_active(NoDevice())
    _backend._cannot_emulate = lambda *_: ""  # it would, if it interpreted
    JITFunction.run = compile_only
    for NoDevice.architecture in architectures:
        for rung in rungs:
            call = counting.made(room, **sizes)
            with kernels.use("emulated", rung):
                call()
    found = [[*key, asdict(usage_of(binary))] for key, binary in binaries.items()]
    Path(path).write_text(json.dumps(found))


def usage_of(binary):
    """Triton asks for shared memory at the launch: the machine code knows nothing of it."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(binary.asm["cubin"])
        text = compiled.output([compiled.tool("cuobjdump"), "-res-usage", file.name])
    ((_, registers, stack, _, local),) = compiled.FUNCTION.findall(text)
    return compiled.Usage(int(registers), binary.metadata.shared, int(stack), int(local))


if __name__ == "__main__":
    child(**json.loads(sys.argv[1]))
