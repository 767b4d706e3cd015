# SPDX-License-Identifier: Apache-2.0
"""What operators can watch: numbers by class, from the engine's thread to ``/metrics``.

vLLM's own way would be prometheus_client's multiprocess mode, but a single API server does not
turn it on, and the library chooses between the two modes when it is imported, before any plugin
is loaded. So the engine writes numbers into a mapped file, and the API servers read them there.
"""
