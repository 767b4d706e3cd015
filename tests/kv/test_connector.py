# SPDX-License-Identifier: Apache-2.0
"""A worker's connector while steps nest."""

from __future__ import annotations

import torch

from vllm_qllm.kv.connector import SpillConnector
from vllm_qllm.kv.copies import Copies
from vllm_qllm.kv.mover import Mover


def test_a_step_reports_its_own_copies_and_not_those_of_the_suspended_one() -> None:
    connector = SpillConnector.__new__(SpillConnector)
    connector._steps = []
    connector._mover = Mover({"layer": torch.randn(6, 2, 4)}, blocks=6, slots=4)

    def begin(copies: Copies) -> None:
        connector.handle_preemptions(copies)
        connector.bind_connector_metadata(copies)
        connector.start_load_kv(None)

    def end() -> tuple[int, int]:
        report = connector.build_connector_worker_meta()
        assert report is not None
        assert (report.out > 0) == (report.out_seconds > 0)
        assert (report.back > 0) == (report.back_seconds > 0)
        connector.clear_connector_metadata()
        return report.out, report.back

    begin(Copies(out=[(0, 0), (1, 1)]))
    assert end() == (2, 0)
    begin(Copies(out=[(2, 2)], back=[(0, 3), (1, 4)]))
    begin(Copies())
    assert end() == (0, 0)
    begin(Copies(out=[(5, 3)]))
    assert end() == (1, 0)
    assert end() == (1, 2)
