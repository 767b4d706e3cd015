# SPDX-License-Identifier: Apache-2.0
"""The programs that tests of ``deploy/`` run: nginx, Prometheus and checkers, in ``.deploy/``.

``python -m tests.deploy.tools`` puts them there: Debian's or Ubuntu's packages unpacked, not
installed, and Python packages in a directory of their own. No root is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TREE = Path(__file__).parents[2]
TOOLS = TREE / ".deploy"
LOCK = TREE / "requirements/deploy.lock"
PACKAGES = ("nginx", "prometheus")
PROGRAMS = {
    "nginx": TOOLS / "root/usr/sbin/nginx",
    "prometheus": TOOLS / "root/usr/bin/prometheus",
    "promtool": TOOLS / "root/usr/bin/promtool",
    "hadolint": TOOLS / "python/bin/hadolint",
}
PYTHON = TOOLS / "python"


class MissingToolError(RuntimeError):
    """A tool is not there, or cannot be made; the message says what to do."""


def program(name: str) -> str:
    """The path of a program.

    Raises:
        MissingToolError: it is not installed.
    """
    if not PROGRAMS[name].is_file():
        raise MissingToolError(f"{PROGRAMS[name]} is not there: run `make deploy-tools`")
    return str(PROGRAMS[name])


def module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m name`` with the Python packages of the tools.

    Raises:
        MissingToolError: they are not installed.
    """
    if not PYTHON.is_dir():
        raise MissingToolError(f"{PYTHON} is not there: run `make deploy-tools`")
    environment = os.environ | {"PYTHONPATH": str(PYTHON)}
    command = [sys.executable, "-m", name, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=TREE)


def _run(*command: str, cwd: Path = TREE) -> str | None:
    """None when the command succeeds, else the end of what it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    return f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-800:]}"


def _download(packages: Sequence[str], directory: Path) -> None:
    """Fetch the newest packages, by the lists of this machine or, failing that, by fresh ones."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise MissingToolError("nginx and Prometheus come from apt packages; apt-get is not here")
    # Only root may become another user for the download, and only root has to.
    download = ("apt-get", "-q", "-o", f"APT::Sandbox::User={_user()}")
    if _run(*download, "download", *packages, cwd=directory) is None:
        return
    # The lists are missing or old. Lists of our own need no root.
    own = directory / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (own / part).mkdir(parents=True, exist_ok=True)
    options = ("-o", f"Dir::State::lists={own}/lists", "-o", f"Dir::Cache={own}/cache")
    for step in (("update",), ("download", *packages)):
        if failure := _run(*download, *options, *step, cwd=directory):
            raise MissingToolError(f"apt cannot fetch {', '.join(packages)}: {failure}")


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def unpack(packages: Sequence[str], directory: Path, downloads: Path) -> None:
    """Unpack Debian packages, without what they depend on, into a directory.

    Raises:
        MissingToolError: apt is missing or cannot fetch them.
    """
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir(parents=True)
    _download(packages, downloads)
    for package in sorted(downloads.glob("*.deb")):
        if failure := _run("dpkg", "-x", str(package), str(directory)):
            raise MissingToolError(failure)
    shutil.rmtree(downloads)


def install() -> None:
    """Make everything anew, unless it is there and as old as the lock.

    Raises:
        MissingToolError: as its message says.
    """
    stamp = TOOLS / "installed"
    wanted = f"{' '.join(PACKAGES)}\n{LOCK.read_text()}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    shutil.rmtree(TOOLS, ignore_errors=True)
    TOOLS.mkdir()
    unpack(PACKAGES, TOOLS / "root", TOOLS / "downloads")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile")
    if failure := _run(*pip, "--target", str(PYTHON), "-r", str(LOCK)):
        raise MissingToolError(failure)
    for name in ("nginx", "prometheus", "promtool", "hadolint"):
        option = "-v" if name == "nginx" else "--version"
        if failure := _run(program(name), option):
            raise MissingToolError(f"{name} does not run here: {failure}")
    stamp.write_text(wanted)


if __name__ == "__main__":
    try:
        install()
    except MissingToolError as error:
        sys.exit(f"deploy-tools: {error}")
    print(f"{TOOLS.name}/ is ready: {', '.join(PROGRAMS)}")
