# SPDX-License-Identifier: Apache-2.0
"""The options reach API servers that parse nothing themselves."""

from __future__ import annotations

import inspect
import json
import pickle
import re
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


def server(*arguments: str, grpc: bool = False) -> Namespace:
    """As the command line of a server is parsed."""
    args = parse(*arguments)
    args.middleware, args.api_key, args.grpc = ["of.the.Operator"], None, grpc
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


TENANTS_FILE = '{"policy": "strict", "tenants": "some/file"}'


@pytest.mark.parametrize(
    "arguments",
    [
        ("--additional-config", json.dumps({"priority_config": TENANTS_FILE})),
        ("--additional-config", json.dumps({"priority_config": json.loads(TENANTS_FILE)})),
        ("--additional-config.priority_config", TENANTS_FILE),
        (
            *("--additional-config", '{"priority_policy": "strict"}'),
            *("--priority-config", '{"tenants": "some/file"}'),
        ),
    ],
    ids=["text", "object", "dots", "half of it"],
)
def test_whoever_names_a_policy_has_all_of_it(arguments: tuple[str, ...]) -> None:
    """Also the middleware, the check of the front end, and that of a second sort of keys."""
    args = server(*arguments)
    engine_args = AsyncEngineArgs.from_cli_args(args)
    assert args.middleware[-1] == "vllm_qllm.access.middleware.AccessMiddleware"
    config = config_of(engine_args)
    assert config is not None and (config.policy, config.tenants is None) == ("strict", False)
    assert config_of(in_a_new_process(args)) == config
    again = pickle.loads(pickle.dumps(args))
    AsyncEngineArgs.from_cli_args(again)  # as an API server that has loaded plugins does
    args.api_key = ["a"]
    with pytest.raises(ConfigError, match="beside --api-key"):
        AsyncEngineArgs.from_cli_args(args)
    with pytest.raises(ConfigError, match="gRPC"):
        AsyncEngineArgs.from_cli_args(server(*arguments, grpc=True))


def test_a_file_of_options_is_read_as_options(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(f"priority-config: '{TENANTS_FILE}'\n")
    load_general_plugins()
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    args = parser.parse_args(["--model", "some-model", "--config", str(file)])
    args.middleware, args.api_key = [], None
    AsyncEngineArgs.from_cli_args(args)
    assert args.middleware == ["vllm_qllm.access.middleware.AccessMiddleware"]


@pytest.mark.parametrize("value", [5, None, {}, [], "strict", True])
def test_what_only_this_package_says_is_refused(value: Any) -> None:
    extra = {"priority": value}
    words = rf"additional_config: priority is {re.escape(repr(value))}; allowed: not to be there"
    with pytest.raises(ConfigError, match=words):
        AsyncEngineArgs.from_cli_args(server("--additional-config", json.dumps(extra)))
    with pytest.raises(ConfigError, match=words):
        AsyncEngineArgs(model="some-model", additional_config=extra).create_engine_config()


def test_one_option_is_not_given_two_values() -> None:
    both = ("--additional-config", '{"priority_policy": "step"}', "--priority-policy", "strict")
    with pytest.raises(ConfigError, match="priority_policy is 'step' but --priority-policy is"):
        AsyncEngineArgs.from_cli_args(server(*both))
    same = ("--additional-config", '{"priority_policy": "step"}', "--priority-policy", "step")
    AsyncEngineArgs.from_cli_args(server(*same))
    bad = ("--additional-config", '{"priority_policy": 5}')
    with pytest.raises(ConfigError, match="policy is 5; allowed: step, strict"):
        AsyncEngineArgs.from_cli_args(server(*bad))
