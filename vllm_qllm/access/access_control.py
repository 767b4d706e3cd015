# SPDX-License-Identifier: Apache-2.0
"""What one API server process knows of its tenants: their configuration, the limits, the counts."""

from __future__ import annotations

import logging
from pathlib import Path

from starlette.datastructures import Headers

from vllm_qllm.access import audit
from vllm_qllm.access.counter_table import CounterTable, TableFull
from vllm_qllm.access.key import is_key, owner
from vllm_qllm.access.limiter import Limiter
from vllm_qllm.access.refusal import Refusal
from vllm_qllm.access.route_kind import shown
from vllm_qllm.access.tenants_config import NONE, TenantsConfig
from vllm_qllm.access.tenants_file import TenantsFile
from vllm_qllm.config import ConfigError, PriorityConfig

GATEWAY_HEADER = "X-Qllm-Gateway"
TENANT_HEADER = "X-Qllm-Tenant"

logger = logging.getLogger("vllm.qllm")


class AccessControl:
    """Finds out whose a request is, and keeps count.

    Args:
        config: which names the tenants file.
        table_path: of the numbers that all API servers share; None: there are no others.

    Raises:
        ConfigError: the tenants file cannot be used.
    """

    def __init__(self, config: PriorityConfig, table_path: str | Path | None) -> None:
        assert config.tenants is not None
        self.path, self.config = config.tenants, config
        self.limiter = Limiter(_table(table_path), [c.name for c in config.classes])
        self._file = TenantsFile(self.path, self._load, self.limiter.count_reload)

    def _load(self) -> TenantsConfig:
        tenants_config = TenantsConfig.load(self.path, self.config)
        try:
            self.limiter.reserve(tenants_config)
        except TableFull as error:
            raise ConfigError(f"tenants file {self.path}: {error}") from None
        return tenants_config

    @property
    def tenants_config(self) -> TenantsConfig:
        """The tenants as they are now."""
        return self._file.current()

    @staticmethod
    def identify(tenants_config: TenantsConfig, headers: Headers) -> str | Refusal:
        """The name of the tenant that sends these headers, or why that is not known.

        A gateway proves itself by a secret and names the tenant. Otherwise there must be a key,
        as OpenAI's clients or as Anthropic's send it.

        Args:
            tenants_config: the one that the request is served by; the next may not know the tenant.
            headers: of the request.
        """
        secret, named = headers.get(GATEWAY_HEADER), headers.get(TENANT_HEADER)
        if secret is not None or named is not None:
            expected = tenants_config.gateway
            if expected is None or secret is None or not is_key(secret, expected):
                text = f"{GATEWAY_HEADER} and {TENANT_HEADER} are for a gateway that knows its key"
                return Refusal("gateway", text)
            if named not in tenants_config.tenants:
                return Refusal("gateway", f"{TENANT_HEADER} names no tenant of this server")
            return named
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not key:
            text = "an API key is needed: Authorization: Bearer KEY, or x-api-key: KEY"
            return Refusal("no_key", text)
        tenant = owner(key, tenants_config.owners)
        return Refusal("unknown_key", "the API key is not known") if tenant is None else tenant

    def refused(self, tenant: str | None, refusal: Refusal, route: str, request_id: str) -> None:
        """Count a refusal and write its line."""
        name = tenant or NONE
        self.limiter.count_refusal(name, refusal)
        audit.write(name, refusal, shown(route), request_id)


def _table(path: str | Path | None) -> CounterTable:
    try:
        return CounterTable(path)
    except OSError as error:
        # As with metrics: a full disk may not cost the service.
        logger.warning("Limits of tenants hold in each API server for itself: %s.", error)
        return CounterTable()


_access: AccessControl | None = None


def open_access(config: PriorityConfig, table_path: str | Path | None) -> AccessControl | None:
    """The one of this process, made when its server starts; None where there are no tenants."""
    global _access
    _access = AccessControl(config, table_path) if config.tenants is not None else None
    if _access is not None:
        logger.info("%d tenants read from %s.", len(_access.tenants_config.tenants), _access.path)
    return _access


def this_access() -> AccessControl | None:
    """What :func:`open_access` made in this very process."""
    return _access
