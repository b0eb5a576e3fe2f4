"""The client, against a server that answers what the test tells it to."""

from __future__ import annotations

import base64
import json
import math
import multiprocessing
import socket
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from str_app import client as module
from str_app.cli import main
from str_app.client import Client, ServerError
from str_app.errors import ImageError, StrAppError
from str_app.reading import Reading

READING = {"text": "EXIT", "confidence": 0.9, "characters": [{"text": "E", "confidence": 0.9, "box": [0, 0, 1, 2]}]}


class Server:
    """Gives the next of `answers`: a status, headers and a body; None closes the connection without a word."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], Any] | None] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.clients: list[Any] = []
        self.delay_s = 0.0

    def __enter__(self) -> Server:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, dict(self.headers), body))
                outer.clients.append(self.client_address)
                answer = outer.answers.pop(0)
                threading.Event().wait(outer.delay_s)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, content = answer
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    naps: list[float] = []
    monkeypatch.setattr(module.time, "sleep", naps.append)
    return naps


def problem(status: int, code: str, **headers: str) -> tuple[int, dict[str, str], Any]:
    return status, headers, {"code": code, "detail": "so it is"}


def test_readings_and_errors_in_order(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "word.png"
    file.write_bytes(b"the bytes of a file")
    bad = {"image": "1", "error": {"code": "truncated", "message": "cut short"}}
    server.answers = [(200, {}, {"model": "m", "results": [{"image": "0", **READING}, bad]})]
    good, error = Client(server.url + "/", api_key="k1").recognize([file, b"bytes"], rotate=True, characters="0-9&+")
    assert isinstance(good, Reading)
    assert good.as_dict() == READING
    assert isinstance(error, ImageError)
    assert (error.code, error.message) == ("truncated", "cut short")
    path, headers, body = server.requests[0]
    assert path == "/v1/recognize?rotate=true&characters=0-9%26%2B"
    assert headers["Authorization"] == "Bearer k1"
    assert b"the bytes of a file" in body
    assert Client(server.url).recognize([]) == []


@pytest.mark.parametrize("key", ["bad\nkey", "ключ", "k\x00y"])
def test_a_key_that_no_header_may_have_is_not_printed(key: str) -> None:
    """http.client's error printed the key."""
    with pytest.raises(StrAppError, match="the API key has a character that no header may have") as raised:
        Client("http://127.0.0.1:1", api_key=key)
    assert key not in str(raised.value)


def test_blanks_around_a_key_are_left_out(server: Server) -> None:
    server.answers = [(200, {}, {"model": "m", "results": [READING]})] * 2
    for key in (" k1\n", "\n"):
        Client(server.url, api_key=key).recognize([b"bytes"])
    assert [headers.get("Authorization") for _, headers, _ in server.requests] == ["Bearer k1", None]


def test_regions(server: Server) -> None:
    server.answers = [(200, {}, {"model": "m", "results": [READING]})]
    (reading,) = Client(server.url).recognize_regions(b"photo", [[1, 2, 3, 4]])
    assert isinstance(reading, Reading)
    path, _, body = server.requests[0]
    assert path == "/v1/regions"
    assert b"[[1, 2, 3, 4]]" in body
    server.answers = [(200, {}, {"model": "m", "results": [READING]})]
    Client(server.url).recognize_regions(b"photo", [[1, 2, 3, 4]], rotate=True, characters="0-9")
    assert server.requests[1][0] == "/v1/regions?rotate=true&characters=0-9"


def test_regions_of_a_detector_s_array(server: Server) -> None:
    server.answers = [(200, {}, {"model": "m", "results": [READING]})] * 2
    for regions in (np.array([[1.5, 2, 3, 4]]), [np.array([1.5, 2, 3, 4])]):
        Client(server.url).recognize_regions(b"photo", regions)  # type: ignore[arg-type]
        assert b"[[1.5, 2.0, 3.0, 4.0]]" in server.requests[-1][2]


def test_regions_of_other_numbers(server: Server) -> None:
    server.answers = [(200, {}, {"model": "m", "results": [READING]})]
    numbers = [np.float32(1.5), Decimal("2.5"), Fraction(7, 2), 4]
    Client(server.url).recognize_regions(b"photo", [numbers])
    assert b"[[1.5, 2.5, 3.5, 4]]" in server.requests[-1][2]


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, Fraction(10) ** 400, np.array([object()])])
def test_a_region_without_numbers_is_named(server: Server, value: Any) -> None:
    with pytest.raises(ImageError, match=r"^region 2 of 2: give 4 numbers, 8 numbers or 4 pairs of numbers") as caught:
        Client(server.url).recognize_regions(b"photo", [[0, 0, 9, 9], [0, 0, 9, value]])
    assert caught.value.code == "bad_region"
    assert server.requests == []


def test_no_regions_have_no_readings(server: Server, tmp_path: Path) -> None:
    """As with a `Reader`; the server would refuse them."""
    assert Client(server.url).recognize_regions(b"photo", []) == []
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        Client(server.url).recognize_regions(tmp_path / "none.png", [])
    assert server.requests == []


@pytest.mark.parametrize("images", ["word.png", Path("word.png"), b"a file", {b"a file"}])
def test_images_are_a_list(server: Server, images: Any) -> None:
    with pytest.raises(StrAppError, match="give a list of files or of their contents"):
        Client(server.url).recognize(images)
    assert server.requests == []


@pytest.mark.parametrize("image", [None, 7, ["word.png"]])
def test_what_is_no_file_is_not_sent(server: Server, image: Any) -> None:
    with pytest.raises(StrAppError, match="is not an image file"):
        Client(server.url).recognize([image])
    with pytest.raises(StrAppError, match="give a list of regions"):
        Client(server.url).recognize_regions(b"photo", [0, 0, 9, 9])
    assert server.requests == []


def test_a_busy_server_is_asked_again_when_it_says(server: Server, naps: list[float]) -> None:
    server.answers = [problem(429, "overloaded", **{"Retry-After": "3"}), problem(503, "draining"), None]
    server.answers += [(200, {}, {"results": [READING]})]
    assert len(Client(server.url).recognize([b"a"])) == 1
    assert 3 <= naps[0] <= 3.1
    assert 0.1 <= naps[1] <= 0.2
    assert 0.2 <= naps[2] <= 0.4
    assert len({body for _, _, body in server.requests}) == 1


def test_clients_refused_together_do_not_return_together(server: Server, naps: list[float]) -> None:
    for _ in range(2):
        server.answers = [problem(429, "overloaded", **{"Retry-After": "3"}), (200, {}, {"results": [READING]})]
        Client(server.url).recognize([b"a"])
    assert len(set(naps)) == 2


def test_a_busy_server_is_waited_for_beyond_the_time_to_reach_it(server: Server, naps: list[float]) -> None:
    server.answers = [problem(429, "overloaded", **{"Retry-After": "20"}), (200, {}, {"results": [READING]})]
    assert len(Client(server.url, reach_s=5).recognize([b"a"])) == 1
    assert 20 <= naps[0] <= 20.1


def test_patience_ends(server: Server, naps: list[float]) -> None:
    server.answers = [problem(429, "overloaded", **{"Retry-After": "100"})]
    with pytest.raises(ServerError, match="so it is") as caught:
        Client(server.url, patience_s=10).recognize([b"a"])
    assert (caught.value.status, caught.value.code) == (429, "overloaded")
    assert naps == []


@pytest.mark.parametrize("wait", ["1.5", "soon", "-1", "", "9" * 5000, "Mon, 01 Jan 99999 00:00:00 GMT"])
def test_a_wait_that_cannot_be_read_is_none(server: Server, naps: list[float], wait: str) -> None:
    busy = problem(429, "overloaded", **{"Retry-After": wait})
    server.answers = [busy, busy, (200, {}, {"results": [READING]})]
    assert len(Client(server.url).recognize([b"a"])) == 1
    assert 0.1 <= naps[-1] <= 0.3
    server.answers = [busy]
    with pytest.raises(ServerError, match="so it is") as caught:
        Client(server.url, patience_s=0).recognize([b"a"])
    assert (caught.value.status, caught.value.code) == (429, "overloaded")


def test_a_refusal_is_not_repeated(server: Server, naps: list[float]) -> None:
    refusals = ((401, "unauthorized"), (413, "body_too_large"), (500, "internal_error"), (504, "deadline_exceeded"))
    for status, code in refusals:
        server.answers = [problem(status, code)]
        with pytest.raises(ServerError) as caught:
            Client(server.url).recognize([b"a"])
        assert (caught.value.status, caught.value.code) == (status, code)
    assert naps == []


def test_a_redirect_is_not_followed(server: Server) -> None:
    """The images and the key go to no other address than the one that was given."""
    server.answers = [(307, {"Location": f"{server.url}/elsewhere"}, {}), (200, {}, {"results": [READING]})]
    with pytest.raises(ServerError) as caught:
        Client(server.url, api_key="k1").recognize([b"a"])
    assert caught.value.status == 307
    assert len(server.requests) == 1


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "body",
    [b"<html>", {"results": [{}]}, [1], {"results": 5}, {"results": []}, {"results": [READING] * 2}, DEEP],
    ids=lambda body: str(body)[:20],
)
def test_another_server_is_told_apart(server: Server, body: Any) -> None:
    server.answers = [(200, {}, body)]
    with pytest.raises(ServerError, match="not that of a str-app server"):
        Client(server.url).recognize([b"a"])


def test_an_error_without_a_problem(server: Server) -> None:
    for body in (b"<html>", DEEP):
        server.answers = [(404, {}, body)]
        with pytest.raises(ServerError, match=r"HTTP 404 .*, not an answer of `str-app serve`"):
            Client(server.url).recognize([b"a"])


def test_a_server_is_waited_for_once_it_has_answered(naps: list[float]) -> None:
    with Server() as server:
        client = Client(server.url, patience_s=0.5, reach_s=0)
        server.answers = [(200, {}, {"results": [READING]})]
        client.recognize([b"a"])
    with pytest.raises(ServerError, match="cannot be reached"):
        client.recognize([b"a"])
    assert naps, "it is tried again"
    naps.clear()
    with pytest.raises(ServerError, match="cannot be reached"):
        Client(server.url, patience_s=0.5, reach_s=0).recognize([b"a"])
    assert naps == [], "an address that never answered may be mistyped"


def test_nobody_there(server: Server, naps: list[float]) -> None:
    with Server() as gone:
        url = gone.url
    with pytest.raises(ServerError, match="cannot be reached"):
        Client(url, patience_s=0).recognize([b"a"])
    with pytest.raises(ServerError, match="cannot be reached"):
        Client("http://nowhere.invalid").recognize([b"a"])
    assert naps == [], "a name that does not resolve is not tried again"
    with pytest.raises(StrAppError, match="http://HOST:PORT"):
        Client("localhost:8000")


def test_an_address_without_tls_is_not_tried_again(server: Server, naps: list[float]) -> None:
    """As with a wrong certificate, waiting mends nothing."""
    with pytest.raises(ServerError, match="cannot be reached"):
        Client(server.url.replace("http:", "https:"), reach_s=5).recognize([b"a"])
    assert naps == []


def test_the_command_line_names_the_missing_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "word.png"
    file.write_bytes(b"the bytes of a file")
    monkeypatch.setitem(sys.modules, "urllib3", None)
    monkeypatch.delitem(sys.modules, "str_app.client")
    monkeypatch.setattr(sys, "argv", ["str-app", "recognize", str(file), "--server", "http://nowhere.invalid"])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "urllib3 is not installed: pip install 'str-app[client]'" in capsys.readouterr().err


def test_files_that_cannot_be_read_are_errors_in_their_place(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    server.answers = [(200, {}, {"results": [READING]})]
    missing, read, folder = Client(server.url).recognize([tmp_path / "no.png", tmp_path / "a.png", tmp_path])
    assert isinstance(missing, ImageError)
    assert (missing.code, missing.message) == ("not_found", f"{tmp_path}/no.png: no such file")
    assert isinstance(read, Reading)
    assert isinstance(folder, ImageError)
    assert folder.code == "not_readable"
    assert Client(server.url).recognize([tmp_path / "no.png"])[0].code == "not_found"  # type: ignore[union-attr]
    assert len(server.requests) == 1
    with pytest.raises(ImageError, match="no such file"):
        Client(server.url).read_photo(str(tmp_path / "no.png"))


def test_a_bad_gateway_is_asked_again(server: Server, naps: list[float]) -> None:
    server.answers = [problem(502, "no_replica"), (200, {}, {"results": [READING]})]
    assert len(Client(server.url).recognize([b"a"])) == 1
    assert len(server.requests) == 2


def test_a_photograph(server: Server) -> None:
    photo = {"width": 9, "height": 9, "lines": [], "words": []}
    server.answers = [(200, {}, {"model": "m", "detector": "d", **photo})]
    assert Client(server.url).read_photo(b"photo", characters="0-9").as_dict() == photo
    assert server.requests[0][0] == "/v1/photos?characters=0-9"


def test_a_forked_process_has_connections_of_its_own(server: Server) -> None:
    """On the parent's, each would read answers of the other."""
    server.answers = [(200, {}, {"results": [READING]})] * 2
    client = Client(server.url)
    client.recognize([b"a"])
    pool = client._pool
    process = multiprocessing.get_context("fork").Process(target=client.recognize, args=([b"b"],))
    process.start()
    process.join(20)
    assert process.exitcode == 0
    assert client._pool is pool
    assert len(set(server.clients)) == 2


def test_no_attempt_waits_beyond_the_patience(server: Server) -> None:
    listener = socket.create_server(("127.0.0.1", 0))  # accepts, and never answers
    with listener:
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=60, patience_s=0.5)
        started = time.monotonic()
        with pytest.raises(ServerError, match="timed out"):
            client.recognize([b"a"])
        assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("login", "sent"), [("user:p%40ss@", "user:p@ss"), ("user@", "user:"), ("u:pä@", "u:pä"), ("", None)]
)
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_gets_its_credentials(
    server: Server, monkeypatch: pytest.MonkeyPatch, scheme: str, login: str, sent: str | None
) -> None:
    monkeypatch.setenv("http_proxy", scheme + login + server.url.removeprefix("http://"))
    monkeypatch.setenv("no_proxy", "")
    server.answers = [(200, {}, {"results": [READING]})]
    Client("http://words.example").recognize([b"a"])
    (_, headers, _), *_ = server.requests
    expected = sent and "Basic " + base64.b64encode(sent.encode()).decode()
    assert {name.lower(): value for name, value in headers.items()}.get("proxy-authorization") == expected


def test_a_proxy_that_cannot_be_used_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://user:secret@proxy:1080")
    with pytest.raises(StrAppError, match=r"the proxy socks5://proxy:1080 cannot be used") as caught:
        Client("http://words.example")
    assert "secret" not in str(caught.value)


def test_no_proxy_is_used_where_the_environment_excepts_the_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.answers = [(200, {}, {"results": [READING]})]
    assert len(Client(server.url, patience_s=0).recognize([b"a"])) == 1


@pytest.mark.parametrize("url", ["http://[::1", "http://x:y", "ftp://x", "http://", "x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(StrAppError, match="not the address of a server"):
        Client(url)


def test_an_attempt_takes_time() -> None:
    with pytest.raises(StrAppError, match="timeout_s is 0: give a number of seconds above 0"):
        Client("http://x", timeout_s=0)


def test_an_attempt_that_takes_too_long_is_made_again() -> None:
    class SlowAtFirst(Server):
        delay_s = property(lambda self: 0.0 if len(self.requests) > 1 else 0.5, lambda self, delay: None)

    with SlowAtFirst() as server:
        server.answers = [(200, {}, {"results": [READING]})] * 20
        assert len(Client(server.url, timeout_s=0.1).recognize([b"a"])) == 1
        assert len(server.requests) > 1


def test_without_patience_one_attempt_may_take_its_time(server: Server) -> None:
    server.answers = [(503, {}, {}), (200, {}, {"results": [READING]})]
    client = Client(server.url, patience_s=0)
    with pytest.raises(ServerError):
        client.recognize([b"a"])
    server.delay_s = 0.3
    assert client.recognize([b"a"])[0].text == "EXIT"  # type: ignore[union-attr]
    assert len(server.requests) == 2


@pytest.mark.parametrize("seconds", [None, "1", math.nan, -1.0])
@pytest.mark.parametrize("name", ["timeout_s", "patience_s", "reach_s"])
def test_times_that_are_none(name: str, seconds: Any) -> None:
    with pytest.raises(StrAppError, match=f"{name} is .*give a number of seconds"):
        Client("http://localhost:1", **{name: seconds})


def test_times_without_end() -> None:
    client = Client("http://localhost:1", timeout_s=math.inf, patience_s=0)
    with pytest.raises(ServerError, match="cannot be reached"):
        client.recognize([b"image"])
