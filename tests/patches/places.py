# SPDX-License-Identifier: Apache-2.0
"""A script: where each seam is wrapped before and after the plugin is loaded. Prints JSON."""

from __future__ import annotations

import contextlib
import io
import json
import os
from typing import Any


def main() -> None:
    """Look, load the plugin as vLLM does, look again; and verify as if it could not be loaded."""
    import vllm
    from vllm.plugins import load_general_plugins

    from vllm_qllm import seams
    from vllm_qllm.verify import __main__ as verify

    def places() -> dict[str, str | None]:
        return {str(seam): seam.wrapped_in() for seam in seams.ALL}

    def functions() -> list[Any]:
        return [vars(seam.holder())[seam.name] for seam in seams.ALL]

    before, were = places(), functions()
    violations = seams.violations()
    load_general_plugins()
    replaced = [
        str(seam)
        for seam, was, now in zip(seams.ALL, were, functions(), strict=True)
        if was is not now
    ]
    os.environ["VLLM_PLUGINS"] = "another"
    with contextlib.redirect_stdout(io.StringIO()) as verified:
        verify.main(["--json"])
    report = {
        "vllm": vllm.__file__,
        "before": before,
        "violations": violations,
        "replaced": replaced,
        "after": places(),
        "verify": json.loads(verified.getvalue()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
