# SPDX-License-Identifier: Apache-2.0
"""What runs leave behind, and the numbers in it."""
