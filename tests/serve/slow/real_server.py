"""`str-app serve` with the released weights, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import deque
from pathlib import Path


class RealServer:
    """Runs until the block ends.

    Args:
        command: how Python is started, e.g. under `prlimit`.
        environment: settings.
    """

    def __init__(self, *command: str, **environment: str) -> None:
        self._command = [*command, sys.executable, "-m", "str_app", "serve", "--port", "0"]
        settings = {"STR_APP_DRAIN_DELAY_S": "1", "STR_APP_LOG_FORMAT": "text", **environment}
        # Not the one thread that the quick tests ask for.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STR_APP_")}
        self._environment = {**inherited, "OMP_WAIT_POLICY": "PASSIVE", **settings}

    def __enter__(self) -> RealServer:
        self.process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True, env=self._environment)
        try:
            self._started()
        except BaseException:
            self.process.kill()
            raise
        return self

    def _started(self) -> None:
        assert self.process.stderr
        self.logs: deque[str] = deque(maxlen=1000)
        for line in self.process.stderr:
            self.logs.append(line)
            if "listening on " in line:
                break
        else:
            raise AssertionError("".join(self.logs))
        self.url = line.split("listening on ")[1].strip()
        host, port = self.url.removeprefix("http://").split(":")
        self.address = (host, int(port))
        self._drain = threading.Thread(target=lambda: self.logs.extend(self.process.stderr or ()))
        self._drain.start()
        self.until_ready()

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait(30)
        self._drain.join(30)
        assert self.process.stderr
        self.process.stderr.close()

    def until_ready(self, seconds: float = 60.0) -> None:
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            try:
                with urllib.request.urlopen(self.url + "/readyz", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("never ready: " + "".join(self.logs))

    def metric(self, name: str) -> float:
        """The value of a metric, given with its labels."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.rsplit(" ", 1)[1])
        return 0.0

    @property
    def rss(self) -> int:
        """Resident memory of the server and the model's processes, in bytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in [self.process.pid, *self.models])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def models(self) -> list[int]:
        """The model processes; multiprocessing's resource tracker is a child of the server too."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
        return [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
