# SPDX-License-Identifier: Apache-2.0
"""Bodies of the wrong form are refused at their first mistake, not after all of them.

A list of things that may have one of many forms is tried in each of them, thing by thing, and
every attempt is an error with a text of its own: a body of 30 KB can have a million of them, which
take the event loop for half a minute. vLLM shows ten.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic_core import SchemaValidator

# The kinds of pydantic's schemas that hold any number of things and know the setting.
SEQUENCES = ("list", "tuple", "set", "frozenset")


def fail_fast(app: FastAPI) -> None:
    """Make the routes of an application stop at the first bad entry of each list.

    What is accepted stays the same, and so does the first mistake that is named.
    """
    for route in app.routes:
        field = route.body_field if isinstance(route, APIRoute) else None
        if field is not None:
            adapter = field._type_adapter
            # Validators that models have made for themselves, and that know nothing of it, are
            # left out: the last argument.
            adapter.validator = SchemaValidator(stopping(adapter.core_schema), None, False)


def stopping(schema: Any) -> Any:
    """A core schema of pydantic whose sequences stop at their first bad entry."""
    if isinstance(schema, dict):
        found = {key: stopping(value) for key, value in schema.items()}
        return found | {"fail_fast": True} if found.get("type") in SEQUENCES else found
    if isinstance(schema, (list, tuple)):
        return type(schema)(map(stopping, schema))
    return schema
