# SPDX-License-Identifier: Apache-2.0
"""The key that this package's commands send to a server: OPENAI_API_KEY.

It is no option: options of a program can be read by everybody on its machine.
"""

from __future__ import annotations

import os


def headers() -> dict[str, str]:
    """What to send with a request; nothing where the variable is not set."""
    key = os.environ.get("OPENAI_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}
