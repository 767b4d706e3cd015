# SPDX-License-Identifier: Apache-2.0
"""Every source file says its licence."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "csrc", "deploy", "patches", "tests", "vllm_qllm")
KINDS = {".cpp", ".css", ".h", ".html", ".js", ".py", ".sh"}


def test_each_source_file_names_it_in_its_first_lines() -> None:
    files = [f for folder in FOLDERS for f in (ROOT / folder).rglob("*") if f.suffix in KINDS]
    own = [f for f in files if not any(p.startswith(".") for p in f.relative_to(ROOT).parts)]
    lacking = [
        str(f.relative_to(ROOT))
        for f in own
        if "SPDX-License-Identifier: Apache-2.0" not in "".join(f.read_text().splitlines()[:3])
    ]
    assert len(own) > 300 and not lacking
