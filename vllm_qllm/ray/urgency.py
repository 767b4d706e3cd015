# SPDX-License-Identifier: Apache-2.0
"""The class that a request will most likely be served in, before a server has seen it."""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.datastructures import Headers

from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.grant import grant
from vllm_qllm.access.tenants_config import TenantsConfig
from vllm_qllm.access.tenants_file import TenantsFile
from vllm_qllm.api.said import ContradictionError, said_in
from vllm_qllm.config import PriorityConfig

PRIORITY_HEADER = "X-Vllm-Priority"

logger = logging.getLogger("ray.serve")


class Urgency:
    """Reads what a server reads, and refuses nothing: that is left to the server.

    Args:
        config: of the servers. Where it names tenants, keys decide, too.

    Raises:
        ConfigError: the tenants file cannot be used.
    """

    def __init__(self, config: PriorityConfig) -> None:
        self._config = config
        self._tenants_config: TenantsFile | None = None
        if (path := config.tenants) is not None:
            self._tenants_config = TenantsFile(
                path, lambda: TenantsConfig.load(path, config), lambda _: None
            )

    def level(self, headers: Headers, body: bytes) -> int:
        """Index of the class; that of priority 0 for what cannot be understood."""
        config = self._config
        asked, is_auto = self._asked(headers, body)
        if self._tenants_config is not None:
            tenants_config = self._tenants_config.current()
            name = AccessControl.identify(tenants_config, headers)
            if isinstance(name, str):
                tenant = tenants_config.tenants[name]
                granted = grant(config, tenant, None if is_auto else asked)
                asked = granted if isinstance(granted, int) else asked
        return config.level(asked or 0)

    def _asked(self, headers: Headers, body: bytes) -> tuple[int | None, bool]:
        """The priority asked for, and whether that is only what the tier "auto" stands for."""
        if (header := headers.get(PRIORITY_HEADER)) is not None:
            return _integer(header), False
        try:
            fields = json.loads(body) if body else None
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            return None, False
        try:
            said = said_in(fields)
        except ContradictionError:
            return None, False  # the server refuses it
        if said.priority is not None:
            return _integer(said.priority), False
        return self._config.tier_priority(said.service_tier), said.service_tier == "auto"


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and len(value) < 24:
        try:
            return int(value)
        except ValueError:
            return None
    return value if isinstance(value, int) else None
