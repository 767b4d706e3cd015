# SPDX-License-Identifier: Apache-2.0
"""What an operator may configure: ``args`` of the application in the file for ``serve run``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vllm_qllm.access.tenants_config import TenantsConfig
from vllm_qllm.config import ConfigError, PriorityConfig

# Options of ``vllm serve`` that follow from other fields.
TAKEN = {
    "--model": "model",
    "--uds": "listen",
    "--host": "listen",
    "--port": "listen",
    "--priority-policy": "policy",
    "--priority-config": "priority_config",
    "--shutdown-timeout": "drain_seconds",
}
# What --additional-config can say of them.
ELSEWHERE = {"priority_policy": "policy", "priority_config": "priority_config"}


class Settings(BaseModel):
    """Of all fronts and replicas. How many there are, and on what, are settings of Serve's own.

    Attributes:
        model: as ``vllm serve`` takes it.
        policy: ``--priority-policy``.
        priority_config: ``--priority-config``: fields, or the path of a file that is there on all
            machines.
        arguments: further ones of ``vllm serve``.
        environment: variables of ``vllm serve``, beside those that Ray gives a replica.
        listen: host:port on which each replica's server listens, for Prometheus; needs one replica
            a machine. None: a socket that nobody else can reach.
        drain_seconds: how long a replica that is told to end may finish what it has.
        assign_seconds: how long a request may wait for a replica that takes requests.
        max_body_bytes: of a request.
        trusted_hops: networks of the gateways that may name a class or a tenant by header.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: Annotated[str, Field(min_length=1)]
    policy: str | None = None
    priority_config: dict[str, Any] | str | None = None
    arguments: Annotated[tuple[str, ...], Field(strict=False)] = ()
    environment: dict[str, str] = {}
    listen: str | None = None
    drain_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    assign_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 30.0
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 8 * 2**20
    trusted_hops: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @field_validator("arguments")
    @classmethod
    def _not_taken(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        for argument in arguments:
            option = argument.partition("=")[0].replace("_", "-")
            if option in TAKEN:
                raise ValueError(f"no {option}, which follows from {TAKEN[option]}")
            # Another way to say it, which a front would not know of.
            for said, field in ELSEWHERE.items():
                if said in argument.replace("-", "_"):
                    raise ValueError(f"no {said}, which follows from {field}")
        return arguments

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, listen: str | None) -> str | None:
        if listen is not None and re.fullmatch(r"[^:\s]+:[1-9][0-9]{0,4}", listen) is None:
            raise ValueError("host:port, such as 0.0.0.0:8000")
        return listen

    @field_validator("trusted_hops")
    @classmethod
    def _networks(cls, hops: tuple[str, ...]) -> tuple[str, ...]:
        for hop in hops:
            try:
                ipaddress.ip_network(hop)
            except ValueError as error:
                raise ValueError(f"networks such as 10.1.2.0/24 ({error})") from None
        return hops

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Settings:
        """Check all that can be checked before anything is started.

        Raises:
            ConfigError: it names the field, its value and what is allowed.
        """
        try:
            settings = cls.model_validate(dict(fields))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            name = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                names = ", ".join(cls.model_fields)
                raise ConfigError(f"args: field is {name!r}; allowed: {names}") from None
            value = "missing" if problem["type"] == "missing" else f"{problem['input']!r:.200}"
            allowed = problem["msg"].removeprefix("Value error, ")
            raise ConfigError(f"args: {name} is {value}; allowed: {allowed}") from None
        config = settings.priorities
        if config.tenants is not None and Path(config.tenants).exists():
            TenantsConfig.load(config.tenants, config)  # else it is on the replicas' machines only
        return settings

    @property
    def priorities(self) -> PriorityConfig:
        """Classes and service tiers.

        Raises:
            ConfigError: they cannot be used.
        """
        return PriorityConfig.load(self.priority_config, self.policy)

    def is_trusted(self, address: str) -> bool:
        """Whether this is the address of a gateway."""
        try:
            host = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(host in ipaddress.ip_network(hop) for hop in self.trusted_hops)
