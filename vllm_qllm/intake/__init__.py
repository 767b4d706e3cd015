# SPDX-License-Identifier: Apache-2.0
"""What API servers do before the engine sees a request: bounded, by class, and in turns."""
