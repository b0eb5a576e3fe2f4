"""Clients that ask a server all the while something is done to it, and how many of their requests were lost.

    python -m tests.deploy.asking URL [--retries] [--clients 4] [--pause 0.1] -- COMMAND ...

asks while COMMAND runs, and ends with its exit code, or 1 if a request was lost or read otherwise than before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from str_app.client import Client, ServerError
from str_app.reading import Reading

SAMPLES = sorted(Path("samples/images").iterdir())


@dataclass
class Tally:
    """What came back: the number of right answers, why each other one was none, and the longest wait in seconds."""

    answers: int = 0
    lost: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.answers} answers, {len(self.lost)} lost, the slowest took {self.slowest_s:.2f} s"


@contextmanager
def asking(url: str, *, retries: bool, clients: int, pause_s: float) -> Iterator[Tally]:
    """Ask for the samples as long as the block runs; each must read as it did at the beginning.

    Args:
        url: of the server or its proxy.
        retries: send again what was refused or lost, as `Client` does; otherwise the first answer counts.
        clients: how many ask at once.
        pause_s: seconds that each waits between two requests.
    """
    expected = [_text(Client(url), sample) for sample in SAMPLES]
    client = Client(url) if retries else Client(url, patience_s=0)
    tally, over, lock = Tally(), threading.Event(), threading.Lock()

    def ask(turn: int) -> None:
        while not over.wait(pause_s):
            start, text, why = time.perf_counter(), None, "read otherwise"
            place = turn % len(SAMPLES)
            try:
                text = _text(client, SAMPLES[place])
            except ServerError as error:
                why = f"{error.status} {error.code}: {error}"
            with lock:
                tally.slowest_s = max(tally.slowest_s, time.perf_counter() - start)
                if text == expected[place]:
                    tally.answers += 1
                else:
                    tally.lost.append(why)
            turn += clients

    with ThreadPoolExecutor(clients) as threads:
        asked = [threads.submit(ask, turn) for turn in range(clients)]
        try:
            yield tally
        finally:
            over.set()
    for ended in asked:
        ended.result()


def _text(client: Client, sample: Path) -> str:
    (reading,) = client.recognize([sample])
    assert isinstance(reading, Reading), f"{sample}: {reading}"
    return reading.text


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for it.

    Raises:
        AssertionError: it did not come true in time.
    """
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not {what} after {seconds:g} s"
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--retries", action="store_true")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.1)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with asking(options.url, retries=options.retries, clients=options.clients, pause_s=options.pause) as tally:
        until(lambda: tally.answers >= 2 * options.clients, "asking")
        done = subprocess.run(options.command)
        before = tally.answers
        until(lambda: tally.answers >= before + 2 * options.clients, "answered again")
    print(tally, *tally.lost[:5], sep="\n  ")
    return done.returncode or int(bool(tally.lost))


if __name__ == "__main__":
    sys.exit(main())
