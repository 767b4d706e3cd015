# SPDX-License-Identifier: Apache-2.0
"""Models made on the spot."""
