# SPDX-License-Identifier: Apache-2.0
"""How many replicas a load needs: the policies of this package over simulated time.

Nothing here imports vLLM or torch, so a fleet can be planned on any machine. Times are seconds.
"""
