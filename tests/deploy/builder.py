# SPDX-License-Identifier: Apache-2.0
"""Buildah, which builds a Dockerfile without a Docker engine, and a base image made on the spot.

Everything lies in ``.deploy/images``, layers included, so that a second build is quick. Needs root,
for mounts and chroot; what is mounted goes with the mount namespace that each command gets.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.deploy.tools import TOOLS, TREE, MissingToolError, unpack

IMAGES = TOOLS / "images"
PROGRAMS = IMAGES / "programs"
# Buildah and the libraries that a machine without it lacks.
PACKAGES = (
    *("buildah", "golang-github-containers-common", "golang-github-containers-image"),
    *("libgpgme11", "libassuan0", "libsubid4", "debootstrap"),
)
BASE = "localhost/debian:bookworm-slim"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Buildah starts itself again without LD_LIBRARY_PATH: its libraries have to be where all are.
NAMESPACE = (
    f"mount -t overlay overlay -o lowerdir={PROGRAMS}/{LIBRARIES}:/{LIBRARIES} /{LIBRARIES} "
    '&& exec "$@"'
)


def buildah(*arguments: str) -> list[str]:
    """The command line of a command of buildah."""
    storage = ("--root", f"{IMAGES}/storage", "--runroot", f"{IMAGES}/run")
    program = (f"{PROGRAMS}/usr/bin/buildah", *storage, "--storage-driver", "overlay")
    return ["unshare", "--mount", "sh", "-c", NAMESPACE, "sh", *program, *arguments]


def environment() -> dict[str, str]:
    """Buildah's own configuration: nothing of this machine's."""
    for name, text in (
        ("registries.conf", ""),
        ("containers.conf", ""),
        ("policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}'),
    ):
        (IMAGES / name).write_text(text)
    return os.environ | {
        "REGISTRIES_CONFIG_PATH": f"{IMAGES}/registries.conf",
        "CONTAINERS_CONF": f"{IMAGES}/containers.conf",
    }


def call(command: Sequence[str], **more: str) -> str:
    """Run a command to its end; what it says on standard output.

    Raises:
        AssertionError: it failed; with the end of what it said.
    """
    done = subprocess.run(command, env=environment() | more, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{(done.stdout + done.stderr)[-6000:]}"
    return done.stdout


def policy() -> tuple[str, str]:
    """The option that says whose images are taken: those made here."""
    return ("--signature-policy", f"{IMAGES}/policy.json")


def install() -> None:
    """Fetch the programs and make the base image, unless they are there.

    Raises:
        MissingToolError: not root, or apt cannot fetch the programs.
    """
    if os.getuid() != 0:
        raise MissingToolError("images are built in a chroot, which needs root: use sudo")
    IMAGES.mkdir(parents=True, exist_ok=True)
    if not (PROGRAMS / "usr/bin/buildah").is_file():
        unpack(PACKAGES, PROGRAMS, IMAGES / "downloads")
    if BASE in call(buildah("images", "--format", "{{.Name}}:{{.Tag}}")).split():
        return
    # What is in Debian's slim image, but for its documentation; from debootstrap's own mirror.
    root = IMAGES / "root"
    script = PROGRAMS / "usr/sbin/debootstrap"
    call(
        # It mounts /proc, which must not stay if it is stopped.
        ["unshare", "--mount", str(script), "--variant=minbase", "bookworm", str(root)],
        DEBOOTSTRAP_DIR=f"{PROGRAMS}/usr/share/debootstrap",
    )
    container = call(buildah("from", "scratch")).strip()
    call(buildah("add", "--quiet", container, str(root), "/"))
    call(buildah("commit", "--rm", *policy(), container, BASE))
    call(["rm", "-rf", str(root)])


def pip_mounts() -> list[str]:
    """Options that let pip in a build find packages where pip finds them on this machine."""
    listed = call([sys.executable, "-m", "pip", "config", "list"])
    # An environment variable wins over a file.
    settings = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = value.strip("'").replace("\\n", " ")
    mounted = {}
    for name in ("find-links", "index-url", "extra-index-url"):
        for place in settings.get(name, "").split():
            path = Path(place.removeprefix("file://"))
            # Pages of an index link to files that lie beside it.
            path = path if name == "find-links" else path.parent
            if path.is_absolute() and path.exists() and path != Path("/"):
                mounted[path] = str(path)
    for place in settings.get("constraint", "").split():
        if Path(place).is_file():
            mounted[Path(place)] = place
    if CERTIFICATES.exists():
        mounted[CERTIFICATES] = settings["cert"] = "/etc/ssl/host.pem"
    configuration = IMAGES / "pip.conf"
    lines = [f"{name} = {value}" for name, value in settings.items()]
    configuration.write_text("\n".join(["[global]", *lines, ""]))
    mounted[configuration] = "/etc/pip.conf"
    return [part for at, to in mounted.items() for part in ("--volume", f"{at}:{to}:ro")]


def build(target: str, tag: str, **arguments: str) -> str:
    """Build a target of the Dockerfile; returns all that was said.

    Args:
        target: a stage.
        tag: of the image.
        arguments: of the build; DEBIAN_IMAGE is given.
    """
    given = {"DEBIAN_IMAGE": BASE} | arguments
    options = [part for name, v in given.items() for part in ("--build-arg", f"{name}={v}")]
    return call(
        buildah(
            *("bud", "--isolation", "chroot", "--network", "host", "--layers", "--pull-never"),
            *("--format", "docker", "--target", target, "--tag", tag, *policy()),
            *options,
            *pip_mounts(),
            str(TREE),
        )
    )
