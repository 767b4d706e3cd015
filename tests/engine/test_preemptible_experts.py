# SPDX-License-Identifier: Apache-2.0
"""Invariant 1 on the kernel of this package, which is chosen for bfloat16."""

from __future__ import annotations

import pytest

from tests.engine.scripted import BE, LS, EngineFor, stop_everywhere
from tests.engine.test_token_equality import prompt
from vllm_qllm.kernels.moe import cpu, experts

pytestmark = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))


def _experts(worker: object) -> str:
    """Which class computes the experts."""
    layers = worker.vllm_config.compilation_config.static_forward_context.values()  # type: ignore[attr-defined]
    found = {
        type(layer.routed_experts.quant_method.moe_kernel.fused_experts).__name__
        for layer in layers
        if hasattr(layer, "routed_experts")
    }
    return " ".join(sorted(found))


def _entries(worker: object) -> list[str]:
    """What a model calls for a layer of experts: vLLM's function, or an op around the layer."""
    layers = worker.vllm_config.compilation_config.static_forward_context.values()  # type: ignore[attr-defined]
    entries = {layer._forward_entry for layer in layers if hasattr(layer, "routed_experts")}
    return sorted(getattr(entry, "__name__", str(entry)) for entry in entries)


@pytest.mark.parametrize("eager", [True, False])
def test_same_bits_however_often_it_stops(
    engine_for: EngineFor, eager: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stop after every few items. The worker is in this process.
    monkeypatch.setattr(experts, "SPACING_SECONDS", 1e-6)
    engine = engine_for(
        dtype="bfloat16",
        enforce_eager=eager,
        priority_config=stop_everywhere("expert"),
        threads=2,  # that claim items of one queue
    )
    # In bfloat16 the size of a batch may change a token: every step is that of one request.
    specs = [(prompt(1, 400), 8, BE), (prompt(2, 190), 8, LS), (prompt(3, 40), 8, LS)]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    assert engine.core.collective_rpc(_experts) == ["PreemptibleExperts"]
    # Routing and all else of the layer is compiled as in vLLM.
    assert engine.core.collective_rpc(_entries) == [["_moe_forward"]]
    ids = [engine.add(*specs[0])]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        # In the middle of an MoE layer, and one after another.
        if stops > 5 and len(ids) < 3 and all(engine.results[i].finish_reason for i in ids[1:]):
            ids.append(engine.add(*specs[len(ids)]))

    engine.on_suspended = arrive
    engine.run()
    assert len(ids) == 3
    assert stops > 4 * 5 * 2, "several stretches a layer, in each of two chunks of the prompt"
    for request_id, reference in zip(ids, expected, strict=True):
        assert engine.results[request_id].tokens == reference.tokens
        assert engine.results[request_id].logprobs == reference.logprobs, "to the bit"
    engine.reset()
