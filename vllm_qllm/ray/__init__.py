# SPDX-License-Identifier: Apache-2.0
"""Replicas on several machines, by Ray Serve: which one gets a request, and how it gets there.

    client ──HTTP──> Serve's proxy ──> Front ──> Replica ──HTTP──> vllm serve

A front reads a request's class; Serve's router, which runs in the front's process, picks a replica
by what the replicas' ``/metrics`` say; a replica is a ``vllm serve`` and the actor that minds it.
Nothing here imports vLLM. See ``docs/ray.md``.
"""
