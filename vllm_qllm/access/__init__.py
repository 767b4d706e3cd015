# SPDX-License-Identifier: Apache-2.0
"""Who may use which class, and how much of it: keys, tenants, limits, refusals."""
