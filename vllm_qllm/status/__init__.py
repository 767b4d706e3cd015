# SPDX-License-Identifier: Apache-2.0
"""The status page at ``/qllm/``, and the document that it asks for: see ``docs/status.md``.

Nothing here asks the engine: numbers are read where ``/metrics`` reads them, steps where
``/qllm/timeline`` does.
"""
