# SPDX-License-Identifier: Apache-2.0
"""The GPU kernels in Triton's interpreter. Run by ``test_triton_interpreted.py``, in a process of
its own: Triton reads ``TRITON_INTERPRET`` when a kernel is defined.

Programs run one after another here, so what is shown is that tiles are neither lost nor computed
twice wherever programs stop, and that results are right; not how programs race.
"""
