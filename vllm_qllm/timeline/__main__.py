# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.timeline``: what a running server did, as a trace for Perfetto.

Writes the trace-event format, which https://ui.perfetto.dev and chrome://tracing open, and prints
how long requests waited for their first work. The server must have been started with
``--priority-config '{"timeline": true}'``.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_qllm import credentials
from vllm_qllm.percentile import percentile
from vllm_qllm.timeline.chrome import trace
from vllm_qllm.timeline.response import response_times

HINTS = {
    401: " (with tenants it is for operators: set OPENAI_API_KEY)",
    403: " (with tenants it is for operators: set OPENAI_API_KEY to the key of one)",
    404: """ (is it served with --priority-config '{"timeline": true}'?)""",
}


class Unreachable(RuntimeError):
    """The server did not answer with a timeline; the message says why."""


def fetch(url: str, seconds: float, timeout: float = 60.0) -> dict[str, Any]:
    """The document that a server answers.

    Args:
        url: of the server, without a path.
        seconds: how much of the past.
        timeout: seconds to wait for it.

    Raises:
        Unreachable: there is no server, or it has no timeline.
    """
    query = urllib.parse.urlencode({"seconds": seconds})
    address = f"{url.rstrip('/')}/qllm/timeline?{query}"
    try:
        request = urllib.request.Request(address, headers=credentials.headers())
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            document: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        raise Unreachable(
            f"{address} answered {error.code}{HINTS.get(error.code, '')}: {said[:500]}"
        ) from error
    except (OSError, ValueError) as error:
        raise Unreachable(f"{address}: {error}") from error
    if not isinstance(document, dict) or document.get("format") != "vllm-qllm timeline":
        raise Unreachable(f"{address} answered something that is no timeline")
    return document


def summary(document: Mapping[str, Any]) -> str:
    """Response times by class, for a person."""
    lines = []
    for name, times in response_times(document).items():
        line = f"{name}: {len(times)} requests started"
        if times:
            shown = (percentile(times, p) or 0.0 for p in (50, 99, 100))
            p50, p99, most = (f"{1e3 * t:.2f}" for t in shown)
            line += f", response time p50 {p50} ms, p99 {p99} ms, max {most} ms"
        lines.append(line)
    if not all(engine["complete"] for engine in document["engines"]):
        lines.append("the ring is too small for so many seconds: the beginning is missing")
    return "\n".join(lines)


def write(url: str, seconds: float, output: Path, raw: bool = False) -> str:
    """Fetch a timeline and write it; returns what to print.

    Args:
        url: of the server, without a path.
        seconds: how much of the past.
        output: the file.
        raw: write the server's own document in place of a trace.

    Raises:
        Unreachable: there is no server, or it has no timeline.
        OSError: the file cannot be written.
    """
    document = fetch(url, seconds)
    shown = document if raw else trace(document)
    output.write_text(json.dumps(shown, separators=(",", ":")))
    how = "" if raw else ": open it in https://ui.perfetto.dev"
    return f"{summary(document)}\n{output}{how}"


def main(arguments: list[str] | None = None) -> int:
    """Write the trace; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m vllm_qllm.timeline", description=__doc__)
    parser.add_argument("--url", required=True, help="of the server, such as http://host:8000")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the past (default: 10)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    parser.add_argument("--raw", action="store_true", help="write the server's own document")
    try:
        print(write(**vars(parser.parse_args(arguments))))
    except (Unreachable, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
