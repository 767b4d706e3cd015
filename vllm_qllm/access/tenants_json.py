# SPDX-License-Identifier: Apache-2.0
"""A tenants file as a program edits it: what it does not touch stays as it was."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from vllm_qllm.access.roster import Roster
from vllm_qllm.config import ConfigError


class TenantsJson:
    """The content of a file, which need not exist; None begins with nothing.

    Classes are those of the server that reads it, so their names are not checked here.

    Raises:
        ConfigError: it is there and cannot be used.
    """

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)
        self.data: dict[str, Any] = {}
        if self._path is not None and self._path.exists():
            Roster.parse(self._path)
            self.data = json.loads(self._path.read_text(encoding="utf-8"))

    @property
    def tenants(self) -> dict[str, Any]:
        """Tenants by name, as JSON objects."""
        found: dict[str, Any] = self.data.setdefault("tenants", {})
        return found

    def add_key(self, name: str, key_hash: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Give a tenant one more key, and make the tenant when there is none.

        Args:
            name: of the tenant.
            key_hash: of the key.
            fields: of a tenant that is made here.

        Raises:
            ConfigError: it is new and has no classes, or is there and has other fields.
        """
        if name not in self.tenants:
            if "classes" not in fields:
                raise ConfigError(f"tenant {name} is new; allowed: with --classes only")
            self.tenants[name] = {"keys": [], **fields}
        elif fields:
            raise ConfigError(
                f"tenant {name} is there already; allowed: no other options, a new key is all it "
                "gets (change the file for more)"
            )
        tenant: dict[str, Any] = self.tenants[name]
        tenant["keys"] = [*tenant.get("keys", ()), key_hash]
        return tenant

    def revoke_key(self, name: str, start: str) -> None:
        """Take a key from a tenant.

        Raises:
            ConfigError: not exactly one of its keys has a hash that begins so.
        """
        keys = self.tenants.get(name, {}).get("keys", [])
        found = [key for key in keys if key.startswith(start)]
        if len(found) != 1:
            raise ConfigError(f"{len(found)} keys of {name} begin with {start!r}; allowed: one")
        self.tenants[name]["keys"] = [key for key in keys if key not in found]

    def line(self, name: str, tenant: dict[str, Any]) -> str:
        """A tenant's line of the file."""
        return f"{json.dumps(name)}: {json.dumps(tenant)}"

    def save(self) -> None:
        """Put it in the place of the file at once: a server reads the old or the new one.

        Raises:
            ConfigError: no server could use it, or it cannot be written; the old one stays.
        """
        assert self._path is not None
        target = self._path.resolve()  # a link stays one
        text = json.dumps(self.data, indent=2) + "\n"
        draft = None
        try:
            mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
            handle, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(draft, mode)
            Roster.parse(draft)
            os.replace(draft, target)
            draft = None
        except OSError as error:
            raise ConfigError(f"tenants file {self._path}: {error}") from error
        finally:
            if draft is not None:
                os.unlink(draft)
