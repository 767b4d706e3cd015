# SPDX-License-Identifier: Apache-2.0
"""When requests come, how long they are, and how they are sent."""
