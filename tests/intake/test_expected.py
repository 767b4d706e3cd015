# SPDX-License-Identifier: Apache-2.0
"""Every route's requests have the class that they will run in, or none, before they are read."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import vllm.entrypoints
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from vllm.entrypoints.serve.engine.serving import BaseServing

from tests.access.access_controls import CLASSES, config_with, tenant_request
from tests.access.test_route_kind import in_the_text
from tests.api.test_handlers import SETTLED, subclasses
from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.route_kind import KINDS, RouteKind
from vllm_qllm.api.serving import ENTRIES
from vllm_qllm.config import PriorityConfig
from vllm_qllm.intake.expected import expected_level

CONFIG = PriorityConfig(classes=CLASSES)
ENTRYPOINTS = Path(vllm.entrypoints.__file__).parent
GENERATES = (RouteKind.CLASS, RouteKind.DEFAULT)
NO_HEADERS = Headers({})


@pytest.mark.parametrize("route", KINDS)
def test_a_route_that_generates_has_the_class_of_who_asks_and_no_other_has_one(
    route: str, tmp_path: Path
) -> None:
    """The routes listed are all that vLLM has: tests/access/test_route_kind.py."""
    tenants = {"chat": {"classes": {"chat": {}}}, "batch": {"classes": {"batch": {}}}}
    access = AccessControl(config_with(tmp_path, tenants), None)
    found = {"": expected_level(CONFIG, route, None, NO_HEADERS, b"")}
    for tenant in tenants:
        asking = tenant_request(access, tenant)
        if KINDS[route] is RouteKind.DEFAULT:
            asking.ask(None, 1)  # as the middleware does
        found[tenant] = expected_level(CONFIG, route, asking, NO_HEADERS, b"")
    if KINDS[route] in GENERATES:
        assert found == {"": 1, "chat": 0, "batch": 2}
    else:
        assert set(found.values()) == {2}


def handlers() -> Iterator[type]:
    for file in sorted(ENTRYPOINTS.rglob("*serving.py")):
        if "cohere" not in file.parts:  # its SDK is not installed
            importlib.import_module(
                ".".join(("vllm.entrypoints", *file.relative_to(ENTRYPOINTS).with_suffix("").parts))
            )
    for handler in subclasses(BaseServing):
        if (
            handler.__module__.startswith("vllm.entrypoints")
            and "pooling" not in handler.__module__
        ):
            yield handler


def test_every_handler_that_generates_is_behind_a_door_with_a_class() -> None:
    """A handler is where its routes are; one that never asks for a class has the default."""
    default = set()
    for handler in handlers():
        routes = {*in_the_text(Path(inspect.getfile(handler)).parent)}
        if SETTLED.get(handler.__name__) == "RouteKind.DEFAULT":
            default |= routes
        elif any(hasattr(handler, entry) for entry in ENTRIES):
            assert any(KINDS[route] is RouteKind.CLASS for route in routes), handler
    assert default == {route for route, kind in KINDS.items() if kind is RouteKind.DEFAULT}


@given(st.binary() | st.from_regex(rb'\{"(priority|service_tier)": ?"?[-+.eE0-9a-z]{0,30}"?'))
def test_no_body_is_too_odd(body: bytes) -> None:
    assert 0 <= expected_level(CONFIG, "POST /v1/completions", None, NO_HEADERS, body) <= 2


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_no_header_is_too_odd(text: str) -> None:
    headers = Headers({"X-Vllm-Priority": text})
    assert 0 <= expected_level(CONFIG, "POST /v1/completions", None, headers, b"") <= 2
