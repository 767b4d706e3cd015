# SPDX-License-Identifier: Apache-2.0
"""What no policy can serve is refused with the reason; what cannot be suspended is told, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vllm.engine.arg_utils import EngineArgs
from vllm.plugins import load_general_plugins

from vllm_qllm import support
from vllm_qllm.config import ConfigError, carried


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


# The CPU backend itself has none of these three, so a finished configuration is changed.


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


@covers("Devices other than CPU (between steps)")
def test_other_devices_fall_back(tiny_model: Path) -> None:
    config = configure(tiny_model)
    config.parallel_config.worker_extension_cls = ""
    config.parallel_config.distributed_executor_backend = "mp"
    assert support.fallbacks(config) == []
    config.device_config.device_type = "cuda"
    assert support.fallbacks(config) == ["device 'cuda'"]


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
    assert data is not None and data["checkpoints"] == "none"
    assert config.parallel_config.worker_extension_cls == ""


def test_without_a_reason_steps_can_be_suspended(tiny_model: Path) -> None:
    config = configure(tiny_model)
    data = carried(config)
    assert data is not None and data["checkpoints"] == "expert"
    assert config.parallel_config.worker_extension_cls
