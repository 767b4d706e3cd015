# SPDX-License-Identifier: Apache-2.0
"""The experts of a mixture-of-experts layer."""
