# SPDX-License-Identifier: Apache-2.0
"""Running a step so that it can be suspended: executors, workers, lanes, yield points."""
