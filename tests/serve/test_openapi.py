# SPDX-License-Identifier: Apache-2.0
"""Schemathesis asks the server what its own OpenAPI allows and what it forbids, where that is ours.

Ours are the routes below ``/qllm/``, whole, and the fields ``priority`` and ``service_tier`` of
requests that are vLLM's. What a wrong value of another field does is not looked at.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.tools import module
from tests.serve.server import MODEL, Server
from tests.serve.test_fuzz import PATHS

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

# Paths of vLLM's own, and why their requests are not made here.
NOT_OURS = {
    "/load /version /kv_event_sources /health /ping /metrics /v1/models": "take no request",
    "/tokenize /detokenize /v1/messages/count_tokens": "generate nothing, so have no priority",
    "/v1/responses/{response_id} /v1/responses/{response_id}/cancel": "no priority either",
    "/v1/messages": "has neither field",
    "/invocations": "has no schema; it hands requests to chats and completions",
    "/v1/systemone": "needs a model of another family (test_decisions)",
    "/generative_scoring": "names no tier; test_tenants asks for its classes",
    "/scale_elastic_ep /is_scaling_elastic_ep": "change the engine",
}
FIELDS = ("priority", "service_tier")


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    """What the server says of itself."""
    return dict(json.loads(server.get("/openapi.json")))


def ours(document: dict[str, Any]) -> set[str]:
    return {path for path in document["paths"] if path.startswith("/qllm/")}


def fuzz(server: Server, part: dict[str, Any], directory: Path, *options: str) -> str:
    """Run Schemathesis on a part of the document; what it said, for a failure with the request."""
    file = directory / "openapi.json"
    file.write_text(json.dumps(part))
    # Bounded by the number of examples: a limit of time would be used up.
    run = ("run", str(file), "--url", server.url, "--generation-deterministic", "--no-color")
    options = ("--request-timeout", "30", *options)
    done = module("schemathesis.cli", *run, *options, directory=directory)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


def test_every_path_is_ours_or_is_left_out_for_a_reason(document: dict[str, Any]) -> None:
    left_out = {path for paths in NOT_OURS for path in paths.split()}
    assert ours(document) and not left_out & (ours(document) | PATHS.keys())
    assert document["paths"].keys() == ours(document) | PATHS.keys() | left_out


def test_routes_of_ours_keep_to_what_they_say(
    server: Server, document: dict[str, Any], tmp_path: Path
) -> None:
    part = document | {"paths": {path: document["paths"][path] for path in ours(document)}}
    checks = ("--checks", "all", "--max-examples", "40", "--phases", "examples,coverage,fuzzing")
    fuzz(server, part, tmp_path, *checks)


def test_fields_of_ours_cost_no_error_of_the_server(
    server: Server, document: dict[str, Any], tmp_path: Path
) -> None:
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for path, base in PATHS.items():
        operation = dict(document["paths"][path]["post"])
        content = operation["requestBody"]["content"]["application/json"]
        name = content["schema"]["$ref"].rpartition("/")[2]
        said = document["components"]["schemas"][name]["properties"]
        assert "priority" in said
        # As the server says them, or anything where it says nothing; all else as it has to be.
        fields = {field: {"anyOf": [said.get(field, {}), {}]} for field in FIELDS}
        fixed = {field: {"const": value} for field, value in ({"model": MODEL} | base).items()}
        schemas[name] = {
            "type": "object",
            "properties": fixed | fields,
            "required": sorted(fixed),
            "additionalProperties": False,
        }
        paths[path] = {"post": operation}
    part = document | {"paths": paths, "components": {"schemas": schemas}}
    options = ("--mode", "positive", "--phases", "fuzzing", "--max-examples", "25")
    fuzz(server, part, tmp_path, "--checks", "not_a_server_error", *options)
