# SPDX-License-Identifier: Apache-2.0
"""A tenants file, read and checked as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from vllm_qllm.access.tenant import Count, Hash, Name, Record, Tenant
from vllm_qllm.config import ConfigError, PriorityClass, PriorityConfig
from vllm_qllm.config.regular_file import read_text

# Rows of the shared table are made for each of them and each of their classes.
MAX_TENANTS = 1000
# The tenant of a request without a key, the class of one whose class is not known.
NONE = "none"
# Ten times what so many tenants need.
MAX_BYTES = 16 * 2**20


class TenantsConfig(Record):
    """All tenants of a server, and what holds for all of them together.

    Attributes:
        tenants: by name.
        gateway: hash of the secret with which a gateway may name a tenant; None: keys only.
        max_in_flight: by class, how many requests of it and of more urgent classes may be
            accepted and unanswered before further ones of it are refused. So the least urgent
            class is refused first, and is never the reason why a more urgent one is.
        max_body_bytes: of a request.
        max_header_bytes: of a request, all names and values together.
    """

    tenants: Annotated[dict[Name, Tenant], Field(max_length=MAX_TENANTS)]
    gateway: Hash | None = None
    max_in_flight: dict[str, Count] = {}
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**40)] = 32 * 2**20
    max_header_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 32 * 2**10

    @cached_property
    def owners(self) -> dict[str, str]:
        """Names of tenants by the hashes of their keys."""
        return {key: name for name, tenant in self.tenants.items() for key in tenant.keys}

    @classmethod
    def of_text(cls, text: str, origin: str, config: PriorityConfig | None = None) -> TenantsConfig:
        """Read and check what a file holds.

        Args:
            text: of the file.
            origin: what to call it in a message.
            config: of the server; None checks all that can be checked without knowing its classes.

        Raises:
            ConfigError: a field, which is named, cannot be used. What stands where the hash of a
                key should be is not shown.
        """
        try:
            tenants_config = cls.model_validate(json.loads(text, object_pairs_hook=_once))
        except ValidationError as error:
            raise ConfigError(f"{origin}: {_first(error)}") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{origin}: {error}; allowed: a JSON file") from None
        problems = tenants_config._problems()
        of_classes = (
            tenants_config._unknown_names() if config is None else tenants_config._unfit_for(config)
        )
        for problem in (*problems, *of_classes):
            raise ConfigError(f"{origin}: {problem}")
        return tenants_config

    @classmethod
    def load(cls, path: str | Path, config: PriorityConfig | None = None) -> TenantsConfig:
        """Read and check a file, as :meth:`of_text`.

        Raises:
            ConfigError: it cannot be read, or used.
        """
        return cls.of_text(*text_of(path), config)

    def _problems(self) -> Iterator[str]:
        if NONE in self.tenants:
            yield f"tenants.{NONE} is there; allowed: other names, as metrics say it for nobody"
        for where, used in self._classes():
            if used == NONE:
                yield f"{where} names {NONE!r}; allowed: other names, it is no class in metrics"
        for name, tenant in self.tenants.items():
            if tenant.default_class not in (None, *tenant.classes):
                yield (
                    f"tenants.{name}.default_class is {tenant.default_class!r}; "
                    f"allowed: {', '.join(tenant.classes)}"
                )
            for used, limits in tenant.classes.items():
                if limits.burst is not None and limits.requests_per_second is None:
                    yield (
                        f"tenants.{name}.classes.{used}.burst is {limits.burst}; allowed: only "
                        "with requests_per_second"
                    )
        hashes = [key for tenant in self.tenants.values() for key in tenant.keys]
        if self.gateway is not None:
            hashes.append(self.gateway)
        if len(set(hashes)) < len(hashes):
            yield "tenants[].keys holds a hash twice; allowed: each once, and not the gateway's"

    def _classes(self) -> Iterator[tuple[str, str]]:
        """Every class that is named, after where it is."""
        for used in self.max_in_flight:
            yield "max_in_flight", used
        for name, tenant in self.tenants.items():
            for used in tenant.classes:
                yield f"tenants.{name}.classes", used

    def _unknown_names(self) -> Iterator[str]:
        """What no server can have for a class."""
        for where, used in self._classes():
            try:
                PriorityClass(used)
            except ConfigError as error:
                yield f"{where} names {used!r}; allowed: {str(error).partition('allowed: ')[2]}"

    def _unfit_for(self, config: PriorityConfig) -> Iterator[str]:
        classes = [c.name for c in config.classes]
        if NONE in classes:
            yield f"the server has a class {NONE!r}; allowed: other names, it is none in metrics"
        for where, used in self._classes():
            if used not in classes:
                yield f"{where} names {used!r}; allowed: {', '.join(classes)}"
        for name, tenant in self.tenants.items():
            for used, limits in tenant.classes.items():
                least = limits.min_priority
                if least is not None and classes[config.level(least)] != used:
                    yield (
                        f"tenants.{name}.classes.{used}.min_priority is {least}; allowed: a "
                        "priority of that class"
                    )


def text_of(path: str | Path) -> tuple[str, str]:
    """What a tenants file holds, and what errors are to call it.

    Raises:
        ConfigError: it cannot be read.
    """
    origin = f"tenants file {path}"
    try:
        return read_text(path, MAX_BYTES), origin
    except (OSError, ValueError) as error:
        raise ConfigError(f"{origin}: {error}; allowed: a JSON file") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return fields


def _first(error: ValidationError) -> str:
    """The first problem in words: field, value, what is allowed."""
    problem = error.errors(include_url=False)[0]
    path = [str(part) for part in problem["loc"] if part != "[key]"]
    hidden = "keys" in path or path[:1] == ["gateway"]
    value = "what is not shown here" if hidden else f"{problem['input']!r:.200}"
    if problem["type"] == "extra_forbidden":
        return f"{'.'.join(path)} is not known; allowed: the fields in docs/access.md"
    return f"{'.'.join(path) or 'the whole'} is {value}; allowed: {problem['msg']}"
