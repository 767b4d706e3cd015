# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.verify``: whether serving with a priority policy would work here."""
