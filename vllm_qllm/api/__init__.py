# SPDX-License-Identifier: Apache-2.0
"""What the HTTP servers do: find out how urgent a request is, and say what tier served it."""
