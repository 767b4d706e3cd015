# SPDX-License-Identifier: Apache-2.0
"""Every route's requests have the class that they will run in, or none, before they are read."""

from __future__ import annotations

import importlib
import inspect
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from vllm_qllm.api import said
from vllm_qllm.api.serving import ENTRIES
from vllm_qllm.config import PriorityConfig
from vllm_qllm.intake import urgency_fields
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
    found = {"": expected_level(CONFIG, route, None, NO_HEADERS, bytes)}
    for tenant in tenants:
        asking = tenant_request(access, tenant)
        if KINDS[route] is RouteKind.DEFAULT:
            asking.ask(None, 1)  # as the middleware does
        found[tenant] = expected_level(CONFIG, route, asking, NO_HEADERS, bytes)
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
    assert 0 <= expected_level(CONFIG, "POST /v1/completions", None, NO_HEADERS, lambda: body) <= 2


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_no_header_is_too_odd(text: str) -> None:
    headers = Headers({"X-Vllm-Priority": text})
    assert 0 <= expected_level(CONFIG, "POST /v1/completions", None, headers, bytes) <= 2


SPELLINGS = [
    (b'{"priority": 9}', 1, "agent"),
    (b'{"priority": "50"}', 2, "batch"),
    (b'{"priority": " 50 "}', 2, "batch"),
    (b'{"priority": 50.0}', 2, "batch"),
    (b'{"priority": 5e1}', 2, "batch"),
    (b'{"priority": "50.0"}', 2, "batch"),
    (b'{"prio\\u0072ity": 50}', 2, "batch"),
    (b'{"service_tier": "fle\\u0078"}', 2, "batch"),
    (b'{"\\u0065xtra_body": {"priority": 50}}', 2, "batch"),
    ('{"priority": -3}'.encode("utf-16"), 2, "cannot be seen"),
    ('{"priority": -3}'.encode("utf-32-le"), 2, "cannot be seen"),
    (b"\xef\xbb\xbf" + b'{"priority": -3}', 0, "chat"),
    (b'{"priority" :' + b" " * 99 + b"-3}", 0, "chat"),
    (b'{"priority": -3, "priority": 50}', 2, "batch"),
    (b'{"priority": null}', 1, "says nothing"),
    (b'{"priority": "soon"}', 2, "refused"),
    (b'{"priority": {"a": 1}}', 2, "refused"),
    (b'{"priority": ' + b"9" * 100 + b"}", 2, "refused"),
    (b'{"priority": -3, "service_tier": "flex"}', 2, "batch"),
    (b'{"service_tier": "flex", "x": {"priority": -3}}', 2, "nested"),
    (b'{"input": {"priority": 50}, "priority": -3}', 0, "nested"),
    (b'{"tools": [{"priority": 50}]}', 1, "nested"),
    (b'{"tools": [{"extra_body": {"priority": 50}}]}', 1, "nested"),
    (b'{"extra_body": {"priority": -3}, "tools": {"priority": 50}}', 0, "chat"),
    (b'{"extra_body": {"a": [{"priority": 50}], "priority": -3}}', 0, "chat"),
    (b'{"extra_body": {"a": [{}]}, "x": {"priority": 50}}', 1, "nested"),
    (
        b'{"x": "priority", "y": "\\\\", "z": "\\"priority\\": 50", "service_tier": "flex"}',
        2,
        "batch",
    ),
    (b'{"x": "\\"priority\\": 50, {{{", "priority": -3}', 0, "chat"),
]


@pytest.mark.parametrize(("body", "level", "why"), SPELLINGS)
def test_an_urgency_is_seen_however_it_is_spelled_and_only_where_it_counts(
    body: bytes, level: int, why: str
) -> None:
    assert expected_level(CONFIG, "POST /v1/completions", None, NO_HEADERS, lambda: body) == level


def test_what_cannot_be_seen_has_the_least_urgent_class_of_its_tenant(tmp_path: Path) -> None:
    tenants: Any = {"both": {"classes": {"chat": {}, "agent": {}}}}
    asking = tenant_request(AccessControl(config_with(tmp_path, tenants), None), "both")
    body = '{"priority": -3}'.encode("utf-16")
    route = "POST /v1/completions"
    assert expected_level(CONFIG, route, asking, NO_HEADERS, lambda: body) == 1


def test_a_body_is_looked_at_only_where_nothing_else_says_the_class() -> None:
    def never() -> bytes:
        raise AssertionError

    header = Headers({"X-Vllm-Priority": "50"})
    for route, kind in KINDS.items():
        headers = header if kind is RouteKind.CLASS else NO_HEADERS
        assert expected_level(CONFIG, route, None, headers, never) in (1, 2)


SIZE = 2**22
WORST = {
    "whitespace before a value": b'{"priority":' + b" " * SIZE + b"x}",
    "whitespace before a colon": b'{"priority"' + b"\t" * SIZE + b":x}",
    "whitespace in between": (b'{"priority"' + b" " * 1000 + b":") * (SIZE // 1000),
    "quotes": b'{"priority":' + b'"' * (SIZE // 4),
    "backslashes": b'{"priority":1,"' + b"\\" * SIZE + b'":1}',
    "escapes": b'{"' + b"\\u0070" * (SIZE // 6) + b'":1}',
    "names": b"{" + b'"priority":1,' * (SIZE // 13) + b'"x":1}',
    "escaped names": b"{" + b'"prio\\u0072ity":1,' * (SIZE // 18) + b'"x":1}',
    "names that are nested": b'{"a":' * 900 + b"[" + b'{"priority":1},' * (SIZE // 15),
    "names of extra_body": b"{" + b'"extra_body":{"priority":1},' * 3000 + b"{" * SIZE,
    "digits": b'{"priority":' + b"1" * SIZE + b"}",
    "a text": b'{"priority":"' + b"1" * SIZE + b'"}',
    "brackets": b'{"extra_body":{' + b"[" * (SIZE // 8) + b'"priority":1',
}


@pytest.mark.parametrize("body", WORST.values(), ids=WORST)
def test_no_body_takes_longer_than_to_read_one_as_long(body: bytes) -> None:
    """Of a few texts for each of its bytes, as the limits allow: as of a list of numbers."""

    def seconds(work: Any) -> float:
        took = []
        for _ in range(3):
            began = time.process_time()
            work()
            took.append(time.process_time() - began)
        return min(took)

    document = b"[" + b'"ab",' * (SIZE // 5) + b"0]"
    route = "POST /v1/completions"
    own = seconds(lambda: expected_level(CONFIG, route, None, NO_HEADERS, lambda: body))
    assert own < 4 * seconds(lambda: json.loads(document))


def test_the_names_are_those_that_handlers_read() -> None:
    """Handlers stand above this in the order of imports."""
    assert {urgency_fields.PRIORITY, urgency_fields.SERVICE_TIER} < set(said.FIELDS)
    assert urgency_fields.EXTRA == said.EXTRA
