"""Compile csrc/ into plain shared libraries beside kernels/; never imports torch.

The libraries are plain C (no Python, no PyTorch inside): they are installed as data of genmini.kernels, and no
extension module is needed. A missing or failing compiler does not stop the installation, unless GENMINI_STRICT=1: the
reference works without one, and `genmini info` prints the end of the compiler's log.
"""

import os
import sys

from setuptools import Distribution, find_packages, setup
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
    def has_ext_modules(self):  # the wheel holds shared libraries: it belongs to one platform
        return True


setup(
    distclass=BinaryDistribution,
    cmdclass={"build_py": BuildWithKernels},
    package_dir={"genmini": "genmini", "genmini.kernels": "kernels", "genmini.csrc": "csrc"},
    packages=[*find_packages(HERE, include=["genmini", "genmini.*"]), "genmini.kernels", "genmini.csrc"],
    package_data={
        "genmini": ["py.typed", "shipped/*/*"],
        "genmini.page": ["*.html", "*.css", "*.js"],
        "genmini.data": ["*.npz", "*.txt"],
        "genmini.csrc": ["**/*.cu", "**/*.cpp", "**/*.h", "**/*.gdb"],  # whatever folders it has
    },
)
