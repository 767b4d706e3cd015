# SPDX-License-Identifier: Apache-2.0
"""What no policy can serve is refused with the reason; what cannot be suspended is told, once."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.engine.arg_utils import EngineArgs
from vllm.plugins import load_general_plugins

from vllm_qllm import support
from vllm_qllm.config import ConfigError, PriorityConfig, carried
from vllm_qllm.seams.engine import ENGINE


def configure(model: Path, **engine_args: Any) -> Any:
    """vLLM's own configuration of an engine with the policy strict; starts nothing."""
    load_general_plugins()
    args = EngineArgs(
        model=str(model),
        max_model_len=512,
        priority_policy="strict",  # type: ignore[call-arg]
        **engine_args,
    )
    return args.create_engine_config()


def covers(feature: str) -> pytest.MarkDecorator:
    return pytest.mark.covers(feature, "eager")


KV_CONNECTOR = {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}
REFUSED = [
    pytest.param(
        {"pipeline_parallel_size": 2},
        "pipeline parallelism (--pipeline-parallel-size)",
        marks=covers("Pipeline parallelism (refused)"),
    ),
    pytest.param(
        {"data_parallel_size": 2},
        "data parallelism (--data-parallel-size)",
        marks=covers("Data parallelism (refused)"),
    ),
    pytest.param(
        {"kv_transfer_config": KV_CONNECTOR},
        "KV and encoder-cache connectors",
        marks=covers("KV connectors (refused)"),
    ),
    pytest.param(
        {"scheduler_cls": "vllm.v1.core.sched.scheduler.Scheduler"},
        "another scheduler is set (--scheduler-cls vllm.v1.core.sched.scheduler.Scheduler)",
        marks=covers("Another scheduler class (refused)"),
    ),
    pytest.param(
        {"runner": "pooling"},
        "pooling models answer in one step, priorities between steps are vLLM's own "
        "(--scheduling-policy priority)",
        marks=covers("Embeddings models (refused)"),
    ),
]


@pytest.mark.parametrize(("engine_args", "reason"), REFUSED)
def test_refused_with_the_reason(
    tiny_model: Path, engine_args: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        configure(tiny_model, **engine_args)
    assert str(refused.value).startswith("--priority-policy strict cannot serve this engine: ")
    assert reason in str(refused.value)


# The CPU backend itself has none of these, so a finished configuration is changed.


@covers("Model runner V2 (refused)")
def test_model_runner_v2_is_refused_with_the_remedy(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tiny_model)
    config.scheduler_config.scheduler_cls = None
    assert support.refusals(config) == []
    monkeypatch.setattr(type(config), "use_v2_model_runner", True)
    (reason,) = support.refusals(config)
    assert "VLLM_USE_V2_MODEL_RUNNER=0" in reason


@covers("Asynchronous scheduling (refused)")
def test_asynchronous_scheduling_is_refused_with_the_remedy(tiny_model: Path) -> None:
    config = configure(tiny_model)
    config.scheduler_config.scheduler_cls = None
    config.scheduler_config.async_scheduling = True
    (reason,) = support.refusals(config)
    assert "--no-async-scheduling" in reason


@covers("Ray executor (refused)")
def test_the_ray_executor_is_refused_with_the_remedy(tiny_model: Path) -> None:
    config = configure(tiny_model)
    config.scheduler_config.scheduler_cls = None
    config.parallel_config.distributed_executor_backend = "ray"
    (reason,) = support.refusals(config)
    assert "--distributed-executor-backend ray" in reason and "use mp" in reason


@covers("Devices other than CPU and one CUDA GPU (between steps)")
def test_other_devices_fall_back(tiny_model: Path) -> None:
    config = configure(tiny_model)
    config.parallel_config.worker_extension_cls = ""
    config.parallel_config.distributed_executor_backend = "mp"
    assert support.fallbacks(config) == []
    config.device_config.device_type = "cuda"
    assert support.fallbacks(config) == []
    config.parallel_config.world_size = 2
    assert support.fallbacks(config) == ["several GPUs"]
    config.device_config.device_type = "xpu"
    assert support.fallbacks(config) == ["device 'xpu'"]


def test_models_that_keep_what_belongs_to_a_step_fall_back(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tiny_model)
    config.parallel_config.worker_extension_cls = ""
    config.parallel_config.distributed_executor_backend = "mp"
    config.cache_config.kv_sharing_fast_prefill = True
    monkeypatch.setattr(config.model_config.hf_config, "index_topk", 2048, raising=False)
    assert support.fallbacks(config) == [
        "sparse attention with an indexer",
        "--kv-sharing-fast-prefill",
    ]


def test_model_runner_v1_is_chosen_unless_somebody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "VLLM_USE_V2_MODEL_RUNNER"
    monkeypatch.setenv(name, "1")  # so that it is put back
    for chosen, expected in ((None, "0"), ("0", "0"), ("1", "1")):
        if chosen is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, chosen)
        support.choose_model_runner()
        assert os.environ[name] == expected


@pytest.mark.parametrize(
    ("priority", "device", "given", "expected"),
    [
        ({"policy": "strict"}, "cuda", None, 800),
        ({"policy": "strict", "yield_points": "layer"}, "cuda", None, 800),
        ({"policy": "strict", "yield_points": "none"}, "cuda", None, 1000),
        ({"policy": "strict"}, "cpu", None, 1000),
        ({"policy": "strict"}, "cuda", 1000, 1000),
        (None, "cuda", None, 1000),
    ],
)
def test_a_gpu_keeps_room_for_the_activations_of_a_suspended_step(
    priority: dict[str, Any] | None, device: str, given: int | None, expected: int
) -> None:
    carried = {} if priority is None else {"priority": PriorityConfig(**priority).to_dict()}
    worker = SimpleNamespace(
        vllm_config=SimpleNamespace(additional_config=carried),
        cache_config=SimpleNamespace(kv_cache_memory_bytes=given),
        device=torch.device(device),
        peak_activation_memory=300,
        cudagraph_memory_estimate=100,
        available_kv_cache_memory_bytes=1000,
    )
    (seam,) = (s for s in ENGINE if s.name == "determine_available_memory")
    assert seam.wrap(lambda worker: 1000)(worker) == expected
    # What vLLM recommends for the next start is made of these.
    assert worker.available_kv_cache_memory_bytes == expected
    assert worker.peak_activation_memory == 300 + 1000 - expected


FALLBACKS = [
    pytest.param(
        {"enable_expert_parallel": True, "tensor_parallel_size": 2},
        "expert parallelism",
        marks=covers("Expert parallelism (between steps)"),
    ),
    pytest.param(
        {
            "speculative_config": {
                "method": "ngram",
                "num_speculative_tokens": 2,
                "prompt_lookup_max": 2,
            }
        },
        "speculative decoding",
        marks=covers("Speculative decoding (between steps)"),
    ),
]


@pytest.mark.parametrize(("engine_args", "reason"), FALLBACKS)
def test_between_steps_only_with_one_warning(
    tiny_model: Path, caplog: pytest.LogCaptureFixture, engine_args: dict[str, Any], reason: str
) -> None:
    config = configure(tiny_model, **engine_args)
    told = [r.getMessage() for r in caplog.records if "preempts between steps only" in r.msg]
    assert len(told) == 1 and told[0].endswith(f"with {reason}.")
    data = carried(config)
    assert data is not None and data["yield_points"] == "none"
    assert config.parallel_config.worker_extension_cls == ""


def test_without_a_reason_steps_can_be_suspended(tiny_model: Path) -> None:
    config = configure(tiny_model)
    data = carried(config)
    assert data is not None and data["yield_points"] == "expert"
    assert config.parallel_config.worker_extension_cls
