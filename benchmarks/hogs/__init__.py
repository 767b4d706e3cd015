# SPDX-License-Identifier: Apache-2.0
"""Small urgent requests beside single large ones of less urgent work."""
