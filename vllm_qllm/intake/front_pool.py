# SPDX-License-Identifier: Apache-2.0
"""A thread of its own for the prompts of the most urgent class."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from vllm_qllm.intake.passage import passage

NAME = "qllm-urgent"


class FrontPool:
    """Replaces two methods of the renderer's executor, on that object.

    vLLM renders and tokenizes in threads that take what comes first.

    Args:
        executor: of a renderer, whose ``replace_inner`` gives it other threads.
    """

    def __init__(self, executor: Any) -> None:
        self._submit, self._replace = executor.submit, executor.replace_inner
        self._urgent: Executor = _one_thread()
        executor.submit, executor.replace_inner = self.submit, self.replace_inner

    def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin work in the thread for the class of the request that is being served."""
        served = passage.get()
        if served is None:
            return self._submit(work, *args, **kwargs)  # type: ignore[no-any-return]
        served.was_read()
        submit = self._urgent.submit if served.level == 0 else self._submit
        return submit(work, *args, **kwargs)

    def replace_inner(self) -> None:
        """Leave threads behind that do not come back; whose they are is not known."""
        self._replace()
        self._urgent.shutdown(wait=False)
        self._urgent = _one_thread()

    def shutdown(self) -> None:
        """End the thread when it has nothing to do."""
        self._urgent.shutdown(wait=False)


def _one_thread() -> Executor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix=NAME)
