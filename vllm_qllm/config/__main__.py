# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.config``: what can be configured, as Markdown."""

from vllm_qllm.config.reference import render

if __name__ == "__main__":
    print(render())
