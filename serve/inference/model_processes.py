"""The model in processes of its own, so that it and the event loop never wait for one another's Python lock."""

from __future__ import annotations

import logging.config
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import str_app
from str_app.errors import StrAppError
from str_app.pipeline import CanvasReader, Description
from str_app.reader import Reader
from str_app.reading import Reading
from str_app.serve.operations.logs import log_config, logger
from str_app.serve.operations.telemetry import Usage
from str_app.serve.settings import Settings
from str_app.views import Canvas

HERE = Path(str_app.__file__).resolve().parent.parent
START = "import sys; sys.path.insert(0, sys.argv[2]); from str_app.serve.inference.model_processes import main; main()"
STARTS = 3  # of a replacement that ends while it loads, before the pass fails
BEHIND = 10  # nice value: the event loop goes first, since what it does is short


class RemoteReader(CanvasReader):
    """Reads canvases in processes of their own, each with a model and one batch at a time.

    A process that ends (killed for memory, say) is replaced, and its pass made again. All end when the reader is closed
    or forgotten, and when this process ends in whatever way.

    Args:
        settings: name the model and how it reads.
        processes: how many.
        threads: cores of each.

    Raises:
        Exception: as `Reader.load` does; StrAppError, too, if a process ends while it loads.
    """

    def __init__(self, settings: Settings, processes: int, threads: int) -> None:
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        self._warming = threading.Lock()
        self._warm = False
        self._members = members = [_Process(settings, threads) for _ in range(processes)]
        self.close = weakref.finalize(self, _end, members)
        self.close.atexit = False  # then they end anyway
        try:
            description, *_ = [member.description() for member in members]
        except BaseException:
            self.close()
            raise
        for member in members:
            self._idle.put(member)
        super().__init__(description)

    @property
    def usage(self) -> Usage:
        """Of all processes that run now."""
        used = [member.usage for member in self._members]
        return Usage(sum(one.resident_bytes for one in used), sum(one.cpu_seconds for one in used))

    def warm_up(self, sizes: Sequence[int]) -> None:
        """See `CanvasReader`: every process, once."""
        with self._warming:
            if not self._warm:
                members = [self._idle.get() for _ in self._members]
                for member in members:
                    member.send("warm_up", (sizes,), {})
                for member in members:
                    member.answer()
                    self._idle.put(member)
                self._warm = True

    def read_canvases(self, canvases: Sequence[Canvas], *, attention: bool = True) -> list[Reading]:
        """See `CanvasReader`; always with attention."""
        member = self._idle.get()
        try:
            try:
                return member.read(canvases)
            except _EndedError:
                member.replace()
                return member.read(canvases)
        finally:
            self._idle.put(member)

    def use_threads(self, count: int) -> None:
        """Nothing: the processes have theirs."""


class _EndedError(Exception):
    """The process is gone."""


class _Process:
    """One process, and what is said to it."""

    def __init__(self, settings: Settings, threads: int) -> None:
        self._settings = settings
        self._threads = threads
        self.start()

    def start(self) -> None:
        """Start the process; it loads the model while others start."""
        ours, theirs = socket.socketpair()
        with theirs:
            # -P: what lies in the working directory is nobody's module.
            command = [sys.executable, "-P", "-c", START, str(theirs.fileno()), str(HERE)]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        self._connection = Connection(ours.detach())
        with suppress(_EndedError):  # which `description` tells
            self.send(self._settings, self._threads)

    def replace(self) -> None:
        """Start another in its place, and wait until it has loaded.

        One that ends before that has read nothing: no pass is to blame, so that there is another try.

        Raises:
            Exception: as `description` does.
        """
        for _ in range(STARTS):
            logger.error("the model's process %d ended (%s): starting another", self.pid, self.end())
            self.start()
            with suppress(_EndedError):
                self.answer()
                return
        raise self._unloaded()

    def description(self) -> Description:
        """What it has loaded; blocks until then.

        Raises:
            Exception: what loading raised there. StrAppError if the process has ended.
        """
        try:
            description: Description = self.answer()
        except _EndedError:
            raise self._unloaded() from None
        return description

    def _unloaded(self) -> StrAppError:
        return StrAppError(f"the model's process ended while it loaded ({self.end()})")

    def read(self, canvases: Sequence[Canvas]) -> list[Reading]:
        """As `answer` to the canvases."""
        self.send("read_canvases", (canvases,), {"attention": True})
        readings: list[Reading] = self.answer()
        return readings

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def usage(self) -> Usage:
        """Nothing where the system does not tell."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            ticks = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        except OSError:
            return Usage(0, 0.0)
        return Usage(pages * os.sysconf("SC_PAGE_SIZE"), sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))

    def send(self, *message: Any) -> None:
        """A method of `Reader`, its arguments and its options; `answer` then gets what comes of it.

        Raises:
            _EndedError: the process is gone.
        """
        try:
            self._connection.send(message)
        except OSError:
            raise _EndedError from None

    def answer(self) -> Any:
        """What comes of what was sent.

        Raises:
            Exception: what was raised there. _EndedError: the process is gone.
        """
        try:
            outcome = self._connection.recv()
        except (EOFError, OSError):
            raise _EndedError from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def end(self) -> str:
        """End it, if need be; how it ended."""
        self._connection.close()
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def _end(members: list[_Process]) -> None:
    """Each ends by itself when nothing can come any more. Who forgets a reader does not wait for that."""
    for member in members:
        threading.Thread(target=member.end, daemon=True).start()


def main() -> None:
    """The process: load the model, say what it is, and read until there is nobody to read for."""
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to the whole group; the server ends this one
        signal.signal(stop, signal.SIG_IGN)
    os.nice(BEHIND)
    connection = Connection(int(sys.argv[1]))
    with suppress(EOFError, OSError):  # the server is gone
        settings, threads = connection.recv()
        logging.config.dictConfig(log_config(settings.log_format, settings.log_level))
        try:
            reader = Reader.load(
                settings.model,
                device=settings.device,
                threads=threads,
                batch_size=settings.max_batch,
                prior=settings.prior,
                precision=settings.precision,
                traced=True,
            )
        except Exception as error:
            connection.send(_picklable(error))
            return
        connection.send(reader.description)
        while True:
            method, arguments, options = connection.recv()
            try:
                outcome = getattr(reader, method)(*arguments, **options)
            except Exception as error:
                outcome = _picklable(error)
            connection.send(outcome)


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(repr(error))
    return error
