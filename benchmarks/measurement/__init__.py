# SPDX-License-Identifier: Apache-2.0
"""One run: what is to be run, and what is asked of the server."""
