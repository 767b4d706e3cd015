# SPDX-License-Identifier: Apache-2.0
"""What the host cannot hold is refused before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_qllm.config import ConfigError, PriorityConfig
from vllm_qllm.kv.space import available_memory, refuse


def test_more_memory_than_there_is() -> None:
    refuse(PriorityConfig(spill_bytes=1 << 20), workers=2)
    with pytest.raises(ConfigError, match=r"spill_bytes is \d+; allowed: at most the available"):
        refuse(PriorityConfig(spill_bytes=2 * available_memory()), workers=1)
    with pytest.raises(ConfigError, match="for each of 4 workers"):
        refuse(PriorityConfig(spill_bytes=available_memory() // 2), workers=4)


def test_a_directory_that_does_not_serve(tmp_path: Path) -> None:
    refuse(PriorityConfig(spill_bytes=1, spill_path=str(tmp_path)), workers=1)
    missing = str(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"spill_path is .*missing.*No such file.*allowed: a dir"):
        refuse(PriorityConfig(spill_bytes=1, spill_path=missing), workers=1)
    with pytest.raises(ConfigError, match="spill_path is '/proc'"):
        refuse(PriorityConfig(spill_bytes=1, spill_path="/proc"), workers=1)
    with pytest.raises(ConfigError, match="free space in"):
        refuse(PriorityConfig(spill_bytes=1 << 60, spill_path=str(tmp_path)), workers=1)
    with pytest.raises(ConfigError, match="with 2 workers; allowed: null"):
        refuse(PriorityConfig(spill_bytes=1, spill_path=str(tmp_path)), workers=2)
