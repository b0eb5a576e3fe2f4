"""Clients that are slow, silent, or speak no HTTP."""

from __future__ import annotations

import json
import re
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.serve.conftest import parts, png
from tests.serve.server_process import ServerProcess


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess(
        STR_APP_HEADER_TIMEOUT_S="0.3", STR_APP_UPLOAD_TIMEOUT_S="0.4", STR_APP_KEEP_ALIVE_S="2"
    ) as server:
        yield server


def talk(server: ServerProcess, sent: bytes) -> bytes:
    """All that comes back until the server closes the connection."""
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(sent)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def answer_of(connection: socket.socket) -> bytes:
    """One answer, whose body is a JSON object."""
    answer = b""
    while not answer.endswith(b"}"):
        received = connection.recv(65536)
        assert received, answer
        answer += received
    return answer


def problem_of(answer: bytes) -> dict:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    return json.loads(body)


HEAD = b"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BROKEN = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "malformed_http"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed_http"),
    "endless head": (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000, 400, "malformed_http"),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "malformed_http"),
    "endless trailers": (CHUNKED + b"0\r\n" + b"a:b\r\n" * 30_000, 400, "malformed_http"),
    "an endless trailer": (CHUNKED + b"0\r\na:" + b"b" * 100_000, 400, "malformed_http"),
    "an endless extension": (CHUNKED + b"1;" + b"b" * 100_000, 400, "malformed_http"),
    "proxy": (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_http"),
    "bad length": (HEAD + b"Content-Length: -1\r\n\r\n", 400, "malformed_http"),
    "two lengths": (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "malformed_http"),
    "huge chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", 413, "body_too_large"),
    "impossible chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n", 413, "body_too_large"),
    "bad chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "malformed_http"),
    "a huge chunk of CHUNKED": (HEAD + b"Transfer-Encoding: CHUNKED\r\n\r\n7fffffff\r\n", 413, "body_too_large"),
    "another coding": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, "malformed_http"),
    "half a head": (b"GET / HTTP/1.1\r\nHost:", 408, "header_timeout"),
    "half a body": (HEAD + b"Content-Length: 1000\r\n\r\nabc", 408, "upload_timeout"),
    "half a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", 408, "upload_timeout"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_malformed_http_is_answered_with_a_problem_and_closed(server: ServerProcess, kind: str) -> None:
    sent, status, code = BROKEN[kind]
    answer = talk(server, sent)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    problem = problem_of(answer)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"]


def test_a_head_that_trickles_in_is_cut_off(server: ServerProcess) -> None:
    with socket.create_connection(server.address, timeout=0.05) as connection:
        answer = b""
        for letter in b"GET / HTTP/1.1\r\nX: " + b"x" * 1000:
            connection.send(bytes([letter]))
            try:
                answer = connection.recv(65536)
                break
            except TimeoutError:
                continue
    assert problem_of(answer)["code"] == "header_timeout"


def test_a_trailer_is_no_header_of_the_request(server: ServerProcess) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = talk(server, head + b"0\r\nX-Request-ID: smuggled\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"smuggled" not in answer


def test_many_small_chunks_are_a_body(server: ServerProcess) -> None:
    head = CHUNKED.replace(b"Host: x", b"Host: x\r\nConnection: close")
    answer = talk(server, head + b"1;x\r\na\r\n" * 20_000 + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")  # with an error for the image


@pytest.mark.parametrize("blank", [b"\r\n", b"\n"])
def test_a_blank_line_after_a_request_does_not_keep_its_connection(server: ServerProcess, blank: bytes) -> None:
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer_of(connection)
        connection.sendall(blank)
        assert connection.recv(1) == b""


def test_after_a_blank_line_a_connection_idles_as_long_as_without(server: ServerProcess) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(server.address, timeout=10) as connection:
        for _ in range(2):
            connection.sendall(request)
            assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
            connection.sendall(b"\r\n")
            time.sleep(0.6)  # longer than a head may take


def test_the_application_answers_no_request_that_was_refused(server: ServerProcess) -> None:
    sent = b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    for _ in range(3):
        assert talk(server, sent).count(b"HTTP/1.1 ") == 1
    assert not [line for line in server.logs if line["level"] == "error"]


def test_a_silent_connection_is_closed_without_a_response(server: ServerProcess) -> None:
    assert talk(server, b"") == b""


def test_the_body_of_a_request_already_answered_is_not_waited_for(server: ServerProcess) -> None:
    answer = talk(server, b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_a_connection_idles_between_requests_and_then_times_out_on_half_a_head(server: ServerProcess) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(server.address, timeout=0.6) as connection:
        connection.sendall(request)
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(TimeoutError):
            connection.recv(1)  # longer than a head may take
        connection.settimeout(10)
        connection.sendall(request + request[:10])
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
        assert problem_of(answer_of(connection))["code"] == "header_timeout"


def test_a_client_that_does_not_read_its_response_is_disconnected(server: ServerProcess) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(server.address)
        connection.settimeout(10)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        closed = select.poll()
        closed.register(connection, 0)  # errors only
        for _ in range(10):  # more than the buffers of both sockets hold
            connection.sendall(request * 50)
            if closed.poll(1000):
                break
        assert closed.poll(0), "still open"
    server.wait(lambda: server.shows("str_app_requests_in_flight 1.0"))


def test_a_client_that_pipelines_without_end_is_disconnected(server: ServerProcess) -> None:
    with socket.create_connection(server.address, timeout=10) as connection, pytest.raises(ConnectionError):
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000_000)
    server.wait(lambda: server.shows("str_app_requests_in_flight 1.0"))


def test_a_thousand_idle_connections_stop_nothing() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ServerProcess() as server, ExitStack() as idle:
        for _ in range(1000):
            connection = idle.enter_context(socket.create_connection(server.address, timeout=10))
            connection.sendall(b"GET / HT")
        server.let_through()
        assert server.status("/healthz") == 200
        answer = httpx.post(server.url + "/v1/recognize", files=parts("through"), timeout=10)
        assert answer.json()["results"][0]["text"] == "through"


def test_a_head_within_the_limit_may_come_in_pieces(server: ServerProcess) -> None:
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 30_000)
        connection.sendall(b"x" * 30_000 + b"\r\n\r\n")
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
def test_upgrade_offers_are_answered_over_http_1_1(server: ServerProcess, upgrade: bytes) -> None:
    server.let_through()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + upgrade + b"\r\nHTTP2-Settings: AAMAAABk\r\n"
    image = png("offered")
    post = HEAD + offer + b"Content-Length: %d\r\n\r\n" % len(image) + image
    plain = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(post)
        assert b'"offered"' in answer_of(connection)
        connection.sendall(plain)
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
        server.let_through()
        connection.sendall(post[:-20])
        time.sleep(0.05)
        connection.sendall(post[-20:])
        assert b'"offered"' in answer_of(connection)


def test_pipelined_requests_are_answered_in_order(server: ServerProcess) -> None:
    def get(path: bytes) -> bytes:
        return b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path

    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(get(b"/healthz") + get(b"/nowhere") + get(b"/healthz"))
        answer = b""
        while answer.count(b"HTTP/1.1 ") < 3:
            answer += connection.recv(65536)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"200"]


def test_expect_100_continue_keeps_the_bytes_of_a_body_that_is_too_large(server: ServerProcess) -> None:
    head = HEAD + b"Content-Length: 999999999\r\nExpect: 100-continue\r\n\r\n"
    answer = talk(server, head)
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("path", [b"/v1/recognize", b"/nowhere"])
def test_a_refusal_reaches_a_client_that_is_still_sending(server: ServerProcess, more: bytes, path: bytes) -> None:
    size = 40 * 2**20
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(HEAD.replace(b"/v1/recognize", path) + more + b"Content-Length: %d\r\n\r\n" % size)
        connection.sendall(bytes(size))  # fails if the server has closed its socket
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 " if path != b"/nowhere" else b"HTTP/1.1 404 ")
        if more:
            while connection.recv(65536):
                pass


def test_a_refusal_reaches_a_client_that_takes_as_long_as_an_accepted_one_may() -> None:
    with (
        ServerProcess(STR_APP_HEADER_TIMEOUT_S="0.3", STR_APP_UPLOAD_TIMEOUT_S="30") as patient,
        socket.create_connection(patient.address, timeout=30) as connection,
    ):
        head = HEAD.replace(b"/v1/recognize", b"/nowhere")
        connection.sendall(head + b"Connection: close\r\nContent-Length: 6000000\r\n\r\n")
        for _ in range(6):
            time.sleep(0.2)
            connection.sendall(bytes(1_000_000))
        assert problem_of(connection.recv(65536))["code"] == "not_found"


def test_an_unfinished_body_that_was_refused_does_not_delay_the_end() -> None:
    with (
        ServerProcess(STR_APP_UPLOAD_TIMEOUT_S="30") as stopped,
        socket.create_connection(stopped.address, timeout=30) as connection,
    ):
        connection.sendall(HEAD.replace(b"/v1/recognize", b"/nowhere") + b"Content-Length: 100\r\n\r\nabc")
        assert answer_of(connection).startswith(b"HTTP/1.1 404 ")
        stopped.process.terminate()
        assert stopped.process.wait(15) == 0


def test_a_refusal_reaches_a_client_that_sends_much_before_it_looks() -> None:
    size = 128 * 2**20
    with (
        ServerProcess(STR_APP_HEADER_TIMEOUT_S="30") as patient,
        socket.create_connection(patient.address, timeout=30) as connection,
    ):
        connection.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 2**20):
            connection.sendall(bytes(2**20))
        assert problem_of(connection.recv(65536))["code"] == "body_too_large"
        assert connection.recv(65536) == b""


def closed(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x")
    except ConnectionError:
        return True
    return False


def test_what_is_sent_after_a_refusal_is_read_for_a_bounded_time_and_size(server: ServerProcess) -> None:
    head = HEAD + b"Connection: close\r\nContent-Length: 999999999\r\n\r\n"
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(head)
        answer = b""
        while received := connection.recv(65536):
            answer += received
        assert b"body_too_large" in answer
        time.sleep(0.5)  # longer than a head may take
        server.wait(lambda: closed(connection))
    with socket.create_connection(server.address, timeout=10) as connection, pytest.raises(ConnectionError):
        connection.sendall(head + bytes(999_999_999))


def test_a_chunk_may_be_refused_by_its_size_alone(server: ServerProcess) -> None:
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        time.sleep(0.05)
        connection.sendall(b"7fffffff; extension\r\n")
        assert problem_of(answer_of(connection))["code"] == "body_too_large"


def test_a_refused_chunk_is_counted_logged_and_named_as_its_request(server: ServerProcess) -> None:
    named = b"X-Request-ID: %s\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n"
    problem = problem_of(talk(server, HEAD + named % b"mine"))
    assert (problem["code"], problem["request_id"]) == ("body_too_large", "mine")
    infer = talk(server, HEAD.replace(b"/v1/recognize", b"/v2/models/fake/infer") + named % b"theirs")
    assert b"\r\nx-request-id: theirs\r\n" in infer.lower()
    assert list(json.loads(infer.partition(b"\r\n\r\n")[2])) == ["error"]
    server.wait(lambda: {"mine", "theirs"} <= {line.get("request_id") for line in server.logs})
    of = {line["request_id"]: line["status"] for line in server.logs if "request_id" in line}
    assert (of["mine"], of["theirs"]) == (413, 413)
    metrics = httpx.get(server.url + "/metrics").text
    assert 'str_app_requests_total{code="413",method="POST",route="/v2/models/{name}/infer"} 1.0' in metrics
    assert 'code="499"' not in metrics


def test_a_raw_body_in_chunks_is_read(server: ServerProcess) -> None:
    server.let_through()
    body = png("chunks")
    answer = httpx.post(
        server.url + "/v1/recognize",
        content=iter([body[:50], body[50:]]),
        headers={"content-type": "image/png"},
        timeout=10,
    )
    assert answer.json()["results"][0]["text"] == "chunks"


@pytest.fixture
def full() -> Iterator[ServerProcess]:
    """With room for one image, which is being read."""
    settings = {"STR_APP_MAX_PENDING": "1", "STR_APP_MAX_IMAGES": "1", "STR_APP_UPLOAD_TIMEOUT_S": "1"}
    with ServerProcess(**settings) as server, socket.create_connection(server.address, timeout=10) as accepted:
        accepted.sendall(post_of(png("first")))
        server.wait_until_one_is_being_read()
        yield server
        server.let_through()
        assert b'"first"' in answer_of(accepted)


def post_of(image: bytes, more: bytes = b"", path: bytes = b"/v1/recognize") -> bytes:
    return HEAD.replace(b"/v1/recognize", path) + more + b"Content-Length: %d\r\n\r\n" % len(image) + image


def test_refusals_of_a_full_queue_keep_the_connection_open(full: ServerProcess) -> None:
    health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(full.address, timeout=10) as connection:
        for path in (b"/v1/recognize", b"/v1/regions?rotate=true"):
            connection.sendall(post_of(png("refused"), b"X-Request-ID: mine\r\n", path))
            head, _, body = answer_of(connection).partition(b"\r\n\r\n")
            lines = head.decode().lower().split("\r\n")
            assert lines[0].startswith("http/1.1 429 ")
            assert {"retry-after: 1", "x-request-id: mine", "content-type: application/problem+json"} < set(lines)
            assert "connection: close" not in lines
            assert any(line.startswith("date: ") for line in lines)
            assert (json.loads(body)["code"], json.loads(body)["request_id"]) == ("overloaded", "mine")
        # The second answer comes before the body, and what then comes of the body is nobody's next request.
        request = post_of(health * 3)
        connection.sendall(request[: -2 * len(health)])
        assert answer_of(connection).startswith(b"HTTP/1.1 429 ")
        connection.sendall(request[-2 * len(health) :] + health)
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
        time.sleep(1.5)  # longer than a body may take
        connection.sendall(health)
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
    assert full.shows(
        'str_app_requests_total{code="429",method="POST",route="/v1/recognize"} 2.0',
        'str_app_requests_total{code="429",method="POST",route="/v1/regions"} 1.0',
        'str_app_rejections_total{reason="overloaded"} 3.0',
    )


def test_a_refused_connection_ends_where_the_client_asked_for_it(full: ServerProcess) -> None:
    assert problem_of(talk(full, post_of(png("last"), b"Connection: close\r\n")))["code"] == "overloaded"
    assert problem_of(talk(full, post_of(png("old")).replace(b"HTTP/1.1", b"HTTP/1.0")))["code"] == "overloaded"
    half = talk(full, post_of(png("half"))[:-10])  # ends because the rest never comes
    assert half.startswith(b"HTTP/1.1 429 ")
    assert half.count(b"HTTP/1.1 ") == 1


def test_refusals_keep_the_order_of_pipelined_requests(full: ServerProcess) -> None:
    health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(full.address, timeout=10) as connection:
        connection.sendall(post_of(png("a")) + health + post_of(png("b")) + health)
        answer = b""
        while answer.count(b"HTTP/1.1 ") < 4:
            answer += connection.recv(65536)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"429", b"200", b"429", b"200"]


def test_an_idle_connection_is_closed_after_the_time_that_is_set() -> None:
    with (
        ServerProcess(STR_APP_KEEP_ALIVE_S="1") as server,
        socket.create_connection(server.address, timeout=20) as mine,
    ):
        mine.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_of(mine).startswith(b"HTTP/1.1 200 ")
        assert mine.recv(1) == b""


def test_a_head_after_idling_has_the_time_of_a_head(server: ServerProcess) -> None:
    """Not what is left of the time to idle."""
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer_of(connection)
        connection.sendall(b"\r\n")
        time.sleep(0.2)
        began = time.monotonic()
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
        assert problem_of(connection.recv(65536))["code"] == "header_timeout"
        assert time.monotonic() - began < 1.5  # of 0.3; idling ends after 2
