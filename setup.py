# SPDX-License-Identifier: Apache-2.0
"""Builds what csrc/ holds. All metadata is in pyproject.toml.

The kernel is built against the headers of the installed torch, so it needs a C++ compiler and
`--no-build-isolation`. Without them the package installs all the same and uses vLLM's own kernel;
`python -m vllm_qllm.verify` says so.
"""

import importlib.util
import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NAME = "vllm_qllm.kernels.moe._moe_cpu"


class BuildKernels(build_ext):
    """Builds a library that is loaded with ctypes: it has one name for all versions of Python."""

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext):
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


setup(ext_modules=kernels(), cmdclass={"build_ext": BuildKernels})
