# SPDX-License-Identifier: Apache-2.0
"""A file of requests as best-effort work of a server that serves others meanwhile."""


class BatchError(RuntimeError):
    """A batch that cannot go on; the message says why and what to do."""
