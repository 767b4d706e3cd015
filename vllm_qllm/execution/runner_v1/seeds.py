# SPDX-License-Identifier: Apache-2.0
"""Seeded requests whose prompt takes several steps, on the CPU.

Symptom: vLLM 0.32.0 dies with ``CPU Generator does not use offset`` (in ``_bookkeeping_sync``).
Cause: each chunk of a prompt is sampled, too, and what was drawn for the ones that are thrown
away is taken back with ``set_offset``, which only CUDA generators have. Here such rows draw
nothing from the request's own generator, so there is nothing to take back, and a seed gives the
same tokens however its prompt was cut into steps. Can go when vLLM does without the offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def unused_generators_set_aside(runner: Any) -> Iterator[None]:
    """Hide the generators of rows whose sampled token will be thrown away.

    Args:
        runner: a V1 model runner between ``execute_model`` and ``sample_tokens``.
    """
    generators = runner.input_batch.generators
    rows = np.nonzero(runner.discard_request_mask.np[: runner.input_batch.num_reqs])[0]
    aside = {int(row): generators.pop(int(row)) for row in rows if int(row) in generators}
    try:
        yield
    finally:
        generators.update(aside)
