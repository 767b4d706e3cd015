# SPDX-License-Identifier: Apache-2.0
"""What a device of its own needs: the host waits for it, and its kernels are told to stop."""
