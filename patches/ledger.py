# SPDX-License-Identifier: Apache-2.0
"""``ledger.toml``: which diffs there are, and for each why, what upstream has, when it can go."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_qllm.seams import ALL, Seam

HERE = Path(__file__).parent
REPOSITORIES = "https://github.com/"


@dataclass(frozen=True)
class Borrowed:
    """Where vLLM gets hold of a class that is not its own.

    Attributes:
        file: below ``vllm/``.
        holder: the class, as an expression in that file.
    """

    file: str
    holder: str


@dataclass(frozen=True)
class Upstream:
    """An issue or pull request that was read.

    Attributes:
        at: ``owner/repository#number``.
        says: what it has to do with the patch, and its state when it was read.
    """

    at: str
    says: str

    @property
    def link(self) -> str:
        """In Markdown."""
        repository, _, number = self.at.partition("#")
        name = f"#{number}" if repository == "vllm-project/vllm" else self.at
        return f"[{name}]({REPOSITORIES}{repository}/issues/{number})"


@dataclass(frozen=True)
class Patch:
    """One diff.

    Attributes:
        number: from 1; the order in which they apply.
        slug: of its file's name.
        subject: first line of the commit.
        why: the symptom and its cause.
        seams: what it wraps, by the seams' names.
        upstream: what was found there; may be empty.
        can_go: the condition under which it is no longer needed.
        adds: a file beside this one that it adds to ``vllm/``; or "".
        borrowed: by seam, for those whose target is not vLLM's own.
    """

    number: int
    slug: str
    subject: str
    why: str
    seams: tuple[str, ...]
    upstream: tuple[Upstream, ...]
    can_go: str
    adds: str
    borrowed: dict[str, Borrowed]

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.number:04}-{self.slug}.patch"


def seam_named(target: str) -> Seam:
    """The seam of that name; LookupError when there is none."""
    for seam in ALL:
        if str(seam) == target:
            return seam
    raise LookupError(f"ledger.toml names {target}, which is not in vllm_qllm/seams/")


def _patch(number: int, data: dict[str, Any]) -> Patch:
    upstream = tuple(Upstream(**entry) for entry in data.pop("upstream"))
    borrowed = {k: Borrowed(**entry) for k, entry in data.pop("borrowed", {}).items()}
    seams = tuple(data.pop("seams"))
    text = {name: value.strip() for name, value in ({"adds": ""} | data).items()}
    return Patch(number=number, seams=seams, upstream=upstream, borrowed=borrowed, **text)


def read() -> tuple[Patch, ...]:
    """The ledger; TypeError when a field is missing or not known."""
    entries = tomllib.loads((HERE / "ledger.toml").read_text())["patch"]
    return tuple(_patch(number, data) for number, data in enumerate(entries, 1))


def table(patches: tuple[Patch, ...]) -> str:
    """The ledger in Markdown, for README.md."""
    lines = ["| patch | wraps | why | upstream | can go when |", "|---|---|---|---|---|"]
    for patch in patches:
        wraps = "<br>".join(f"`{target}`: {seam_named(target).why}" for target in patch.seams)
        upstream = "<br>".join(f"{entry.link}: {entry.says}" for entry in patch.upstream)
        cells = (patch.name.removesuffix(".patch"), wraps or f"adds `vllm/{patch.adds}`", patch.why)
        lines.append("| " + " | ".join((*cells, upstream or "none found", patch.can_go)) + " |")
    return "\n".join(lines) + "\n"
