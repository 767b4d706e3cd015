# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.verify``: would serving with a priority policy work here, and if not, why?

Exits 0 only when ``vllm serve MODEL --priority-policy strict`` would work. Loads no model.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
from dataclasses import asdict

from vllm_qllm.contract import VLLM, version_of
from vllm_qllm.verify.checks import Finding, findings


def versions() -> dict[str, str | None]:
    """Versions by name; None for what is not installed."""
    return {
        "vllm-qllm": version_of("vllm-qllm"),
        "vllm": version_of(*VLLM),
        "torch": version_of("torch"),
        "python": platform.python_version(),
    }


def text(found: list[Finding], works: bool) -> str:
    """The report for people."""
    installed = ", ".join(f"{name} {version or '(none)'}" for name, version in versions().items())
    width = max(len(f.name) for f in found)
    lines = [installed, "", *(f"  {f.state:<3}  {f.name:<{width}}  {f.detail}" for f in found), ""]
    if works:
        lines.append("Serving with --priority-policy strict works here.")
    else:
        lines.append("Serving with --priority-policy strict would NOT work here:")
        lines += [f"  - {f.name}: {f.detail}" for f in found if f.state == "BAD"]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the report; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m vllm_qllm.verify", description=__doc__)
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    args = parser.parse_args(arguments)
    # Nothing that vLLM warns about while it is imported belongs into this report.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    logging.getLogger("vllm").setLevel(logging.ERROR)
    found = findings()
    works = all(f.state != "BAD" for f in found)
    if args.json:
        report = {"works": works, "versions": versions(), "findings": [asdict(f) for f in found]}
        print(json.dumps(report, indent=2))
    else:
        print(text(found, works))
    return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main())
