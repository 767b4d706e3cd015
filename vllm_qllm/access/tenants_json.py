# SPDX-License-Identifier: Apache-2.0
"""A tenants file as a program edits it: what it does not touch stays as it was."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vllm_qllm.access.replacement import locked, replace
from vllm_qllm.access.tenants_config import TenantsConfig, text_of
from vllm_qllm.config import ConfigError, PriorityConfig
from vllm_qllm.config.priority_class import DEFAULT_CLASSES


class TenantsJson:
    """The content of a file.

    Args:
        text: of the file.
        origin: what to call it in a message.
        config: of the server that reads it; None: not known.

    Raises:
        ConfigError: it cannot be used.
    """

    def __init__(self, text: str, origin: str, config: PriorityConfig | None = None) -> None:
        self._origin, self._config = origin, config
        TenantsConfig.of_text(text, origin, config)
        self.data: dict[str, Any] = json.loads(text)

    @classmethod
    def empty(cls, config: PriorityConfig | None = None) -> TenantsJson:
        """Without tenants."""
        return cls('{"tenants": {}}', "the tenant", config)

    @classmethod
    def read(cls, path: str | Path, config: PriorityConfig | None = None) -> TenantsJson:
        """What a file holds.

        Raises:
            ConfigError: it cannot be read, or used.
        """
        return cls(*text_of(path), config)

    @classmethod
    @contextlib.contextmanager
    def changed(
        cls, path: str | Path, config: PriorityConfig | None = None, *, new: bool = False
    ) -> Iterator[TenantsJson]:
        """The content of a file, put in its place at the end: nobody else changes it meanwhile.

        A server reads the old or the new one. Its owner and who may read it stay as they are.

        Args:
            path: of the file; a link stays one.
            config: of the server that reads it; None: not known.
            new: it need not exist.

        Raises:
            ConfigError: it cannot be read, used or written, or no server could use the new one;
                the old one stays.
        """
        try:
            target = Path(path).resolve()
            with locked(target.parent):
                begins = new and not target.exists()
                content = cls.empty(config) if begins else cls.read(path, config)
                content._origin = f"tenants file {path}"
                yield content
                replace(target, content.text())
        except ConfigError:
            raise
        except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
            raise ConfigError(f"tenants file {path}: {error}") from error

    def text(self) -> str:
        """What a file of it holds.

        Raises:
            ConfigError: no server could use it.
        """
        text = json.dumps(self.data, indent=2) + "\n"
        TenantsConfig.of_text(text, self._origin, self._config)
        return text

    @property
    def tenants(self) -> dict[str, Any]:
        """Tenants by name, as JSON objects."""
        found: dict[str, Any] = self.data["tenants"]
        return found

    def add_key(self, name: str, key_hash: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Give a tenant one more key, and make the tenant when there is none.

        Args:
            name: of the tenant.
            key_hash: of the key.
            fields: of a tenant that is made here.

        Raises:
            ConfigError: it is new and has no classes, or one that looks like a slip of the pen; or
                it is there and has other fields.
        """
        if name not in self.tenants:
            if "classes" not in fields:
                raise ConfigError(f"tenant {name} is new; allowed: with --classes only")
            self._refuse_slips(fields["classes"])
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

    @staticmethod
    def line(name: str, tenant: dict[str, Any]) -> str:
        """A tenant's line of the file."""
        return f"{json.dumps(name)}: {json.dumps(tenant)}"

    def _refuse_slips(self, classes: dict[str, Any]) -> None:
        if self._config is not None:
            return  # its classes are known, and compared
        known = {cls for tenant in self.tenants.values() for cls in tenant["classes"]}
        known |= {*self.data.get("max_in_flight", ()), *(cls.name for cls in DEFAULT_CLASSES)}
        for cls in classes:
            near = difflib.get_close_matches(cls, known, 1, 0.8)
            if cls not in known and near:
                raise ConfigError(
                    f"--classes names {cls!r}; allowed: {near[0]}, or, if the server has such a "
                    "class, with its --priority-config, too"
                )
