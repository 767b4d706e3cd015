# SPDX-License-Identifier: Apache-2.0
"""Builds what csrc/ holds. All metadata is in pyproject.toml.

The kernel is built against the headers of the installed torch, so it needs a C++ compiler and
`--no-build-isolation`. Without them the package installs all the same and uses vLLM's own kernel;
`python -m vllm_qllm.verify` says so.
"""

import importlib.util
import platform
import shutil
import sys
from pathlib import Path

from setuptools import Extension, __version__, setup

NAME = "vllm_qllm.kernels.moe._moe_cpu"
# The first that reads the licence in pyproject.toml; a new environment of Python 3.11 has 65.
OLDEST = 77
if int(__version__.split(".")[0]) < OLDEST:
    sys.exit(
        f"vllm-qllm: setuptools is {__version__}; allowed: {OLDEST} or newer. Run "
        f"`pip install --upgrade 'setuptools>={OLDEST}'`, or leave out --no-build-isolation "
        "(then the MoE kernel for CPU is not built)."
    )

from setuptools.command.build import build  # noqa: E402 - not in those that are too old
from setuptools.command.build_ext import build_ext  # noqa: E402


class Build(build):
    """Starts from nothing: pip installs all that it finds in build/, and leaves it there.

    What was built for another torch, or removed from the tree, would be installed again.
    """

    def run(self):
        if Path(self.build_lib).is_relative_to(self.build_base):
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BuildKernels(build_ext):
    """Builds a library that is loaded with ctypes: it has one name for all versions of Python."""

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext):
        # Always: that torch is another one is not seen in the times of its files.
        self.force = True
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        try:
            super().build_extension(ext)
        except Exception as error:
            tell(f"the compiler failed: {error}")
            raise


def tell(reason):
    print(f"vllm-qllm: the MoE kernel for CPU is not built: {reason}", file=sys.stderr)


def kernels():
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        tell(f"it is for Linux on x86-64, this is {sys.platform} on {platform.machine()}")
        return []
    torch = importlib.util.find_spec("torch")
    if torch is None:
        tell("torch is not installed here; install with --no-build-isolation beside it")
        return []
    root = Path(torch.submodule_search_locations[0])
    headers = [str(root / "include"), str(root / "include/torch/csrc/api/include")]
    return [
        Extension(
            NAME,
            ["csrc/moe_cpu.cpp"],
            depends=[str(path) for path in sorted(Path("csrc").glob("*.h"))],
            # What torch's headers and the compiler's own are warned about is not ours to mend.
            extra_compile_args=["-std=c++20", "-O2", "-fopenmp", "-Wall", "-Wextra"]
            + ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
            + [arg for header in headers for arg in ("-isystem", header)],
            extra_link_args=["-fopenmp"],
            library_dirs=[str(root / "lib")],
            libraries=["torch_cpu", "c10"],
            language="c++",
            optional=True,  # a failed compilation leaves a package without it
        )
    ]


setup(ext_modules=kernels(), cmdclass={"build": Build, "build_ext": BuildKernels})
