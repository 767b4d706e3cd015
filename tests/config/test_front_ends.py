# SPDX-License-Identifier: Apache-2.0
"""A policy is refused where requests pass by the handlers that know classes."""

from __future__ import annotations

import sys
import types
from argparse import Namespace
from pathlib import Path

import pytest
from vllm import envs
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.plugins import load_general_plugins
from vllm.utils.argparse_utils import FlexibleArgumentParser

from vllm_qllm.config import ConfigError

STRICT = ("--priority-policy", "strict")


@pytest.fixture(autouse=True)
def fresh() -> None:
    load_general_plugins()
    envs.disable_envs_cache()  # engines of other tests make vLLM keep what it read


def parse(model: Path, *arguments: str, subcommand: str = "serve") -> Namespace:
    """The arguments as ``vllm SUBCOMMAND`` has them."""
    parser = make_arg_parser(FlexibleArgumentParser())
    return parser.parse_args(["--model", str(model), *arguments], Namespace(subparser=subcommand))


@pytest.mark.covers("gRPC server (refused)", "eager")
def test_the_grpc_server_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"gRPC server \(--grpc\) does not know classes"):
        AsyncEngineArgs.from_cli_args(parse(tiny_model, "--grpc", *STRICT))
    AsyncEngineArgs.from_cli_args(parse(tiny_model, "--grpc"))


@pytest.mark.covers("gRPC server (refused)", "eager")
def test_so_it_is_when_started_on_its_own(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What vLLM's gRPC server imports first; its command line does not say what it is.
    monkeypatch.setitem(sys.modules, "smg_grpc_servicer", types.ModuleType("smg_grpc_servicer"))
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    args = parser.parse_args(["--model", str(tiny_model), *STRICT])
    with pytest.raises(ConfigError, match="gRPC server"):
        AsyncEngineArgs.from_cli_args(args)


@pytest.mark.covers("Rust frontend (refused)", "eager")
def test_the_rust_front_end_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(ConfigError, match=r"Rust front end \(VLLM_USE_RUST_FRONTEND=1\)"):
        AsyncEngineArgs.from_cli_args(parse(tiny_model, *STRICT))
    AsyncEngineArgs.from_cli_args(parse(tiny_model))
    # Nothing but "vllm serve" looks at the variable.
    AsyncEngineArgs.from_cli_args(parse(tiny_model, *STRICT, subcommand="run-batch"))
