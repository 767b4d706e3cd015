# SPDX-License-Identifier: Apache-2.0
"""Nested steps on vLLM's model runner V1."""
