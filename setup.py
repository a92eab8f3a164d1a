"""Compile csrc/ into plain shared libraries beside kernels/; never imports torch.

The libraries are plain C (no Python, no PyTorch inside), so they need no extension module: they travel as data of genmini.kernels.
A compiler that is missing or fails does not stop the installation (GENMINI_STRICT=1 makes it): the reference works without any, and
`genmini info` prints the compiler's last words.
"""

import os
import sys

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "csrc"))
import build as csrc  # noqa: E402  (csrc/build.py)


class BuildWithKernels(build_py):
    def run(self):
        super().run()
        root = HERE if self.editable_mode else os.path.join(self.build_lib, "genmini")
        results = csrc.build(os.path.join(root, "kernels", "lib"))
        broken = csrc.broken(results)
        if broken and os.environ.get("GENMINI_STRICT") == "1":
            sys.exit("\n".join(result.report() for result in broken))


class BinaryDistribution(Distribution):
    def has_ext_modules(self):  # a wheel that holds shared libraries belongs to one platform
        return True


setup(
    distclass=BinaryDistribution,
    cmdclass={"build_py": BuildWithKernels},
    package_dir={"genmini": "genmini", "genmini.kernels": "kernels", "genmini.csrc": "csrc"},
    packages=[
        "genmini", "genmini.cli", "genmini.data", "genmini.metrics", "genmini.models", "genmini.nets", "genmini.studies",
        "genmini.kernels", "genmini.csrc",
    ],
    package_data={
        "genmini.data": ["*.npz", "*.txt"],
        "genmini.metrics": ["digits-v1/*"],
        "genmini.csrc": ["*.cu", "*.cpp", "*.h", "*.py", "cpu/*", "emulator/*"],
    },
)
