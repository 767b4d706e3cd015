# SPDX-License-Identifier: Apache-2.0
"""A server with tenants, and clients that have their keys."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai

from tests.serve.server import Server
from vllm_qllm.access.key import hash_of, new_key

LS, BE = "latency_sensitive", "best_effort"
HELLO: Any = [{"role": "user", "content": "zyxcanaryprompt hello"}]
TENANTS: dict[str, dict[str, Any]] = {
    "web": {"classes": {LS: {}, BE: {}}},
    "jobs": {"classes": {BE: {}}},
    "lowered": {"classes": {BE: {}}, "above": "lower"},
    "modest": {"classes": {LS: {"min_priority": 0}, BE: {}}, "default_class": BE},
    "two": {"classes": {LS: {"max_concurrent": 2}, BE: {}}},
    "slow": {"classes": {LS: {"requests_per_second": 0.01, "burst": 2}, BE: {}}},
    "admin": {"classes": {LS: {}}, "operator": True},
}
MAX_IN_FLIGHT = {LS: 8, BE: 4}


@dataclass
class Tenants:
    """The tenants file of a server.

    Attributes:
        file: the file.
        keys: of each tenant, and "gateway".
        server: that reads the file; set once it runs.
    """

    file: Path
    keys: dict[str, str] = field(default_factory=dict)
    server: Server | None = None

    def write(self) -> None:
        """Write :data:`TENANTS` with new keys."""
        self.keys = {name: new_key() for name in (*TENANTS, "gateway")}
        data = {
            "tenants": {n: t | {"keys": [hash_of(self.keys[n])]} for n, t in TENANTS.items()},
            "gateway": hash_of(self.keys["gateway"]),
            "max_in_flight": MAX_IN_FLIGHT,
            "max_body_bytes": 100_000,
        }
        self.file.write_text(json.dumps(data))

    @property
    def url(self) -> str:
        """Of the server."""
        assert self.server is not None
        return self.server.url

    def client(self, tenant: str) -> openai.OpenAI:
        """The real client, which must not hide an error by trying again.

        Each has connections of its own, which the API servers share out among themselves.
        """
        key = self.keys.get(tenant, tenant)
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def http(self, tenant: str | None, **headers: str) -> httpx.Client:
        """A client that can send anything."""
        if tenant is not None:
            headers["Authorization"] = f"Bearer {self.keys.get(tenant, tenant)}"
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    def kept_kv(self) -> float:
        """Share of the KV blocks in use once requests have ended: those kept for next turns."""
        assert self.server is not None
        deadline = time.monotonic() + 20
        while not (used := max(self.server.samples("vllm:kv_cache_usage_perc").values())):
            assert time.monotonic() < deadline, "nothing is kept"
            time.sleep(0.05)
        return used

    def wait_for(self, prefix: str, expected: dict[str, float]) -> None:
        """Until ``/metrics`` says so of the samples that begin with ``prefix`` and are not 0."""
        assert self.server is not None
        deadline = time.monotonic() + 20
        while True:
            found = {k: v for k, v in self.server.samples(prefix).items() if v}
            if found == expected:
                return
            assert time.monotonic() < deadline, f"{found}, expected: {expected}"
            time.sleep(0.05)
