# SPDX-License-Identifier: Apache-2.0
"""The page as it is sent: one HTML document with its styles and scripts in it.

They are files of their own in ``web/`` only to be read and changed; a browser gets all of
them at once, and a policy that lets it run nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

FILES = Path(__file__).parent / "web"
_STYLE = re.compile(r'<link rel="stylesheet" href="([a-z]+\.css)">')
_SCRIPT = re.compile(r'<script src="([a-z]+\.js)"></script>')


@dataclass(frozen=True)
class Page:
    """A document and the headers that have to come with it."""

    html: str
    headers: dict[str, str]


def load() -> Page:
    """Put the files together."""
    hashes: dict[str, list[str]] = {"style": [], "script": []}

    def inline(tag: str, name: str) -> str:
        text = (FILES / name).read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[tag].append(f"'sha256-{digest}'")
        return f"<{tag}>{text}</{tag}>"

    html = (FILES / "page.html").read_text(encoding="utf-8")
    html = _STYLE.sub(lambda found: inline("style", found[1]), html)
    html = _SCRIPT.sub(lambda found: inline("script", found[1]), html)
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(hashes["script"]),
        "style-src": " ".join(hashes["style"]),
        "img-src": "data:",  # the icon
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        # Text can become nothing but text, whatever a script does.
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    headers = {
        "Content-Security-Policy": "; ".join(f"{k} {v}" for k, v in policy.items()),
        "Cache-Control": "no-cache",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Page(html, headers)
