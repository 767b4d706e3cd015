# SPDX-License-Identifier: Apache-2.0
"""How many sequences a request makes the engine work on."""

from __future__ import annotations

from typing import Any

from vllm.sampling_params import SamplingParams


def sequences(request: Any, handler: Any = None) -> int:
    """Prompts times ``n``, at least 1.

    Args:
        request: the parsed body, a model of vLLM's.
        handler: of the request; only that of decisions is asked.

    Raises:
        VLLMValidationError: as :func:`of_a_prompt`.
    """
    return max(1, _prompts(request, handler)) * of_a_prompt(request)


def of_a_prompt(request: Any) -> int:
    """``n``, wherever an API has it.

    Raises:
        VLLMValidationError: an ``n`` that vLLM refuses, with its words.
    """
    n = declared(request, "n")
    if n is None:
        n = getattr(declared(request, "sampling_params"), "n", 1)
    # It refuses what it would refuse later, when the request is counted.
    SamplingParams(n=n)
    return int(n)


def declared(request: Any, name: str) -> Any:
    """A field of a body, None where its API has none: what is not known to vLLM, it ignores.

    Args:
        request: the parsed body, a model of vLLM's that allows extra fields.
        name: of the field.
    """
    return getattr(request, name, None) if name in type(request).model_fields else None


def _prompts(request: Any, handler: Any) -> int:
    if (questions := declared(request, "questions")) is not None:
        return int(handler.strategy.num_requests(questions))
    if (items := declared(request, "items")) is not None:
        return len(items)
    messages = declared(request, "messages")
    if isinstance(messages, list) and messages and isinstance(messages[0], list):
        return len(messages)  # a batch of chats
    return _entries(declared(request, "prompt")) + _entries(declared(request, "prompt_embeds"))


def _entries(prompt: Any) -> int:
    """A text or the ids of its tokens is one prompt, a list of those is many."""
    if prompt is None:
        return 0
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1
