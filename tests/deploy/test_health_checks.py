"""The commands by which Docker asks whether a container is healthy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.deploy.shipped import DEPLOY, document

# A company's proxy, which cannot reach the container itself; here nothing listens there.
PROXIES = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"), "http://127.0.0.1:1")


class Replica(ThreadingHTTPServer):
    """Answers `/readyz` with `status`."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/readyz" else 404)  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def replica() -> Iterator[Replica]:
    with Replica() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def of_the_image(port: int) -> list[str]:
    command = json.loads(re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", Path("Dockerfile").read_text(), re.M)[0])
    assert command[0] == "python"
    return [sys.executable, *command[1:]]


def of_the_proxy(port: int) -> list[str]:
    kind, *command = document(DEPLOY / "compose/compose.yml")["services"]["proxy"]["healthcheck"]["test"]
    assert (kind, command[0]) == ("CMD", "curl")
    curl = shutil.which("curl") or pytest.skip("needs curl")
    return [curl, *(word.replace(":8080/", f":{port}/") for word in command[1:])]


@pytest.mark.parametrize("command", [of_the_image, of_the_proxy])
def test_a_company_s_proxy_is_not_asked(replica: Replica, command: Callable[[int], list[str]]) -> None:
    def healthy() -> bool:
        port = replica.server_port
        inherited = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
        environment = inherited | PROXIES | {"STR_APP_PORT": str(port)}
        done = subprocess.run(command(port), env=environment, capture_output=True, timeout=30)
        return done.returncode == 0

    assert healthy()
    replica.status = 503
    assert not healthy()
