#!/bin/bash
# Builds the image of each target, runs it locked up without any network, reads a crop with it, and stops it.
# Needs a Docker Engine with BuildKit (DOCKER_HOST says which). Optional environment:
#   IMAGE            name of the image without torch (default str-app:test); that with torch has -torch after it
#   TARGETS          stages of the Dockerfile (default "onnx torch")
#   BUILD_ARGS       further arguments of docker build, e.g. "--network host --build-arg EXTRA_INDEX=…"
#   PIP_FIND_LINKS   a folder with wheels, offered to the pip of the build (e.g. a CPU build of torch)
#   CHECKPOINT       a .safetensors file that the image with torch serves instead of its own weights
set -euo pipefail
cd "$(dirname "$0")/.."
export DOCKER_BUILDKIT=1
read -ra targets <<<"${TARGETS:-onnx torch}"
read -ra build_args <<<"${BUILD_ARGS:-}"
container=str-app-test-$$
scratch=$(mktemp -d)
trap 'docker rm -f "$container" >/dev/null 2>&1 || true; rm -rf "$scratch"' EXIT
fail() { echo "FAILED: $*" >&2; docker logs "$container" 2>&1 | tail -20 >&2 || true; exit 1; }

docker version --format 'engine {{.Server.Version}}' || { echo "no Docker Engine reached: set DOCKER_HOST" >&2; exit 1; }

if [ -d "${PIP_FIND_LINKS:-}" ]; then
  # A base for the build stage that has the wheels; none of it is left in the image.
  cp -r "$PIP_FIND_LINKS" "$scratch/wheels"
  printf 'ARG PYTHON_IMAGE=python:3.11-slim-bookworm\nFROM ${PYTHON_IMAGE}\nCOPY wheels /wheels\nENV PIP_FIND_LINKS=/wheels\n' >"$scratch/Dockerfile"
  docker build -q "${build_args[@]}" -t str-app:build-base "$scratch" >/dev/null
  build_args+=(--build-arg BUILD_IMAGE=str-app:build-base)
fi
size() { echo $(($(docker image inspect -f '{{.Size}}' "$1") / 1000000)); }
in_image() { docker run --rm --network none --entrypoint python "$image" -c "$1"; }
base_image=$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)

check() {
  local target=$1 image=${IMAGE:-str-app:test} base megabytes most cuda cores compiled started locked serve
  [ "$target" = onnx ] || image+=-$target
  docker build "${build_args[@]}" --target "$target" -t "$image" .
  base=$(size "$base_image")
  megabytes=$(($(size "$image") - base))
  echo "$target: $image has $megabytes MB on a base of $base MB"
  if [ "$target" = torch ]; then
    cuda=$(in_image 'import torch; print(torch.version.cuda)')
    most=1165
    [ "$cuda" = None ] || most=10000
  else
    in_image 'import torch' 2>/dev/null && fail "torch is in the image"
    most=395
  fi
  [ "$megabytes" -le "$most" ] || fail "above $most MB without the base: docs/how-to/deployment.md says what it was made of"

  locked=(--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --network none)
  serve=(serve)
  [ "$target" = onnx ] || locked+=(-e STR_APP_ENGINE=torch)
  if [ "$target" = torch ] && [ -n "${CHECKPOINT:-}" ]; then
    locked+=(-v "$(realpath "$CHECKPOINT"):/model/checkpoint.safetensors:ro")
    serve+=(--model /model/checkpoint.safetensors)
  fi
  cores=$(docker run --rm --cpus 1 "${locked[@]}" --entrypoint python "$image" -c 'from str_app.cpu import usable_cores; print(usable_cores())')
  [ "$cores" = 1 ] || fail "with --cpus 1 it would use $cores threads"
  [ "$target" = onnx ] || compiled=$(docker run --rm "${locked[@]}" --entrypoint python "$image" -c 'from str_app.models.kernels.library import find_library; print(find_library() is not None)')
  [ "$target" = onnx ] || [ "$compiled" = True ] || [[ "${BUILD_ARGS:-}" = *NATIVE=no* ]] || fail "the compiled convolutions do not load"
  started=$(date +%s)
  docker run -d --name "$container" "${locked[@]}" "$image" "${serve[@]}" >/dev/null
  until [ "$(docker inspect -f '{{.State.Health.Status}}' "$container")" = healthy ]; do
    [ "$(docker inspect -f '{{.State.Running}}' "$container")" = true ] || fail "it ended by itself"
    [ $(($(date +%s) - started)) -lt 120 ] || fail "not healthy after 120 s"
    sleep 1
  done
  echo "$target: healthy after $(($(date +%s) - started)) s"

  [ "$(docker exec "$container" id -u)" != 0 ] || fail "it runs as root"
  docker exec "$container" sh -c 'touch /opt/venv/x' 2>/dev/null && fail "its file system can be written to"
  docker exec -i "$container" python - <<'PYTHON' || fail "no reading"
import io, json, urllib.request
urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))  # Docker sets http_proxy
from PIL import Image, ImageDraw


def post(route, size, place, text, font_size):
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text(place, text, fill="black", font_size=font_size)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    address = f"http://127.0.0.1:8000/v1/{route}"
    request = urllib.request.Request(address, buffer.getvalue(), {"Content-Type": "image/png"})
    return json.load(urllib.request.urlopen(request, timeout=30))

(result,) = post("recognize", (90, 32), (6, 2), "EXIT", 26)["results"]
print("read:", result["text"], result["confidence"])
assert isinstance(result["text"], str) and 0 <= result["confidence"] <= 1
words = [word["text"] for word in post("photos", (640, 320), (120, 120), "WAY OUT", 64)["words"]]
print("words of a photograph:", words)
assert words == ["WAY", "OUT"]
for path in ("/", "/docs", "/metrics", "/v1/models", "/readyz"):
    assert urllib.request.urlopen("http://127.0.0.1:8000" + path, timeout=5).status == 200, path
PYTHON

  docker stop -t 60 "$container" >/dev/null
  [ "$(docker inspect -f '{{.State.ExitCode}}' "$container")" = 0 ] || fail "exit code $(docker inspect -f '{{.State.ExitCode}}' "$container") after SIGTERM"
  docker rm "$container" >/dev/null
  echo "$target: stopped with exit code 0"
}

for target in "${targets[@]}"; do check "$target"; done
