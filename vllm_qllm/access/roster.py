# SPDX-License-Identifier: Apache-2.0
"""A tenants file, read and checked as a whole."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from vllm_qllm.access.tenant import Count, Hash, Name, Record, Tenant
from vllm_qllm.config import ConfigError, PriorityConfig

# Rows of the shared table are made for each of them and each of their classes.
MAX_TENANTS = 1000
# The tenant of a request without a key, the class of one whose class is not known.
NONE = "none"


class Roster(Record):
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
    def parse(cls, path: str | Path) -> Roster:
        """Read a file, and check all that can be checked without knowing the server's classes.

        Raises:
            ConfigError: it cannot be read, or a field, which is named, cannot be used. What
                stands where the hash of a key should be is not shown.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            return cls.model_validate(json.loads(text, object_pairs_hook=_once))
        except ValidationError as error:
            raise ConfigError(f"tenants file {path}: {_first(error)}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"tenants file {path}: {error}; allowed: a JSON file") from None

    @classmethod
    def load(cls, path: str | Path, config: PriorityConfig) -> Roster:
        """Read and check a file.

        Raises:
            ConfigError: as :meth:`parse`, or it names what the server does not have.
        """
        roster = cls.parse(path)
        for problem in roster._problems(config):
            raise ConfigError(f"tenants file {path}: {problem}")
        return roster

    def _problems(self, config: PriorityConfig) -> Any:
        classes = [c.name for c in config.classes]
        allowed = ", ".join(classes)
        for name in self.max_in_flight:
            if name not in classes:
                yield f"max_in_flight names class {name!r}; allowed: {allowed}"
        if NONE in self.tenants:
            yield f"tenants.{NONE} is there; allowed: other names, as metrics say it for nobody"
        for name, tenant in self.tenants.items():
            for used in tenant.classes:
                if used not in classes:
                    yield f"tenants.{name}.classes names {used!r}; allowed: {allowed}"
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
                least = limits.min_priority
                if least is not None and classes[config.rank(least)] != used:
                    yield (
                        f"tenants.{name}.classes.{used}.min_priority is {least}; allowed: a "
                        "priority of that class"
                    )
        hashes = [key for tenant in self.tenants.values() for key in tenant.keys]
        if self.gateway is not None:
            hashes.append(self.gateway)
        if len(set(hashes)) < len(hashes):
            yield "tenants[].keys holds a hash twice; allowed: each once, and not the gateway's"


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
