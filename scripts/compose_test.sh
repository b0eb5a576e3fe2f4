#!/bin/bash
# Runs deploy/compose (nginx before two replicas) on a Docker Engine, and kills and restarts replicas while clients ask.
# Needs: a Docker Engine whose published ports are reached on this machine (DOCKER_HOST says which), the compose
# plugin 2.24 or later, the image that `make docker-test` leaves, and .venv. Optional environment:
#   IMAGE         image of the replicas (default str-app:test)
#   NGINX_IMAGE   nginx 1.19.5 or later with curl in it (default: the one named in deploy/compose/compose.yml)
#   PORT, SUBNET  port to publish (default 8000), first three numbers of the replicas' subnet (default 10.213.87)
#   CPUS          cores of each replica (default 1: two replicas on two cores)
set -euo pipefail
cd "$(dirname "$0")/.."
export IMAGE=${IMAGE:-str-app:test} PORT=${PORT:-8000}
url=http://127.0.0.1:$PORT
scratch=$(mktemp -d)
printf 'services:\n  str-app-1: {cpus: %s}\n  str-app-2: {cpus: %s}\n' "${CPUS:-1}" "${CPUS:-1}" >"$scratch/cpus.yml"
compose=(docker compose --progress quiet -p str-app-test-$$ -f deploy/compose/compose.yml -f "$scratch/cpus.yml")
trap '"${compose[@]}" down --timeout 10 --volumes 2>/dev/null || true; rm -rf "$scratch"' EXIT
fail() { echo "FAILED: $*" >&2; "${compose[@]}" logs --tail 20 >&2 || true; exit 1; }
# What is claimed, and then the options and the command of tests/deploy/asking.py.
nothing_is_lost() {
  local said claim=$1
  said=$(.venv/bin/python -m tests.deploy.asking "$url" "${@:2}") || fail "$claim: $said"
  echo "$claim: $said"
}
# With a container's id: how many readings it has answered since its start.
answered() {
  docker exec -e 'no_proxy=*' "$1" python -c 'import re, urllib.request as u; text = u.urlopen("http://127.0.0.1:8000/metrics").read().decode()
print(sum(int(float(n)) for n in re.findall(r"str_app_requests_total{code=\"200\",method=\"POST\",route=\"/v1/recognize\"} (\S+)", text)))'
}
status() { curl -s -o "$scratch/body" -w '%{http_code} %{content_type}' "$@"; }

docker version --format 'engine {{.Server.Version}}' || { echo "no Docker Engine reached: set DOCKER_HOST" >&2; exit 1; }
docker compose version >/dev/null || { echo "no compose plugin: docker compose must work" >&2; exit 1; }
docker image inspect "$IMAGE" >/dev/null || { echo "no image $IMAGE: run make docker-test, or set IMAGE" >&2; exit 1; }
[ -x .venv/bin/python ] || { echo "no .venv: run make install" >&2; exit 1; }

"${compose[@]}" up --no-build --detach --wait || fail "not healthy"
one=$("${compose[@]}" ps -q str-app-1) two=$("${compose[@]}" ps -q str-app-2) proxy=$("${compose[@]}" ps -q proxy)
for container in "$one" "$two" "$proxy"; do
  [ "$(docker exec "$container" id -u)" != 0 ] || fail "$container runs as root"
  docker exec "$container" grep -qE '^[^ ]+ / [^ ]+ ro[, ]' /proc/mounts || fail "$container can be written to"
  docker exec "$container" grep -q '^CapBnd:[[:space:]]*0*$' /proc/1/status || fail "$container has capabilities"
done
echo "up: nobody is root, nothing can be written to, no capabilities"

nothing_is_lost "undisturbed, no retries" -- sleep 3
counts="$(answered "$one") and $(answered "$two")"
[[ " $counts " != *" 0 "* ]] || fail "one replica does nothing: $counts"
echo "both answer: $counts"

for path in /metrics //metrics /%6detrics /v1/../metrics '/metrics?x=1'; do
  [ "$(status --path-as-is "$url$path")" = "404 application/problem+json" ] || fail "$path: $(cat "$scratch/body")"
done
echo "metrics: 404 outside"
head -c $((32 * 1024 * 1024 + 1)) /dev/zero >"$scratch/large"
[ "$(status --data-binary @"$scratch/large" -H 'Content-Type: image/png' "$url/v1/recognize")" = "413 application/problem+json" ] &&
  grep -q '"code": "body_too_large"' "$scratch/body" || fail "a body of 32 MiB and a byte: $(cat "$scratch/body")"
head -c $((32 * 1024 * 1024)) /dev/zero >"$scratch/large"
status --data-binary @"$scratch/large" -H 'Content-Type: image/png' "$url/v1/recognize" >"$scratch/status"
grep -q '^200 ' "$scratch/status" && grep -q '"error"' "$scratch/body" || fail "a body of 32 MiB: $(cat "$scratch/status" "$scratch/body")"
echo "bodies: 32 MiB pass, a byte more is 413"
curl -s -o /dev/null -D "$scratch/head" -H 'X-Request-ID: from-outside' "$url/v1/models"
grep -qi '^x-request-id: from-outside' "$scratch/head" || fail "the request id is lost: $(cat "$scratch/head")"

cat >"$scratch/healthy" <<'BASH'
until [ "$(docker inspect -f '{{.State.Health.Status}}' "$1")" = healthy ]; do sleep 0.5; done
BASH
cat >"$scratch/kill" <<'BASH'
docker kill --signal KILL "$1" >/dev/null; sleep 3; docker start "$1" >/dev/null; sleep 3
BASH
nothing_is_lost "kill -9 of a replica, clients with retries" --retries --clients 8 --pause 0.02 -- bash -e "$scratch/kill" "$one"
timeout 120 bash "$scratch/healthy" "$one" || fail "the killed replica is not healthy again"
nothing_is_lost "kill -9 of the other, no retries" --clients 8 --pause 0.02 -- bash -e "$scratch/kill" "$two"
timeout 120 bash "$scratch/healthy" "$two" || fail "the killed replica is not healthy again"
cat >"$scratch/roll" <<BASH
for container in $one $two; do
  docker stop --time 60 \$container >/dev/null
  [ "\$(docker inspect -f '{{.State.ExitCode}}' \$container)" = 0 ]
  docker start \$container >/dev/null
  timeout 120 bash $scratch/healthy \$container
done
BASH
nothing_is_lost "one restarted after the other, no retries" -- bash -e "$scratch/roll"
cat >"$scratch/replace" <<BASH
for name in str-app-1 str-app-2; do
  ${compose[@]} up --no-build --detach --no-deps --force-recreate --wait \$name
done
BASH
nothing_is_lost "one replaced after the other, no retries" -- bash -e "$scratch/replace"
"${compose[@]}" stop >/dev/null
for container in $("${compose[@]}" ps -aq); do
  [ "$(docker inspect -f '{{.State.ExitCode}}' "$container")" = 0 ] || fail "$container ended with $(docker inspect -f '{{.State.ExitCode}}' "$container")"
done
echo "all stopped with exit code 0"
