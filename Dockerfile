# The server with its weights, for CPUs; needs no network to start.
#   docker build -t str-app .  &&  docker run --rm -p 127.0.0.1:8000:8000 str-app
# It reads exported graphs with ONNX Runtime and has no PyTorch. For checkpoints that are not exported, or a GPU:
#   docker build --target torch -t str-app:torch .
# On x86-64 the default index has torch with CUDA, some gigabytes. For the small CPU build pass
#   --build-arg EXTRA_INDEX=<PyTorch's index of CPU wheels>
# Bulk reading on a Ray cluster (docs/how-to/bulk.md):
#   docker build --target ray -t str-app:ray .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# The build stages may use another base image, e.g. one whose pip is configured for a company's index.
ARG BUILD_IMAGE=${PYTHON_IMAGE}

FROM ${BUILD_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
WORKDIR /src
# Dependencies first: they change rarely, and their layer is large.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN /opt/venv/bin/pip install -c constraints.txt '.[serve]' && /opt/venv/bin/pip uninstall -y str-app
# What finds the words of photographs is one file of rapidocr; nothing else of it is used, nor what it depends on.
RUN /opt/venv/bin/pip install --no-deps -c constraints.txt rapidocr \
    && cd /opt/venv/lib/python3*/site-packages/rapidocr \
    && find . -type f ! -name '*LICENSE*' ! -name 'PP-OCRv6_det_small.onnx' -delete && : > __init__.py
COPY . .
RUN /opt/venv/bin/pip install --no-deps .

FROM build AS build-torch
ARG EXTRA_INDEX=
ARG NATIVE=yes
# serve,train for an image that trains
ARG EXTRAS=serve,torch
# Convolutions are compiled with Debian's g++: in float32 torch reads 1.3 to 1.4 times as many crops. --build-arg NATIVE=no skips it.
RUN [ "$NATIVE" = no ] || { apt-get update && apt-get install -y --no-install-recommends g++; } \
    || { echo "no g++ from Debian: --build-arg NATIVE=no does without"; exit 1; }
# torch's C++ tests and headers, 150 MB, are not needed, nor are the tests of what it depends on.
RUN PIP_EXTRA_INDEX_URL=${EXTRA_INDEX} /opt/venv/bin/pip install -c constraints.txt ".[${EXTRAS}]" \
    && cd /opt/venv/lib/python3*/site-packages \
    && rm -rf torch/test torch/include numpy/tests numpy/*/tests networkx/tests networkx/*/tests sympy/*/tests sympy/*/*/tests
# For whatever processor it is going to run on.
WORKDIR /opt/native
RUN [ "$NATIVE" = no ] || STR_APP_NATIVE=/opt/native /opt/venv/bin/python -m str_app.models.kernels --every
RUN /opt/venv/bin/pip uninstall -y pip

FROM build AS build-ray
RUN /opt/venv/bin/pip install -c constraints.txt '.[serve,ray]'

FROM build AS build-onnx
# Neither the weights that the graphs were exported from, nor what only tests and exports need.
RUN cd /opt/venv/lib/python3*/site-packages && rm -rf str_app/models/weights/*.safetensors \
    numpy/tests numpy/*/tests onnxruntime/transformers onnxruntime/quantization onnxruntime/tools \
    && /opt/venv/bin/pip uninstall -y setuptools pip

FROM ${PYTHON_IMAGE} AS runtime
# Idle OpenMP threads sleep instead of burning a container's CPU quota.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=PASSIVE \
    STR_APP_HOST=0.0.0.0 \
    STR_APP_PORT=8000
WORKDIR /tmp
EXPOSE 8000
# Without proxies: Docker gives containers the http_proxy of ~/.docker/config.json.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"STR_APP_PORT\"]}/readyz', timeout=4)"]
ENTRYPOINT ["str-app"]
CMD ["serve"]

FROM runtime AS torch
COPY --from=build-torch /opt/venv /opt/venv
COPY --from=build-torch /opt/native /opt/native
ENV STR_APP_NATIVE=/opt/native
USER 10001:10001

FROM runtime AS ray
# KubeRay's probes and submitters call wget, and its login shells have a PATH of their own.
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/* \
    && ln -s /opt/venv/bin/ray /opt/venv/bin/str-app /usr/local/bin/
COPY --from=build-ray /opt/venv /opt/venv
ENTRYPOINT []
CMD ["str-app"]
HEALTHCHECK NONE
USER 10001:10001

FROM runtime AS onnx
COPY --from=build-onnx /opt/venv /opt/venv
USER 10001:10001
