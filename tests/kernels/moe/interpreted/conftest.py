# SPDX-License-Identifier: Apache-2.0
"""One trace for the cases of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kernels.moe.interpreted.trace import Trace


@pytest.fixture(scope="module")
def trace() -> Iterator[Trace]:
    """What the kernels do, and what they find in the flag."""
    from tests.kernels.moe.interpreted.trace import tracing

    with tracing() as trace:
        yield trace
