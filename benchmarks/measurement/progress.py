# SPDX-License-Identifier: Apache-2.0
"""One line on stderr that says what goes on and how long it will still take."""

import sys
import time


class Progress:
    """Rewrites its line on a terminal; in a log, prints a line at most every ten seconds."""

    def __init__(self, expected_seconds: float | None = None) -> None:
        self.began = time.monotonic()
        self.expected = expected_seconds
        self.prefix = ""
        self.terminal = sys.stderr.isatty()
        self.said = float("-inf")

    def stage(self, prefix: str, left_seconds: float | None = None) -> None:
        """What all following lines start with; printed at once. ``left_seconds``: of the whole."""
        self.prefix = prefix
        if left_seconds is not None:
            self.began, self.expected = time.monotonic(), left_seconds
        self.said = float("-inf")

    def say(self, text: str) -> None:
        """Show this, unless something was shown a moment ago."""
        now = time.monotonic()
        if now - self.said < (0.2 if self.terminal else 10.0):
            return
        self.said = now
        left = ""
        if self.expected is not None:
            remaining = max(0.0, self.expected - (now - self.began))
            left = f"  (about {remaining // 60:.0f}:{remaining % 60:02.0f} left)"
        line = f"{self.prefix}: {text}{left}" if self.prefix else f"{text}{left}"
        if self.terminal:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def done(self, text: str) -> None:
        """A line that stays."""
        start = "\r\033[K" if self.terminal else ""
        print(f"{start}{text}", file=sys.stderr, flush=True)
