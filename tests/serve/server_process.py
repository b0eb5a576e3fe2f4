"""A real server in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import httpx


class ServerProcess:
    """Each line of `let_through` lets its reader read one batch.

    Args:
        environment: settings.
    """

    def __init__(self, **environment: str) -> None:
        self._environment = {
            "STR_APP_PORT": "0",
            "STR_APP_DRAIN_DELAY_S": "0",
            "STR_APP_THREADS": "1",
            "PATH": "",
        } | environment

    def __enter__(self) -> ServerProcess:
        command = [sys.executable, "-m", "tests.serve.held_server"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._environment
        )
        assert self.process.stderr
        self.logs: list[dict] = []
        for line in self.process.stderr:
            self.logs.append(json.loads(line))
            if self.logs[-1]["message"].startswith("listening on "):
                break
        self.url = self.logs[-1]["message"].removeprefix("listening on ")
        host, port = self.url.removeprefix("http://").split(":")
        self.address = (host, int(port))
        self._drain = threading.Thread(target=lambda: self.logs.extend(map(json.loads, self.process.stderr or ())))
        self._drain.start()
        self.wait(lambda: self.status("/readyz") == 200)
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait(30)
        self._drain.join(30)
        for pipe in (self.process.stdin, self.process.stderr):
            assert pipe
            pipe.close()

    def status(self, path: str) -> int:
        try:
            return httpx.get(self.url + path).status_code
        except httpx.TransportError:
            return 0

    def wait(self, condition: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < give_up, "never came true"
            time.sleep(0.005)

    def let_through(self, batches: int = 1) -> None:
        assert self.process.stdin
        self.process.stdin.write("go\n" * batches)
        self.process.stdin.flush()

    def shows(self, *metrics: str) -> bool:
        text = httpx.get(self.url + "/metrics").text
        return all(f"\n{metric}" in text for metric in metrics)

    def wait_until_one_is_being_read(self) -> None:
        self.wait(lambda: self.shows("str_app_decode_seconds_count 1.0", "str_app_queue_depth 0.0"))
