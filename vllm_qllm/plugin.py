# SPDX-License-Identifier: Apache-2.0
"""Entry point ``vllm.general_plugins``: called by vLLM in every process it starts."""

from __future__ import annotations


def register() -> None:
    """Install the seams, each once. They do nothing until a priority policy is asked for.

    On a vLLM that is not the supported one only the options are installed, so that asking for a
    policy is answered with the reason instead of an unknown option. On one that was built with
    ``patches/`` nothing is left to install.
    """
    from vllm_qllm import seams

    known = not seams.violations()
    for seam in seams.ALL if known else seams.OPTIONS:
        try:
            seam.install()
        except (ImportError, AttributeError, KeyError):
            if known:
                raise
