# SPDX-License-Identifier: Apache-2.0
"""How engine and workers reach each other: in one process, or over vLLM's queues."""
