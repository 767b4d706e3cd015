# SPDX-License-Identifier: Apache-2.0
"""Pictures from result files: what a person would rather look at than read."""
