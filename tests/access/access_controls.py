# SPDX-License-Identifier: Apache-2.0
"""Access control for tests without a server, with three classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.key import hash_of
from vllm_qllm.access.tenant_request import TenantRequest
from vllm_qllm.config import PriorityClass, PriorityConfig

CLASSES = (
    PriorityClass("chat", max_priority=-3),
    PriorityClass("agent", max_priority=9),
    PriorityClass("batch"),
)


def config_with(directory: Path, tenants: dict[str, Any], **fields: Any) -> PriorityConfig:
    """A configuration that names a new tenants file; the key of each tenant is its name."""
    path = directory / "tenants.json"
    named = {name: {"keys": [hash_of(name)]} | tenant for name, tenant in tenants.items()}
    path.write_text(json.dumps({"tenants": named} | fields))
    return PriorityConfig(classes=CLASSES, tenants=str(path))


def tenant_request(access: AccessControl, tenant: str) -> TenantRequest:
    """A request of a tenant that has just come."""
    return TenantRequest(access, access.tenants_config, tenant, "POST /v1/completions", "id")
