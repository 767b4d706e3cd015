# SPDX-License-Identifier: Apache-2.0
"""Builds the kernel against the headers of the installed torch, and packs nothing else.

It needs Linux on x86-64, a C++ compiler, and torch; hence `--no-build-isolation`. Where one of them
is missing it says so and fails: there would be nothing to install.
"""

import importlib.util
import platform
import re
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, __version__, setup

# The first that reads the licence in pyproject.toml; a new environment of Python 3.11 has 65.
OLDEST = 77
if int(__version__.split(".")[0]) < OLDEST:
    sys.exit(
        f"vllm-qllm-cpu: setuptools is {__version__}; allowed: {OLDEST} or newer. Run "
        f"`pip install --upgrade 'setuptools>={OLDEST}'`."
    )

from setuptools.command.bdist_wheel import bdist_wheel  # noqa: E402 - not in those that are too old
from setuptools.command.build_ext import build_ext  # noqa: E402


def release():
    """That of vllm-qllm: in the tree it is read there, in a source distribution it is noted."""
    noted = Path("PKG-INFO")
    source, line = (
        (noted, r"^Version: (.+)$")
        if noted.exists()
        else (Path("../vllm_qllm/__init__.py"), r'^__version__ = "(.+)"$')
    )
    return re.search(line, source.read_text(), re.MULTILINE).group(1)


class BuildKernel(build_ext):
    """Builds a library that is loaded with ctypes: it has one name for all versions of Python."""

    def initialize_options(self):
        super().initialize_options()
        # Nothing of an earlier build, for another torch perhaps, and nothing left in the tree.
        self._temporary = tempfile.TemporaryDirectory()
        self.build_temp = self._temporary.name
        self.force = True

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, extension):
        if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
            fail(f"it is for Linux on x86-64, this is {sys.platform} on {platform.machine()}")
        torch = importlib.util.find_spec("torch")
        if torch is None:
            fail("torch is not installed here; install beside it, with --no-build-isolation")
        root = Path(torch.submodule_search_locations[0])
        for headers in (root / "include", root / "include/torch/csrc/api/include"):
            extension.extra_compile_args += ["-isystem", str(headers)]
        extension.library_dirs = [str(root / "lib")]
        Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
        try:
            super().build_extension(extension)
        except Exception as error:
            fail(f"the compiler failed: {error}")


class Wheel(bdist_wheel):
    """Named for any Python 3, as the library is."""

    def get_tag(self):
        return ("py3", "none", super().get_tag()[2])


def fail(reason):
    sys.exit(f"vllm-qllm: the MoE kernel for CPU is not built: {reason}")


RELEASE = release()
setup(
    version=RELEASE,
    # The package calls its own release of the kernel, and no other.
    install_requires=[f"vllm-qllm=={RELEASE}"],
    ext_modules=[
        Extension(
            "vllm_qllm.kernels.moe._moe_cpu",
            ["moe_cpu.cpp"],
            depends=[str(path) for path in sorted(Path().glob("*.h"))],
            define_macros=[("QLLM_RELEASE", f'"{RELEASE}"')],
            # What torch's headers and the compiler's own are warned about is not ours to mend.
            extra_compile_args=[
                *("-std=c++20", "-O2", "-fopenmp", "-Wall", "-Wextra"),
                *("-Wno-uninitialized", "-Wno-maybe-uninitialized"),
            ],
            extra_link_args=["-fopenmp"],
            libraries=["torch_cpu", "c10"],
            language="c++",
        )
    ],
    cmdclass={"build_ext": BuildKernel, "bdist_wheel": Wheel},
)
