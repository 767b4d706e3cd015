# SPDX-License-Identifier: Apache-2.0
"""The renderer of an API server: texts and ids are counted before a tokenizer gets them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.tokenizers.hf import ThreadSafeHFTokenizerMixin

from vllm_qllm.intake.front_pool import FrontPool
from vllm_qllm.intake.passage import passage

Work = Callable[..., Awaitable[Any]]


def bound(renderer: Any) -> None:
    """Replace how a renderer begins its work, on that object; the second time nothing is done.

    Args:
        renderer: a ``BaseRenderer`` of vLLM.
    """
    if getattr(renderer, "priority_pool", None) is not None:
        return
    renderer.priority_pool = _pool(renderer)
    renderer._tokenize_prompt_async = _counted(
        renderer._tokenize_prompt_async, lambda prompt: len(prompt["prompt"]), "characters"
    )
    renderer._async_tokenizer_decode = _counted(renderer._async_tokenizer_decode, len, "token ids")


def _pool(renderer: Any) -> FrontPool | bool:
    # Other tokenizers than these must not be used by two threads at a time.
    if not isinstance(renderer.tokenizer, ThreadSafeHFTokenizerMixin):
        return False
    pool = FrontPool(renderer._executor)
    renderer._resources.callback(pool.shutdown)
    return pool


def _counted(work: Work, size: Callable[[Any], int], what: str) -> Work:
    def counted(first: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        served = passage.get()
        if served is not None:
            count = size(first)
            if problem := served.limits.chars_problem(served.level, count, f"{what} of a prompt"):
                # vLLM answers it with status 400.
                raise VLLMValidationError(problem, parameter="prompt", value=count)
        return work(first, *args, **kwargs)

    return counted
