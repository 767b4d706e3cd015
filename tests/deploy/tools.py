# SPDX-License-Identifier: Apache-2.0
"""The programs that tests run beside the server: nginx, Prometheus, Ray, checkers and a browser.

``python -m tests.deploy.tools`` puts them into ``.deploy/``: Debian's or Ubuntu's packages
unpacked, not installed, and Python packages in a directory of their own. No root is needed.
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
RAY_LOCK = TREE / "requirements/ray.lock"
PACKAGES = ("nginx", "prometheus")
# Unpacked with the libraries that this machine lacks. Ubuntu has no such package: CHROMIUM names
# the program of a machine that has one.
BROWSER = "chromium-headless-shell"
OWN_BROWSER = os.environ.get("CHROMIUM")
PROGRAMS = {
    "nginx": TOOLS / "root/usr/sbin/nginx",
    "prometheus": TOOLS / "root/usr/bin/prometheus",
    "promtool": TOOLS / "root/usr/bin/promtool",
    "hadolint": TOOLS / "python/bin/hadolint",
    "chromium": Path(OWN_BROWSER or TOOLS / f"browser/usr/lib/chromium/{BROWSER}"),
}
# Where it is installed, lib is usr/lib; packages have both.
BROWSER_LIBRARIES = tuple(
    str(TOOLS / "browser" / directory)
    for directory in (
        "usr/lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu/pulseaudio",
        "lib/x86_64-linux-gnu",
    )
)
PYTHON = TOOLS / "python"
RAY = TOOLS / "ray"


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


def module(name: str, *arguments: str, directory: Path = TREE) -> subprocess.CompletedProcess[str]:
    """Run ``python -m name`` with the Python packages of the tools, in a directory.

    Raises:
        MissingToolError: they are not installed.
    """
    if not PYTHON.is_dir():
        raise MissingToolError(f"{PYTHON} is not there: run `make deploy-tools`")
    environment = os.environ | {"PYTHONPATH": str(PYTHON)}
    command = [sys.executable, "-m", name, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=directory)


def _run(*command: str, cwd: Path = TREE) -> str | None:
    """None when the command succeeds, else the end of what it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    return f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-800:]}"


def _download(packages: Sequence[str], directory: Path, dependencies: bool) -> None:
    """Fetch the newest packages, by the lists of this machine or, failing that, by fresh ones."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise MissingToolError("nginx and Prometheus come from apt packages; apt-get is not here")
    # Only root may become another user for the download, and only root has to.
    download = ("apt-get", "-q", "-o", f"APT::Sandbox::User={_user()}")
    lacking = _lacking(packages) if dependencies else []
    if _run(*download, "download", *packages, *lacking, cwd=directory) is None:
        return
    # The lists are missing or old. Lists of our own need no root.
    own = directory / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (own / part).mkdir(parents=True, exist_ok=True)
    options = ("-o", f"Dir::State::lists={own}/lists", "-o", f"Dir::Cache={own}/cache")
    if failure := _run(*download, *options, "update", cwd=directory):
        raise MissingToolError(f"apt cannot fetch its lists: {failure}")
    lacking = _lacking(packages, *options) if dependencies else []
    if failure := _run(*download, *options, "download", *packages, *lacking, cwd=directory):
        raise MissingToolError(f"apt cannot fetch {', '.join(packages)}: {failure}")


def _lacking(packages: Sequence[str], *options: str) -> list[str]:
    """What else apt would install; nothing when it knows no such package."""
    simulate = ("apt-get", "-q", "-s", "--no-install-recommends", *options, "install", *packages)
    told = subprocess.run(simulate, capture_output=True, text=True).stdout.splitlines()
    named = [line.split()[1] for line in told if line.startswith("Inst ")]
    return [name for name in named if name not in packages]


def libraries(name: str) -> dict[str, str]:
    """Environment variables by which a program finds libraries that are not installed."""
    if name != "chromium" or OWN_BROWSER:
        return {}
    return {"LD_LIBRARY_PATH": ":".join(BROWSER_LIBRARIES)}


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def unpack(
    packages: Sequence[str], directory: Path, downloads: Path, *, dependencies: bool = False
) -> None:
    """Unpack Debian packages into a directory.

    Args:
        packages: their names.
        directory: where to.
        downloads: a directory for the packages themselves, which is removed.
        dependencies: unpack what they depend on, too, if this machine lacks it.

    Raises:
        MissingToolError: apt is missing or cannot fetch them.
    """
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir(parents=True)
    _download(packages, downloads, dependencies)
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
    packages = " ".join((*PACKAGES, OWN_BROWSER or BROWSER))
    wanted = "\n".join((packages, LOCK.read_text(), RAY_LOCK.read_text()))
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    shutil.rmtree(TOOLS, ignore_errors=True)
    TOOLS.mkdir()
    unpack(PACKAGES, TOOLS / "root", TOOLS / "downloads")
    if not OWN_BROWSER:
        unpack([BROWSER], TOOLS / "browser", TOOLS / "downloads", dependencies=True)
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile")
    for directory, lock in ((PYTHON, LOCK), (RAY, RAY_LOCK)):
        if failure := _run(*pip, "--target", str(directory), "-r", str(lock)):
            raise MissingToolError(failure)
    for name in PROGRAMS:
        option = "-v" if name == "nginx" else "--version"
        if failure := _run(
            "env", *(f"{k}={v}" for k, v in libraries(name).items()), program(name), option
        ):
            raise MissingToolError(f"{name} does not run here: {failure}")
    stamp.write_text(wanted)


if __name__ == "__main__":
    try:
        install()
    except MissingToolError as error:
        sys.exit(f"deploy-tools: {error}")
    print(f"{TOOLS.name}/ is ready: {', '.join(PROGRAMS)}")
