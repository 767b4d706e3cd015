# SPDX-License-Identifier: Apache-2.0
"""Where HTTP servers take requests, show metrics and get further routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm_qllm.seams.seam import Seam


def _get_prometheus_registry(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_prometheus_registry() -> Any:
        from vllm_qllm.api.exposition import with_priority_metrics

        return with_priority_metrics(original())

    return get_prometheus_registry


def _multiprocess_collect(original: Callable[..., Any]) -> Callable[..., Any]:
    def collect(self: Any) -> Any:
        from vllm_qllm.api.exposition import with_priority_families

        return with_priority_families(original(self))

    return collect


def _multiprocess_init(original: Callable[..., Any]) -> Callable[..., Any]:
    def __init__(self: Any, registry: Any, path: Any = None) -> None:
        from vllm_qllm.metrics.multiprocess import restore

        restore(path)
        original(self, registry, path)

    return __init__


def _serving_init(original: Callable[..., Any]) -> Callable[..., Any]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        from vllm_qllm.api.serving import teach

        original(self, *args, **kwargs)
        teach(self)

    return __init__


def _load_endpoint_plugins(original: Callable[..., Any]) -> Callable[..., Any]:
    def load_endpoint_plugins(supported_tasks: Any = None) -> Any:
        from vllm_qllm.endpoints import endpoints

        return [*original(supported_tasks), *endpoints()]

    return load_endpoint_plugins


# Replaced where it is used: vLLM's router imports the function by name.
HTTP = (
    Seam(
        "vllm.entrypoints.serve.instrumentator.metrics",
        "",
        "get_prometheus_registry",
        (),
        "the metrics of classes on /metrics",
        _get_prometheus_registry,
    ),
    Seam(
        "prometheus_client.multiprocess",
        "MultiProcessCollector",
        "collect",
        ("self",),
        "the same with several API servers",
        _multiprocess_collect,
    ),
    Seam(
        "prometheus_client.multiprocess",
        "MultiProcessCollector",
        "__init__",
        ("self", "registry", "path"),
        "metrics of classes outlive the removal of the directory of vLLM's own",
        _multiprocess_init,
    ),
    Seam(
        "vllm.entrypoints.generate.base.serving",
        "GenerateBaseServing",
        "__init__",
        ("self", "engine_client", "models", "request_logger", "return_tokens_as_token_ids"),
        "service_tier, and refusing priorities that cannot be understood",
        _serving_init,
    ),
    Seam(
        "vllm.plugins",
        "",
        "load_endpoint_plugins",
        ("supported_tasks",),
        "routes below /qllm/ that the priority configuration asks for",
        _load_endpoint_plugins,
    ),
)
