# SPDX-License-Identifier: Apache-2.0
"""What can only be measured on a GPU; results are in docs/gpu.md."""
