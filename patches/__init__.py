# SPDX-License-Identifier: Apache-2.0
"""The seams as source diffs against vLLM, for those who build a fork of it."""
