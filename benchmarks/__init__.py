# SPDX-License-Identifier: Apache-2.0
"""Models made on the spot, loads, systems and scenarios, and what is measured with them."""
