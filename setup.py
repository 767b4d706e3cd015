# SPDX-License-Identifier: Apache-2.0
"""Builds the package, which is Python alone. All metadata is in pyproject.toml.

An editable install, `pip install --no-build-isolation -e .`, also builds the kernel of csrc/ in the
tree, where it can. Elsewhere the kernel is the distribution vllm-qllm-cpu, which csrc/ builds.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from setuptools import __version__, setup

# The first that reads the licence in pyproject.toml; a new environment of Python 3.11 has 65.
OLDEST = 77
if int(__version__.split(".")[0]) < OLDEST:
    sys.exit(
        f"vllm-qllm: setuptools is {__version__}; allowed: {OLDEST} or newer. Run "
        f"`pip install --upgrade 'setuptools>={OLDEST}'`, or leave out --no-build-isolation."
    )

from setuptools.command.build import build  # noqa: E402 - not in those that are too old
from setuptools.command.editable_wheel import editable_wheel  # noqa: E402


class Build(build):
    """Starts from nothing: pip installs all that it finds in build/, and leaves it there.

    What was removed from the tree would be installed again.
    """

    def run(self):
        if Path(self.build_lib).is_relative_to(self.build_base):
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class Editable(editable_wheel):
    """Builds the kernel in the tree, where the package looks for it. It says why it cannot."""

    def run(self):
        super().run()
        build_kernel = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", ".."]
        if subprocess.run(build_kernel, cwd="csrc").returncode:
            print("vllm-qllm: installed without the MoE kernel for CPU", file=sys.stderr)


def description():
    """README as a package index can show it, which has no file of the tree.

    Links and pictures lead to the source of this release, once pyproject.toml says where that is
    (`Source` in [project.urls]). Until then pictures and their captions are left out, and what
    would be linked is only named.
    """
    text = Path("README.md").read_text()
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    picture, link = r"!\[([^\]]*)\]\((?!\w+:)([^)]+)\)", r"\[([^\]]*)\]\((?!\w+:|#)([^)]+)\)"
    if source := project.get("urls", {}).get("Source"):
        package = Path("vllm_qllm/__init__.py").read_text()
        release = "v" + re.search(r'^__version__ = "(.+)"$', package, re.MULTILINE)[1]
        text = re.sub(picture, rf"![\1]({source}/raw/{release}/\2)", text)
        return re.sub(link, rf"[\1]({source}/blob/{release}/\2)", text)
    text = re.sub(rf"^{picture}\n+(\*[^*]+\*\n+)?", "", text, flags=re.MULTILINE)
    return re.sub(link, r"\1", text)


setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    cmdclass={"build": Build, "editable_wheel": Editable},
)
