# SPDX-License-Identifier: Apache-2.0
"""Paths as somebody spells them who wants one thing to be let in and another to be answered.

Between a client and a handler a path is read several times, and not always alike: decoded once or
twice, with dots taken for directories or not, with empty segments and parameters or without.
"""

from __future__ import annotations

import http.client
import itertools
import socket
from collections.abc import Iterator

# A segment that leads back, and one that stays, as some reader may take them.
BACK = ("..", "%2e%2e", ".%2E", "%252e%252e", "..;", "..;x=1", "..%00", "%2e%2e%2f..", "..%5c..")
STAY = (".", "%2e", "%252e", ".;x", "", ";x")
AFTER = ("/", "//", "/.", ";x=1", "%3Bx", "%20", "%09", "%0a", "%00", "%23", "#x", "?x=1", "%3Fx=1")


def spellings(path: str) -> Iterator[str]:
    """Other ways to write a path that starts with ``/``, itself first."""
    yield path
    first, *rest = path[1:].split("/")
    tail = "".join(f"/{segment}" for segment in rest)
    for stay in STAY:
        yield f"/{stay}{path}"
        yield f"/{first}/{stay}{tail}"
    for back in BACK:
        yield f"/x/{back}{path}"
        yield f"/{first}/x/{back}{tail}"
    yield from (path + after for after in AFTER)
    for slash in ("%2f", "%2F", "%252f", "\\", "%5c", "%ef%bc%8f"):
        yield "/" + path[1:].replace("/", slash)
        yield f"/{first}{slash}{tail.removeprefix('/')}"
    for letter in dict.fromkeys(path.replace("/", "")):
        for code in (f"%{ord(letter):02x}", f"%{ord(letter):02X}", f"%25{ord(letter):02x}"):
            yield path.replace(letter, code, 1)
    yield path.upper()
    yield f"http://127.0.0.1{path}"
    yield f"http://127.0.0.1/x/..{path}"


def disguises(closed: str, opened: str) -> Iterator[str]:
    """Spellings of ``closed`` that some reader takes for something below ``opened``, and back."""
    for back in BACK:
        for first, second in itertools.permutations((closed, opened)):
            up = "/".join([back] * first.count("/"))
            yield f"{first}/{up}{second}"
            yield f"{first}/{up}/{second}"
            yield f"{first}/{'/'.join([back] * (first.count('/') + 2))}{second}"
    for separator in (";", "%00", "%0d%0a", "#", "%23", "%3f", "\\"):
        yield opened + separator + closed
        yield closed + separator + opened


def ask_for(url: str, target: str, key: str | None = None) -> tuple[int, bytes]:
    """Status and body of the answer to a GET of exactly ``target``, which a client might change.

    Args:
        url: of the server, without a path.
        target: as it goes onto the wire.
        key: of who asks.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = [f"GET {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
        if key is not None:
            head.append(f"Authorization: Bearer {key}")
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()
