"""The shipped nginx.conf in a real nginx, before real servers that are killed, stopped and frozen."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from email.message import Message
from functools import partial
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.deploy.asking import SAMPLES, asking, until
from tests.deploy.shipped import DEPLOY, directives
from tests.serve.slow.real_server import RealServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx 1.19.5 or later"),
]
CONF = (DEPLOY / "nginx/nginx.conf").read_text()
CONNECTIONS = int(directives(CONF)["limit_conn"][0].split()[1])
Address = tuple[str, int]


class Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes

    def problem(self, code: str) -> bool:
        problem = json.loads(self.body)
        assert self.headers["Content-Type"] == "application/problem+json"
        assert problem["status"] == self.status
        assert problem["error"] == problem["detail"]  # where clients of /v2 look
        return problem["code"] == code


def ask(url: str, data: bytes | None = None, context: ssl.SSLContext | None = None, **headers: str) -> Answer:
    request = urllib.request.Request(url, data, {"Content-Type": "image/jpeg"} | headers)
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is not in nginx.conf once"
    return text.replace(old, new)


@contextmanager
def nginx(folder: Path, replicas: Sequence[Address], conf: str = CONF, under: Sequence[str] = ()) -> Iterator[str]:
    """nginx with the shipped configuration, but for the addresses and the place of its files. Yields its address.

    Args:
        under: how it is started, e.g. under `prlimit`.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf, found = re.subn(r"^( *listen) \d+", rf"\1 127.0.0.1:{port}", conf, flags=re.MULTILINE)
    assert found == 1
    for number, (host, replica_port) in enumerate(replicas, 1):
        conf = replaced(conf, f"server str-app-{number}:8000", f"server {host}:{replica_port}")
    (folder / "nginx.conf").write_text(conf.replace("/tmp/", f"{folder}/").replace("/dev/stdout", f"{folder}/log"))
    # Tests that run as root would have workers of another user, who may not enter the folder.
    user = "user root; " if os.geteuid() == 0 else ""
    command = [*under, "nginx", "-e", "stderr", "-c", folder / "nginx.conf", "-g", f"{user}daemon off;"]
    # SIGXFSZ stays ignored, as by Python: a file above the limit is an error, as on a full disk.
    popen = partial(subprocess.Popen, command, restore_signals=False)
    with (folder / "errors").open("w") as errors, popen(stderr=errors) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: process.poll() is not None or _listens(port), "listening")
            assert process.poll() is None, (folder / "errors").read_text()
            yield url
        finally:
            process.send_signal(signal.SIGQUIT)


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def stand_in(status: int | None) -> Iterator[tuple[Address, list[str]]]:
    """A replica that answers all with `status`, or with None breaks each connection; and the ids it was asked with."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.headers["X-Request-ID"])
            self.rfile.read(int(self.headers["Content-Length"]))
            if status:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield ("127.0.0.1", server.server_port), asked
        finally:
            server.shutdown()
            thread.join()


def test_a_replica_killed_under_load_costs_nothing(tmp_path: Path) -> None:
    with RealServer() as first, RealServer() as second, nginx(tmp_path, [first.address, second.address]) as url:
        with asking(url, retries=False, clients=8, pause_s=0.0) as tally:
            until(lambda: tally.answers > 50, "asked")
            first.process.kill()
            before = tally.answers
            until(lambda: tally.answers > before + 100, "answered by the other")
        print(f"\nkill -9 behind nginx, no retries: {tally}")
        assert not tally.lost
        statuses = [json.loads(line)["replica_status"] for line in (tmp_path / "log").read_text().splitlines()]
        assert "502, 200" in statuses  # the kill did hit requests


def test_a_replica_stopped_under_load_costs_nothing(tmp_path: Path) -> None:
    with RealServer() as first, RealServer() as second, nginx(tmp_path, [first.address, second.address]) as url:
        with asking(url, retries=False, clients=8, pause_s=0.0) as tally:
            until(lambda: tally.answers > 50, "asked")
            first.process.terminate()
            assert first.process.wait(60) == 0
            before = tally.answers
            until(lambda: tally.answers > before + 100, "answered by the other")
        print(f"\nSIGTERM behind nginx, no retries: {tally}")
        assert not tally.lost


def test_a_frozen_replica_costs_time_only(tmp_path: Path) -> None:
    conf = replaced(CONF, "proxy_read_timeout 15s;", "proxy_read_timeout 2s;")
    with RealServer() as first, RealServer() as second, nginx(tmp_path, [first.address, second.address], conf) as url:
        with asking(url, retries=False, clients=4, pause_s=0.0) as tally:
            until(lambda: tally.answers > 20, "asked")
            first.process.send_signal(signal.SIGSTOP)
            until(lambda: "504, 200" in (tmp_path / "log").read_text(), "passed on")
            first.process.send_signal(signal.SIGCONT)
            before = tally.answers
            until(lambda: tally.answers > before + 20, "answered")
        assert not tally.lost


def test_what_a_warming_replica_refuses_another_reads(tmp_path: Path) -> None:
    image = SAMPLES[0].read_bytes()
    with stand_in(503) as (cold, asked), RealServer() as warm, nginx(tmp_path, [cold, warm.address]) as url:
        answers = [ask(f"{url}/v1/recognize", image) for _ in range(4)]
        assert [answer.status for answer in answers] == [200] * 4
        assert asked


@pytest.mark.parametrize(("status", "told"), [(429, 429), (500, 500), (501, 501), (504, 504), (None, 502)])
def test_what_is_not_sent_again(tmp_path: Path, status: int | None, told: int) -> None:
    """A busy replica's answer is final, and a request that breaks two of them is given up."""
    with stand_in(status) as (first, to_first), stand_in(status) as (second, to_second):
        with nginx(tmp_path, [first, second]) as url:
            answer = ask(f"{url}/v1/recognize", b"image")
        assert answer.status == told
        assert len(to_first + to_second) == (2 if status is None else 1)
        if status is None:
            assert answer.problem("no_replica")
            assert answer.headers["Retry-After"] == "1"
            assert answer.headers["X-Request-ID"] == json.loads(answer.body)["request_id"] == (to_first + to_second)[0]


def test_an_upload_without_room_is_asked_to_come_again(tmp_path: Path) -> None:
    prlimit = shutil.which("prlimit") or pytest.skip("needs prlimit of util-linux")
    with (
        stand_in(200) as (replica, asked),
        nginx(tmp_path, [replica, replica], under=[prlimit, f"--fsize={2**20}"]) as url,
    ):
        assert ask(f"{url}/v1/recognize", bytes(2**19)).status == 200
        for headers in ({}, {"X-Request-ID": "mine-1"}):
            answer = ask(f"{url}/v1/recognize", bytes(2**23), **headers)
            assert answer.status == 503
            assert answer.problem("overloaded")
            assert answer.headers["Retry-After"] == "1"
            assert answer.headers["X-Request-ID"] == json.loads(answer.body)["request_id"]
        assert answer.headers["X-Request-ID"] == "mine-1"
        assert len(asked) == 1


def test_a_client_has_a_share_of_the_uploads(tmp_path: Path) -> None:
    head = b"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    with stand_in(200) as (replica, _), nginx(tmp_path, [replica, replica]) as url, ExitStack() as uploads:
        port = int(url.rsplit(":")[-1])
        for _ in range(CONNECTIONS):
            upload = uploads.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            upload.sendall(head)
            assert upload.recv(100).startswith(b"HTTP/1.1 100")  # its body is waited for
        answer = ask(f"{url}/v1/recognize", b"image")
        assert (answer.status, answer.problem("too_many_requests")) == (429, True)
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["X-Request-ID"] == json.loads(answer.body)["request_id"]
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert ask(url + path).status != 429, "a load balancer must not take the server out"
            assert ask(url + path, b"upload").status == 413
        uploads.close()
        until(lambda: ask(f"{url}/v1/recognize", b"image").status == 200, "free again")
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        assert {line["client"] for line in lines} == {"127.0.0.1"}
        assert 429 in {line["status"] for line in lines}
        assert "limiting" not in (tmp_path / "errors").read_text()


def test_a_client_has_a_share_of_the_requests(tmp_path: Path) -> None:
    conf = replaced(CONF, "rate=100r/s", "rate=1r/m")
    conf = replaced(conf, "burst=200", "burst=2")
    with stand_in(200) as (replica, asked), nginx(tmp_path, [replica, replica], conf) as url:
        answers = [ask(f"{url}/v1/recognize", b"image") for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert answers[-1].problem("too_many_requests")
        assert len(asked) == 3


def test_behind_another_proxy_as_the_file_says(tmp_path: Path) -> None:
    conf = replaced(CONF, "# set_real_ip_from 192.0.2.0/24;", "set_real_ip_from 127.0.0.1;")
    conf = replaced(conf, "# real_ip_header", "real_ip_header")
    with stand_in(200) as (replica, _), nginx(tmp_path, [replica, replica], conf) as url:
        assert ask(f"{url}/v1/recognize", b"image", **{"X-Forwarded-For": "192.0.2.7"}).status == 200
        until(lambda: '"client": "192.0.2.7"' in (tmp_path / "log").read_text(), "logged")


MALFORMED = {
    "no HTTP": b"hello\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no path": b"GET /../../x HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a long path": b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 40_000),
    "a long header": b"GET / HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"a" * 40_000),
    "an encoding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    "HTTP/3": b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
    "a bad chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
}


def test_what_nginx_refuses_itself_is_a_problem(tmp_path: Path) -> None:
    with stand_in(200) as (replica, asked), nginx(tmp_path, [replica, replica]) as url:

        def answer_to(request: bytes) -> Answer:
            with socket.create_connection(("127.0.0.1", int(url.rsplit(":")[-1])), timeout=30) as connection:
                connection.sendall(request)
                response = HTTPResponse(connection)
                response.begin()
                return Answer(response.status, response.headers, response.read())

        for what, request in MALFORMED.items():
            answer = answer_to(request)
            assert (answer.status, answer.problem("malformed_http")) == (400, True), what
            assert answer.headers["X-Request-ID"] == json.loads(answer.body)["request_id"], what
        answer = answer_to(b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (answer.status, answer.problem("method_not_allowed")) == (405, True)
        assert ask(f"{url}/malformed_http").problem("not_found")
        ask(f"{url}/%ff%c3%28")
        until(lambda: '"path": "(not ASCII)"' in (tmp_path / "log").read_text(), "logged")
        assert not asked


def test_what_comes_through(tmp_path: Path) -> None:
    with RealServer() as server, nginx(tmp_path, [server.address, server.address]) as url:
        image = SAMPLES[0].read_bytes()
        assert ask(f"{url}/v1/recognize", image, **{"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"
        made = ask(f"{url}/v1/recognize", image, **{"X-Request-ID": "no id"}).headers["X-Request-ID"]
        until(lambda: f'"request_id": "{made}"' in (tmp_path / "log").read_text(), "logged under the same id")
        for path in ("/", "/docs", "/readyz", "/v2", "/static/page.js"):
            assert ask(url + path).status == 200, path
        assert ask(url + "/nowhere").problem("not_found")
        for path in ("/metrics", "//metrics", "/%6detrics", "/metrics?a=b", "/v1/../metrics"):
            assert ask(url + path).problem("not_found"), path
            assert b"str_app_" not in ask(url + path).body
        assert ask(f"{url}/v1/recognize", bytes(32 * 2**20)).status == 200  # in it: not an image
        assert ask(f"{url}/v1/recognize", bytes(32 * 2**20 + 1)).problem("body_too_large")


def test_tls_as_the_file_says(tmp_path: Path) -> None:
    openssl = shutil.which("openssl") or pytest.skip("needs openssl")
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names]
    subprocess.run([openssl, *made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    conf = replaced(CONF, "        listen 8080;\n", "")
    for line in ("listen 8443 ssl;", "ssl_certificate /", "ssl_certificate_key /"):
        conf = replaced(conf, f"# {line}", line)
    conf = conf.replace("/etc/nginx/tls/", "/tmp/")
    with stand_in(200) as (replica, asked), nginx(tmp_path, [replica, replica], conf) as url:
        trusting = ssl.create_default_context(cafile=certificate)
        assert ask(url.replace("http:", "https:") + "/v1/recognize", b"image", trusting).status == 200
        assert asked
        plain = ask(url + "/v1/recognize", b"image")
        assert (plain.status, plain.problem("malformed_http")) == (400, True)
