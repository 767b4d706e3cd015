# SPDX-License-Identifier: Apache-2.0
"""The options reach API servers that parse nothing themselves."""

from __future__ import annotations

import inspect
import pickle
from argparse import Namespace
from typing import Any

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.plugins import load_general_plugins
from vllm.utils.argparse_utils import FlexibleArgumentParser

from vllm_qllm.cli import config_of


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
