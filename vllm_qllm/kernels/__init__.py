# SPDX-License-Identifier: Apache-2.0
"""Kernels that can stop between two pieces of their work."""
