# The server with its weights, for CPUs; needs no network to start.
#   docker build -t str-app .  &&  docker run --rm -p 8000:8000 str-app
# On x86-64 the default index has torch with CUDA, some gigabytes. For the small CPU build pass
#   --build-arg EXTRA_INDEX=<PyTorch's index of CPU wheels>
# Convolutions are compiled with Debian's g++: in float32 the server reads 1.3 times as many crops. --build-arg NATIVE=no skips that.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# The build stage may use another base image, e.g. one whose pip is configured for a company's index.
ARG BUILD_IMAGE=${PYTHON_IMAGE}

FROM ${BUILD_IMAGE} AS build
ARG EXTRA_INDEX=
ARG NATIVE=yes
RUN [ "$NATIVE" = no ] || { apt-get update && apt-get install -y --no-install-recommends g++; } \
    || { echo "no g++ from Debian: --build-arg NATIVE=no does without"; exit 1; }
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=${EXTRA_INDEX}
RUN python -m venv /opt/venv
WORKDIR /src
# Dependencies first: they change rarely, and their layer is large.
COPY pyproject.toml constraints.txt README.md LICENSE ./
# torch's C++ tests and headers, 150 MB, are not needed.
RUN /opt/venv/bin/pip install -c constraints.txt '.[serve]' && /opt/venv/bin/pip uninstall -y str-app \
    && rm -rf /opt/venv/lib/python3*/site-packages/torch/test /opt/venv/lib/python3*/site-packages/torch/include
COPY . .
RUN /opt/venv/bin/pip install --no-deps . && /opt/venv/bin/pip uninstall -y pip
# For whatever processor it is going to run on.
WORKDIR /opt/native
RUN [ "$NATIVE" = no ] || STR_APP_NATIVE=/opt/native /opt/venv/bin/python -m str_app.models.kernels --every

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/native /opt/native
# Idle OpenMP threads sleep instead of burning a container's CPU quota.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=PASSIVE \
    STR_APP_NATIVE=/opt/native \
    STR_APP_HOST=0.0.0.0 \
    STR_APP_PORT=8000
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"STR_APP_PORT\"]}/readyz', timeout=4)"]
ENTRYPOINT ["str-app"]
CMD ["serve"]
