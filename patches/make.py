# SPDX-License-Identifier: Apache-2.0
"""``python -m patches.make``: the diffs and README.md's table, from the ledger and the seams.

Needs the supported vLLM as it was installed; it is read, not imported.
"""

from __future__ import annotations

import difflib
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

from patches.ledger import HERE, Patch, read, seam_named, table
from patches.source import File
from vllm_qllm.contract import SUPPORTED, installed_version

DIFFS = HERE / f"v{SUPPORTED}"
README = HERE / "README.md"
BEGIN, END = "<!-- made from ledger.toml: begin -->\n", "<!-- end -->\n"


def installed_root() -> Path:
    """The directory that holds the installed ``vllm/``; RuntimeError unless it is the one."""
    if (version := installed_version()) != SUPPORTED:
        raise RuntimeError(f"vLLM {version or '(none)'} is installed, {SUPPORTED} is needed")
    spec = find_spec("vllm")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    if (package / "priority_seams.py").exists():
        raise RuntimeError(f"{package} is patched already; an unpatched one is needed")
    return package.parent


def files(patch: Patch, root: Path) -> dict[str, File]:
    """The files that a patch changes, with its seams in them, by name below ``root``."""
    found: dict[str, File] = {}

    def file(name: str) -> File:
        return found.setdefault(name, File(root, name))

    for target in patch.seams:
        seam = seam_named(target)
        if target in patch.borrowed:
            borrowed = patch.borrowed[target]
            file(f"vllm/{borrowed.file}").borrow(seam, borrowed)
            continue
        module: str | None = seam.module
        while module is not None:
            name = _name(module, root)
            where = found.get(name) or File(root, name)
            if where.decorate(seam):
                found[name] = where
                break
            # Imported by name: decorated where it is defined, it comes decorated.
            module = where.imported_from(seam.owner or seam.name)
        else:
            raise LookupError(f"{seam} is defined nowhere in vLLM")
    return found


def _name(module: str, root: Path) -> str:
    path = module.replace(".", "/")
    return f"{path}.py" if (root / f"{path}.py").is_file() else f"{path}/__init__.py"


def _diff(name: str, before: str, after: str) -> str:
    new = not before
    head = f"diff --git a/{name} b/{name}\n" + ("new file mode 100644\n" if new else "")
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        "/dev/null" if new else f"a/{name}",
        f"b/{name}",
    )
    return head + "".join(lines)


def text(patch: Patch, root: Path) -> str:
    """One patch, as ``git am`` takes it."""
    diffs = [_diff(f.name, f.original, f.patched()) for f in files(patch, root).values()]
    if patch.adds:
        diffs.insert(0, _diff(f"vllm/{patch.adds}", "", (HERE / patch.adds).read_text()))
    upstream = "; ".join(f"{entry.at} ({entry.says})" for entry in patch.upstream)
    said = (patch.why, f"Upstream: {upstream or 'none found'}.", f"Can go when {patch.can_go}.")
    body = "\n\n".join(textwrap.fill(p, 72, break_on_hyphens=False) for p in said)
    return (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\n"
        "From: vllm-qllm <noreply@example.invalid>\n"
        f"Subject: [PATCH] {patch.subject}\n\n"
        f"{body}\n---\n{''.join(diffs)}-- \nvllm-qllm\n"
    )


def texts(root: Path) -> dict[str, str]:
    """All patches by the names of their files, for the vLLM below ``root``."""
    return {patch.name: text(patch, root) for patch in read()}


def readme() -> str:
    """README.md with the table that the ledger gives."""
    before, _, rest = README.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n{table(read())}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Write everything; returns the exit status."""
    try:
        made = texts(installed_root())
    except (LookupError, RuntimeError) as error:
        print(f"patches: {error}", file=sys.stderr)
        return 1
    DIFFS.mkdir(exist_ok=True)
    for old in DIFFS.glob("*.patch"):
        old.unlink()
    for name, patch in made.items():
        (DIFFS / name).write_text(patch)
    README.write_text(readme())
    print(f"{len(made)} patches in {DIFFS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
