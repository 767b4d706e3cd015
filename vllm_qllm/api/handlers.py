# SPDX-License-Identifier: Apache-2.0
"""Teaches the handlers that have no base with vLLM's others, and sees that tenants are asked for.

It adds no route: what vLLM gives an endpoint plugin is the server's handlers, all of them made.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from vllm_qllm.access import middleware
from vllm_qllm.api.serving import teach
from vllm_qllm.config import ConfigError, PriorityConfig, carried

# The attributes of a server's state that hold them; None where the model has no such thing.
HANDLERS = ("serving_generative_scoring", "serving_structured_decisions")


class Handlers:
    """One of vLLM's endpoint plugins."""

    name = "qllm_handlers"
    required_tasks = None

    def attach_router(self, app: Any) -> None:
        """Nothing."""

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Teach handlers; called before the server listens.

        Args:
            engine_client: an ``AsyncLLM``; None on a server without an engine, which has no policy.
            state: of the server.
            args: the parsed command line.

        Raises:
            ConfigError: there are tenants, and the server would not look at their keys.
        """
        data = carried(getattr(engine_client, "vllm_config", None))
        if data is None:
            return
        config = PriorityConfig.from_dict(data)
        if config.tenants is not None and middleware.PATH not in args.middleware:
            raise ConfigError(
                f"priority config: tenants is {config.tenants!r}, and --middleware is "
                f"{args.middleware!r}; allowed: with {middleware.PATH} among them, which "
                "--priority-config adds, as other ways to start a server do not"
            )
        for name in HANDLERS:
            if (handler := getattr(state, name, None)) is not None:
                teach(handler)
