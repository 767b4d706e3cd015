# SPDX-License-Identifier: Apache-2.0
"""KV blocks of preempted requests on the host: copied out before they are taken, and back."""
