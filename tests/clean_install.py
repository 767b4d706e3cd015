# SPDX-License-Identifier: Apache-2.0
"""``python tests/clean_install.py DIST [VENV]``: installs what DIST holds, and runs ``verify``.

First in an empty environment, without a compiler: the wheel needs neither that nor torch. Then, if
VENV holds vLLM for the CPU and is of the same Python, in one that has what VENV has: there the
kernel is built from its source distribution, and serving must work. Ends with the status 1 when
something is not as it should be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any


class Environment:
    """A virtual environment without pip, into which another interpreter's pip installs.

    Attributes:
        python: its interpreter.
    """

    def __init__(self, directory: Path) -> None:
        venv.create(directory, symlinks=True)
        self.python = directory / "bin" / "python"
        (self._packages,) = directory.glob("lib/python*/site-packages")

    def add(self, other: Path) -> bool:
        """Find here, behind our own packages, those of another environment of the same Python.

        Returns:
            whether it is one.
        """
        packages = other.absolute() / self._packages.relative_to(self.python.parents[1])
        (self._packages / "other.pth").write_text(f"{packages}\n")
        return packages.is_dir()

    def install(
        self, *what: Path | str, path: str = os.environ["PATH"]
    ) -> subprocess.CompletedProcess[str]:
        """Install with pip, without dependencies.

        Args:
            what: arguments of ``pip install``.
            path: PATH meanwhile.
        """
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--no-deps"]
        return subprocess.run(
            [*pip, *map(str, what)],
            env=self._environ(path),
            capture_output=True,
            text=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run its interpreter outside of the tree; what it says is in the result."""
        command = [str(self.python), *arguments]
        return subprocess.run(
            command,
            cwd=self.python.parent,
            env=self._environ(os.environ["PATH"]),
            capture_output=True,
            text=True,
        )

    def verify(self) -> dict[str, Any]:
        """The report of ``verify``, and its exit status as ``status``."""
        done = self.run("-m", "vllm_qllm.verify", "--json")
        if not done.stdout:
            raise RuntimeError(done.stderr)
        return json.loads(done.stdout) | {"status": done.returncode}

    @staticmethod
    def _environ(path: str) -> dict[str, str]:
        leaves = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return leaves | {"PATH": path}


def _state(report: dict[str, Any], name: str) -> str:
    return next(f"{f['state']}: {f['detail']}" for f in report["findings"] if f["name"] == name)


def main(dist: Path, base: Path | None) -> str | None:
    """None when all is well, else what is not."""
    (wheel,) = dist.glob("vllm_qllm-*-py3-none-any.whl")
    (kernel,) = dist.glob("vllm_qllm_cpu-*.tar.gz")
    with tempfile.TemporaryDirectory() as made:
        empty = Environment(Path(made) / "empty")
        done = empty.install("--no-index", wheel, path="")
        if done.returncode:
            return f"{wheel.name} cannot be installed: {done.stderr}"
        report = empty.verify()
        release = wheel.name.split("-")[1]
        print(f"{wheel.name} in an empty environment:")
        for name in ("entry point", "vLLM", "policies", "shared memory"):
            print(f"  {name}: {_state(report, name)}")
        if report["versions"]["vllm-qllm"] != release or report["status"] != 1:
            return f"verify says {report}"
        beside = Environment(Path(made) / "beside")
        if base is None or not beside.add(base):
            print("No vLLM for this Python to install it beside: serving is not verified.")
            return None
        done = beside.install("--no-index", "--no-build-isolation", wheel, kernel)
        if done.returncode:
            return f"{kernel.name} cannot be built and installed: {done.stderr}"
        print(f"{wheel.name} and {kernel.name} beside vLLM:")
        print("  " + beside.run("-m", "vllm_qllm.verify").stdout.replace("\n", "\n  "))
        report = beside.verify()
        if report["versions"]["vllm-qllm"] != release or not report["works"]:
            return f"verify says {report}"
        if "not installed" in _state(report, "expert kernel"):
            return f"{kernel.name} is installed, and verify does not find the kernel"
    return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
