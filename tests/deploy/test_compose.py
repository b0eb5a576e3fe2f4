"""The compose files and nginx's configuration fit each other and the server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from str_app.serve.errors import ProblemError
from str_app.serve.http.problems import problem_body
from str_app.serve.http.telemetry import REQUEST_ID
from tests.deploy.shipped import DEFAULTS, DEPLOY, LONGEST_STOP_S, VARIABLES, directives, document, seconds

CONF = (DEPLOY / "nginx/nginx.conf").read_text()
NGINX = {name: values[0] for name, values in directives(CONF).items()}
SINGLE = document(Path("docker-compose.yml"))["services"]
COMPOSE = document(DEPLOY / "compose/compose.yml")
REPLICAS = {name: service for name, service in COMPOSE["services"].items() if name != "proxy"}
PROXY = COMPOSE["services"]["proxy"]


@pytest.mark.parametrize("service", [SINGLE["str-app"], PROXY], ids=["str-app", "proxy"])
def test_containers_are_locked_up(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert seconds(service["stop_grace_period"]) > LONGEST_STOP_S
    assert set(service.get("environment", {})) <= VARIABLES


@pytest.mark.parametrize("service", [SINGLE["str-app"], PROXY], ids=["str-app", "proxy"])
def test_logs_do_not_grow_for_ever(service: dict[str, Any]) -> None:
    assert service["logging"]["driver"] == "json-file"
    size, files = (service["logging"]["options"][name] for name in ("max-size", "max-file"))
    assert (size, files) == ("50m", "5")  # both text: Docker takes no number
    assert not any("logging" in service for service in REPLICAS.values())  # inherited


def test_the_single_server_is_for_this_machine() -> None:
    assert all(port.startswith("127.0.0.1:") for port in SINGLE["str-app"]["ports"])
    pages = [Path("README.md"), Path("Dockerfile"), *Path("docs/how-to").glob("*.md")]
    published = [address for page in pages for address in re.findall(r"docker run .*-p (\S+)", page.read_text())]
    assert published
    assert set(published) == {"127.0.0.1:8000:8000"}


def test_replicas_are_the_single_server_and_cannot_be_reached_but_through_the_proxy() -> None:
    for service in REPLICAS.values():
        assert service["extends"] == {"file": "../../docker-compose.yml", "service": "str-app"}
        assert "ports" in service
        assert service["ports"] is None  # reset
        (network,) = service["networks"]
        assert COMPOSE["networks"][network]["internal"] is True
        assert network in PROXY["networks"]
    assert PROXY["depends_on"] == {name: {"condition": "service_healthy"} for name in REPLICAS}


def test_nginx_knows_every_replica() -> None:
    servers = [server.split()[0] for server in directives(CONF)["server"] if server]
    assert sorted(servers) == sorted(f"{name}:8000" for name in REPLICAS)
    # nginx asks for addresses once, when it starts: a replica that is replaced must keep its own.
    addresses = [service["networks"]["replicas"]["ipv4_address"] for service in REPLICAS.values()]
    assert len(set(addresses)) == len(addresses) >= 2
    assert PROXY["ports"][0].endswith(f":{NGINX['listen']}")
    assert f"127.0.0.1:{NGINX['listen']}/readyz" in PROXY["healthcheck"]["test"][-1]


def test_nginx_fits_the_limits_and_times_of_the_server() -> None:
    assert int(NGINX["client_max_body_size"].removesuffix("m")) * 2**20 == DEFAULTS["max_body_bytes"]
    assert seconds(NGINX["client_header_timeout"]) == DEFAULTS["header_timeout_s"]
    assert seconds(NGINX["client_body_timeout"]) == DEFAULTS["upload_timeout_s"]
    assert seconds(NGINX["proxy_read_timeout"]) > DEFAULTS["deadline_s"]
    assert seconds(NGINX["keepalive_timeout"]) < DEFAULTS["keep_alive_s"]  # of connections to replicas
    assert seconds(NGINX["proxy_connect_timeout"]) <= 1


def test_one_client_cannot_fill_the_room_for_uploads() -> None:
    (tmpfs,) = PROXY["tmpfs"]
    room, memory = int(re.findall(r"size=(\d+)m", tmpfs)[0]), int(PROXY["mem_limit"].removesuffix("m"))
    zone, connections = NGINX["limit_conn"].split()
    assert NGINX["limit_conn_zone"].startswith(f"$limited zone={zone}:")
    assert int(connections) * int(NGINX["client_max_body_size"].removesuffix("m")) < room < memory


def test_nginx_sends_again_what_may_be_sent_again() -> None:
    assert set(NGINX["proxy_next_upstream"].split()) == {"error", "timeout", "http_503", "non_idempotent"}
    assert int(NGINX["proxy_next_upstream_tries"]) == 2
    assert "proxy_request_buffering" not in NGINX  # on: only a body that is here can be sent again


def test_nginx_has_the_same_idea_of_a_request_id() -> None:
    (pattern,) = re.findall(r'"~\^(.*)\$" \$http_x_request_id;', CONF)
    assert pattern == REQUEST_ID.pattern


def test_errors_of_nginx_are_problems_as_the_server_has_them() -> None:
    bodies = [json.loads(body) for body in re.findall(r"return \d+ '(.*)';", CONF)]
    codes = {"body_too_large", "malformed_http", "method_not_allowed", "no_replica", "not_found", "overloaded"}
    assert {body["code"] for body in bodies} == codes | {"too_many_requests"}
    assert len(bodies) == len(codes) + 1
    for body in bodies:
        mine = problem_body(ProblemError(body["status"], body["code"], body["detail"]), "")
        mine["error"] = mine["detail"]  # where clients of /v2 look
        assert mine | {"title": "", "request_id": ""} == body | {"title": "", "request_id": ""}
    sources = "".join(path.read_text() for path in Path("serve").rglob("*.py"))
    for code in ("body_too_large", "malformed_http", "overloaded"):
        assert f'"{code}"' in sources


def test_log_lines_are_json() -> None:
    line = "".join(re.findall(r"'([^']*)'", CONF.split("log_format")[1].split(";")[0]))
    numbers = line.replace("$status", "200").replace("$request_time", "0.1")
    assert json.loads(numbers)["request_id"] == "$correlation_id"
    assert json.loads(numbers)["client"] == "$remote_addr"
