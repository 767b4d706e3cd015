# SPDX-License-Identifier: Apache-2.0
"""How many sequences a request makes the engine work on."""

from __future__ import annotations

from typing import Any


def sequences(request: Any) -> int:
    """Prompts times ``n``, at least 1.

    Args:
        request: the parsed body, a model of vLLM's.
    """
    params = getattr(request, "sampling_params", None)
    n = getattr(request, "n", None) or getattr(params, "n", None) or 1
    return max(1, _prompts(request)) * max(1, int(n))


def _prompts(request: Any) -> int:
    messages = getattr(request, "messages", None)
    if isinstance(messages, list) and messages and isinstance(messages[0], list):
        return len(messages)  # a batch of chats
    return _entries(getattr(request, "prompt", None)) + _entries(
        getattr(request, "prompt_embeds", None)
    )


def _entries(prompt: Any) -> int:
    """A text or the ids of its tokens is one prompt, a list of those is many."""
    if prompt is None:
        return 0
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1
