"""Run pytest in many folders, each in a fork of one process that has imported the libraries: a run starts in less
than a second where a new process takes five.

    runs = Forks(environment)
    code, output = runs.pytest(folder, "-x", "-q", "tests/kernels/test_nade.py", "-k", "emulated")

The first process imports nothing of genmini: each fork imports that of its folder.
"""

import json
import os
import subprocess
import sys
import tempfile


class Forks:
    def __init__(self, environment):
        self.process = subprocess.Popen([sys.executable, __file__], env=environment, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def pytest(self, folder, *arguments):
        """-> exit code, what it printed"""
        with tempfile.NamedTemporaryFile("r") as output:
            order = dict(folder=str(folder), arguments=arguments, output=output.name)
            print(json.dumps(order), file=self.process.stdin, flush=True)
            return int(self.process.stdout.readline()), output.read()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def run(folder, arguments, output):
    """In the fork: what `python -m pytest` does in this folder."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    file = os.open(output, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(folder)
    sys.path[0] = folder
    import pytest

    code = int(pytest.main(arguments))
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


def main():
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch._dynamo  # noqa: F401
    import triton  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            run(**order)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
