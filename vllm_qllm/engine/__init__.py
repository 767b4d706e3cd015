# SPDX-License-Identifier: Apache-2.0
"""What runs in the EngineCore process: scheduler, arrivals, nested steps."""
