# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.contract [DIR]``: what of vLLM is not what this package was written for?

Reads sources only; nothing of vLLM is imported or run. Exits 0 only when nothing differs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

from vllm_qllm.contract import SUPPORTED, VLLM
from vllm_qllm.contract.moved import ORDER, Comparison, Difference, diff, installed_root
from vllm_qllm.contract.uses import ALL


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m vllm_qllm.contract", description=__doc__)
    parser.add_argument(
        "root",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="holds the package vllm, such as an unpacked wheel; default: the installed one",
    )
    parser.add_argument(
        "--diff",
        action="store_true",
        help="show how the code differs from the installed vLLM, which should be the known one",
    )
    parser.add_argument(
        "--accept", action="store_true", help="make this vLLM the known one, after a review"
    )
    return parser.parse_args(arguments)


def _version(root: Path) -> str:
    for name in VLLM:
        for found in importlib.metadata.distributions(name=name, path=[str(root)]):
            return found.version.partition("+")[0]
    return "of unknown version"


def _report(differences: list[Difference], details: dict[str, str]) -> Iterator[str]:
    for what in ORDER:
        group = [d for d in differences if d.what == what]
        if not group:
            continue
        yield f"\n{what} ({len(group)})"
        for difference in group:
            of = difference.dependency
            yield f"  {of.symbol}"
            if difference.detail:
                yield f"      {difference.detail}"
            yield f"      used by {of.used_by}: {of.why}"
            yield from (f"      {line}" for line in details.get(of.symbol, "").splitlines())


def main(arguments: list[str] | None = None) -> int:
    """Print the report; returns the exit status."""
    asked = _arguments(arguments)
    root = asked.root or installed_root()
    if root is None or not (root / "vllm" / "__init__.py").is_file():
        where = f"in {asked.root}" if asked.root else "installed; give a directory that holds it"
        print(f"There is no vLLM {where}.", file=sys.stderr)
        return 2
    compared = Comparison(root)
    title = f"vLLM {_version(root)}"
    if asked.accept:
        if gone := compared.accept():
            print("\n".join((f"{title} cannot be the known one:", *map(str, gone))))
            return 1
        print(f"{title} is the known one now: {len(ALL)} symbols.")
        return 0
    differences = list(compared.differences())
    if not differences:
        print(f"{title} has all {len(ALL)} symbols as they are known.")
        return 0
    details = {}
    if asked.diff and (installed := installed_root()):
        old = Comparison(installed)
        details = {d.dependency.symbol: diff(d.dependency, old, compared) for d in differences}
    print(f"{title}: {len(differences)} of {len(ALL)} symbols differ from vLLM {SUPPORTED}.")
    print("\n".join(_report(differences, details)))
    return 1


if __name__ == "__main__":
    sys.exit(main())
