# SPDX-License-Identifier: Apache-2.0
"""Every route of vLLM's is listed, and no spelling of a path is more than the path itself."""

from __future__ import annotations

import ast
import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import vllm.entrypoints
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from vllm import envs, tasks
from vllm.config import ModelConfig
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

from vllm_qllm.access import access_control
from vllm_qllm.access.route import BELOW, is_served, route_of
from vllm_qllm.access.route_kind import KINDS, RouteKind, kind_of, shown
from vllm_qllm.metrics import location
from vllm_qllm.status.endpoint import StatusEndpoint
from vllm_qllm.timeline.endpoint import TimelineEndpoint

ENTRYPOINTS = Path(vllm.entrypoints.__file__).parent
# What has routes of its own and is no server with tenants: see the docstrings there.
OTHER_SERVERS = {"launchers/dp_supervisor.py", "cli/preload.py"}
METHODS = ("get", "post", "put", "patch", "delete", "options", "head", "trace", "websocket")


def in_the_text(of: Path = ENTRYPOINTS) -> Iterator[str]:
    """Routes that vLLM's text declares, whether or not they can be had here."""
    for file in sorted(of.rglob("*.py")):
        if str(file.relative_to(ENTRYPOINTS)) in OTHER_SERVERS:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr=name), args=[ast.Constant(value=str(path)), *_]
                ):
                    if name in METHODS and path.startswith("/"):
                        yield f"{name.upper()} {path}"


def of(app: FastAPI) -> Iterator[str]:
    """Routes of an application."""
    for route in app.router.routes:
        if isinstance(route, Mount):
            yield f"{BELOW} {route.path}"
        for method in (getattr(route, "methods", None) or set()) - {"HEAD"}:
            yield f"{method} {route.path}"  # type: ignore[attr-defined]
        if type(route).__name__ == "APIWebSocketRoute":
            yield f"WEBSOCKET {route.path}"  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def apps(tiny_model: Path) -> Iterator[list[FastAPI]]:
    """Servers for each task alone and all together, with all that options can add."""
    options = ["--enable-scale-out", "--enable-offline-docs", "--enable-tokenizer-info-endpoint"]
    options += ["--enable-fault-tolerance", "--profiler-config"]
    options += ['{"profiler": "torch", "torch_profiler_dir": "/nowhere"}']
    every = (*tasks.GENERATION_TASKS, *tasks.POOLING_TASKS, *tasks.FRONTEND_TASKS)
    served: list[Any] = [(task,) for task in every]
    envs.disable_envs_cache()  # engines of other tests make vLLM keep what it read
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SERVER_DEV_MODE", "ALLOW_RUNTIME_LORA_UPDATING", "ENABLE_COHERE_API"):
            patch.setenv(f"VLLM_{name}", "1")
        # An engine that was made in this process would be on the metrics of all of them for good.
        patch.setattr(location, "_prepared", None)
        model = ModelConfig(str(tiny_model))
        parser = make_arg_parser(FlexibleArgumentParser())
        built = []
        for extra in (options, [*options, "--disable-fastapi-docs"], options[:1]):
            args = parser.parse_args(["--model", str(tiny_model), *extra])
            for task in [*served, tuple(every)] if extra is options else [tuple(every)]:
                app = build_app(args, task, model)
                StatusEndpoint("nowhere").attach_router(app)
                TimelineEndpoint("nowhere").attach_router(app)
                built.append(app)
        yield built


def test_every_route_is_listed(apps: list[FastAPI]) -> None:
    found = {route for app in apps for route in of(app)} | set(in_the_text())
    assert len(found) > 70
    assert found - KINDS.keys() == set(), "who may use it, and who finds out its class?"
    # And nothing that is not there; what ASGI applications of others add cannot be read as text.
    assert KINDS.keys() - found <= {"POST /adapters", "DELETE /adapters/{adapter_name}"}


def spellings(path: str, root: str) -> set[str]:
    """Ways to write a path that somebody on the way may take for it."""
    before = {"", root, root.rstrip("/"), root * 2, "/", "/.", "/x/..", "/health", "/metrics/.."}
    forms = {path, path.upper(), path + "/", path + "//", path.replace("/", "//"), path + "/."}
    forms |= {path + "/../health", path.replace("/", "%2f"), path.replace("o", "%6f")}
    forms |= {path.replace("/", "%252f"), path + ";x", path + "\0", path[1:], path + "/x"}
    return {one + form for one in before for form in forms}


# Some of each kind: the others are matched in the same way.
SPELLED = [
    *("GET /health", "GET /metrics", "GET /qllm/", "GET /v1/models", "POST /tokenize"),
    *("GET /v1/responses/{response_id}", "POST /v1/responses/{response_id}/cancel"),
    *("POST /v1/completions", "POST /generative_scoring", "POST /v1/audio/transcriptions"),
    *("POST /pause", "POST /v1/load_lora_adapter", "GET /server_info"),
]


class StandIn:
    """A route that matches as another one does, and tells that it was taken."""

    def __init__(self, route: Any) -> None:
        self.matches, self.path = route.matches, getattr(route, "path", "")
        self.methods = getattr(route, "methods", None)
        self.below = isinstance(route, Mount)

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        if not self.methods or scope["method"] in self.methods:
            scope["taken"] = self


@pytest.mark.parametrize("root", ["", "/", "/api", "/api/", "/health"])
def test_no_spelling_gives_more_than_the_path(apps: list[FastAPI], root: str) -> None:
    """Whatever route the application takes, the middleware has named that one."""
    app = FastAPI(root_path=root)
    largest = max((each.router.routes for each in apps), key=len)
    app.router.routes[:] = [StandIn(route) for route in largest]  # type: ignore[misc]

    async def taken(method: str, path: str) -> tuple[str, StandIn | None]:
        """What the middleware makes of it, and what the router does."""
        named = []

        async def outermost(scope: Any, receive: Any, send: Any) -> None:
            named.append(route_of(scope))
            with contextlib.suppress(HTTPException):  # there is no such path
                await app.router(scope, receive, send)

        async def send(message: Any) -> None:
            pass

        app.middleware_stack = outermost
        # As uvicorn has it.
        scope = {"type": "http", "method": method, "path": unquote(path), "headers": []}
        scope |= {"raw_path": path.encode(), "query_string": b"", "server": ("host", 80)}
        await app(scope, None, send)  # type: ignore[arg-type]
        return named[0], scope.get("taken")  # type: ignore[return-value]

    async def compare() -> int:
        ran = 0
        for route in SPELLED:
            for spelling in spellings(route.partition(" ")[2].replace("{response_id}", "x"), root):
                for method in {"OPTIONS", route.partition(" ")[0]}:
                    named, took = await taken(method, spelling)
                    if took is None:
                        assert kind_of(named) in (RouteKind.OPERATOR, RouteKind.TENANT), spelling
                        assert not is_served(named), spelling
                        continue
                    ran += 1
                    assert named.partition(" ")[2] == took.path, spelling
                    assert named.split()[0] in (method, BELOW), spelling
                    if took.below and kind_of(named) is not RouteKind.OPERATOR:
                        assert unquote(spelling) in (took.path, root.rstrip("/") + took.path)
        return ran

    assert asyncio.run(compare()) >= 2 * len(SPELLED) - 5


def test_what_is_logged_is_listed() -> None:
    assert shown("POST /v1/completions") == "/v1/completions"
    assert shown("GET /v1/responses/{response_id}") == "/v1/responses/{response_id}"
    assert shown("") == shown("BELOW /secret") == shown("GET /secret") == "(other)"
    assert access_control.this_access() is None
