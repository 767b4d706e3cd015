# SPDX-License-Identifier: Apache-2.0
"""The options reach API servers that parse nothing themselves."""

from __future__ import annotations

import inspect
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.plugins import load_general_plugins
from vllm.utils.argparse_utils import FlexibleArgumentParser

from vllm_qllm.cli import config_of
from vllm_qllm.config import ConfigError


def parse(*arguments: str) -> Namespace:
    load_general_plugins()
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    return parser.parse_args(["--model", "some-model", *arguments])


def in_a_new_process(args: Namespace) -> Any:
    """The engine arguments as a spawned API server makes them: with vLLM's own function."""
    stock: Any = inspect.unwrap(AsyncEngineArgs.from_cli_args)
    return stock(AsyncEngineArgs, pickle.loads(pickle.dumps(args)))


@pytest.fixture(autouse=True)
def no_lookup_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def test_a_spawned_api_server_has_the_same_configuration() -> None:
    text = '{"classes": [{"name": "chat", "max_priority": 3}, {"name": "jobs"}]}'
    args = parse(
        *("--priority-policy", "step"),
        *("--priority-config", text),
        *("--additional-config", '{"mine": 1}'),
    )
    here = AsyncEngineArgs.from_cli_args(args)
    there = in_a_new_process(args)
    assert config_of(there) == config_of(here)
    assert config_of(there).policy == "step"  # type: ignore[union-attr]
    assert there.additional_config["mine"] == 1


def test_without_the_options_nothing_is_added() -> None:
    args = parse()
    before = dict(args.additional_config or {})
    AsyncEngineArgs.from_cli_args(args)
    assert (args.additional_config or {}) == before
    assert config_of(in_a_new_process(args)) is None


def server(*arguments: str) -> Namespace:
    """As the command line of a server is parsed."""
    args = parse(*arguments)
    args.middleware, args.api_key = ["of.the.Operator"], None
    return args


def test_tenants_put_a_middleware_before_every_server(tmp_path: Path) -> None:
    args = server("--priority-config", f'{{"policy": "step", "tenants": "{tmp_path}/file"}}')
    AsyncEngineArgs.from_cli_args(args)
    AsyncEngineArgs.from_cli_args(args)
    there = pickle.loads(pickle.dumps(args))
    # The last one is the outermost.
    assert there.middleware == ["of.the.Operator", "vllm_qllm.access.middleware.AccessMiddleware"]


def test_without_tenants_there_is_no_middleware() -> None:
    args = server("--priority-policy", "step")
    AsyncEngineArgs.from_cli_args(args)
    assert args.middleware == ["of.the.Operator"]


@pytest.mark.parametrize("by", ["option", "variable"])
def test_two_sorts_of_keys_are_refused(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args = server("--priority-config", '{"policy": "step", "tenants": "some/file"}')
    if by == "option":
        args.api_key = ["a"]
    else:
        monkeypatch.setenv("VLLM_API_KEY", "a")
    with pytest.raises(ConfigError, match="tenants is set beside --api-key"):
        AsyncEngineArgs.from_cli_args(args)
