# SPDX-License-Identifier: Apache-2.0
"""A worker's connector while steps nest."""

from __future__ import annotations

import pytest
import torch

from vllm_qllm.kv.connector import SpillConnector
from vllm_qllm.kv.copies import Copies
from vllm_qllm.kv.mover import Mover

LAYERS = ("first", "second", "third")


def connector_of(*asking: str) -> tuple[SpillConnector, dict[str, torch.Tensor]]:
    """A worker's connector with six KV blocks and four slots, and the layers of its cache."""
    connector = SpillConnector.__new__(SpillConnector)
    connector._steps = []
    caches = {name: torch.randn(6, 2, 4) for name in LAYERS}
    connector._mover = Mover(caches, blocks=6, slots=4)
    connector._asking = frozenset(asking)
    return connector, caches


def begin(connector: SpillConnector, copies: Copies) -> None:
    connector.handle_preemptions(copies)
    connector.bind_connector_metadata(copies)
    connector.start_load_kv(None)


@pytest.mark.parametrize("asking", [(), LAYERS])
def test_a_step_reports_its_own_copies_and_not_those_of_the_suspended_one(
    asking: tuple[str, ...],
) -> None:
    connector, _ = connector_of(*asking)

    def end() -> tuple[int, int]:
        connector.wait_for_save()
        report = connector.build_connector_worker_meta()
        assert report is not None
        assert (report.offloaded > 0) == (report.offload_seconds > 0)
        assert (report.restored > 0) == (report.restore_seconds > 0)
        connector.clear_connector_metadata()
        return report.offloaded, report.restored

    begin(connector, Copies(offloads=[(0, 0), (1, 1)]))
    assert end() == (2, 0)
    begin(connector, Copies(offloads=[(2, 2)], partial=[(0, 3)], full=[(1, 4)]))
    begin(connector, Copies())
    assert end() == (0, 0)
    begin(connector, Copies(offloads=[(5, 3)]))
    assert end() == (1, 0)
    assert end() == (1, 2)


def test_layers_that_ask_get_their_part_when_they_do_and_all_others_at_the_start() -> None:
    connector, caches = connector_of("first", "second")
    was = {name: cache.clone() for name, cache in caches.items()}
    begin(connector, Copies(offloads=[(0, 0), (1, 1)]))
    connector.clear_connector_metadata()
    for cache in caches.values():
        cache.zero_()
    begin(connector, Copies(partial=[(0, 2)], full=[(1, 3)]))

    def restored(block: int, of: int) -> list[str]:
        return [name for name in LAYERS if torch.equal(caches[name][block], was[name][of])]

    assert restored(2, of=0) == [*LAYERS], "the step writes the rest of it before a layer asks"
    assert restored(3, of=1) == ["third"]
    begin(connector, Copies())
    connector.wait_for_layer_load("first")
    connector.clear_connector_metadata()
    assert restored(3, of=1) == ["third"], "a step that nests restores nothing for the other"
    connector.wait_for_layer_load("first")
    connector.wait_for_layer_load("first")
    assert restored(3, of=1) == ["first", "third"]
    connector.wait_for_save()
    assert restored(3, of=1) == [*LAYERS], "not even a layer that did not run is left out"
