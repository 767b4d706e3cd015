# SPDX-License-Identifier: Apache-2.0
"""The installed vLLM is the one that this package was written against, symbol by symbol.

A failure names the symbol, where it is used, and why that matters: docs/upgrading-vllm.md says
what to do.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_qllm.contract.dependency import Dependency
from vllm_qllm.contract.moved import Comparison
from vllm_qllm.contract.uses import ALL


@pytest.fixture(scope="module")
def comparison(installed: Path) -> Comparison:
    return Comparison(installed)


@pytest.mark.parametrize("dependency", ALL, ids=lambda d: d.symbol)
def test_is_as_known(comparison: Comparison, dependency: Dependency) -> None:
    found = list(comparison.differences([dependency]))
    assert not found, str(found[0])
