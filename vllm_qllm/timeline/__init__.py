# SPDX-License-Identifier: Apache-2.0
"""What an engine did, event by event: from its thread to ``/qllm/timeline`` and to Perfetto.

The engine writes events into a ring in a mapped file, and the API servers read them there. See
``docs/timeline.md`` for the events.
"""
