"""All metadata is in pyproject.toml. This file exists for what cannot be said there: compiled
extensions, which the kernels in csrc/ will add here as ``ext_modules``."""

from setuptools import setup

setup()
