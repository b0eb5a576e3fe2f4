"""The model in separate processes, so that it and the event loop never wait for each other's interpreter lock."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import signal
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any

from str_app.errors import StrAppError
from str_app.pipeline import CanvasReader, Description
from str_app.reading import Reading
from str_app.serve.inference.jobs import NICENESS
from str_app.serve.operations import memory
from str_app.serve.operations.logs import configure_logging, logger
from str_app.serve.operations.metrics import Usage
from str_app.serve.operations.usage import UsageRecord
from str_app.serve.settings import Settings
from str_app.views import Canvas

# Spawned, not forked: forking a process with threads is unsafe, and the children share nothing with the server.
CONTEXT = multiprocessing.get_context("spawn")
MAX_STARTS = 3  # of a replacement that ends while it loads, before its batch fails


class ModelProcesses(CanvasReader):
    """Reads canvases in processes, each with its own model and one batch at a time.

    A process that ends unexpectedly (killed for memory, say) is replaced, and its batch is read again. All processes
    end when this object is closed or garbage-collected, and when the server ends in any way.

    Args:
        settings: the model and how it reads.
        processes: how many.
        threads: cores of each.
        record: where they are counted, together with those of other readers of the same server.

    Raises:
        Exception: from loading the model; StrAppError also if a process ends while it loads.
    """

    def __init__(self, settings: Settings, processes: int, threads: int, record: UsageRecord | None = None) -> None:
        self._idle: SimpleQueue[_ModelProcess] = SimpleQueue()
        self._warm_up_lock = threading.Lock()
        self._warm = False
        self._record = record = record or UsageRecord()
        self._members = members = [_ModelProcess(settings, threads, record) for _ in range(processes)]
        self.close = weakref.finalize(self, _end_all, members)
        # multiprocessing joins its children at exit, and they end only when their pipe is closed: close it before.
        self.close.atexit = False
        atexit.register(self.close)
        try:
            description, *_ = [member.wait_until_loaded() for member in members]
        except BaseException:
            self.close()
            raise
        for member in members:
            self._idle.put(member)
        super().__init__(description)

    @property
    def usage(self) -> Usage:
        """What all processes of the record use and have used."""
        return self._record.usage

    def warm_up(self, sizes: Sequence[int]) -> None:
        """See `CanvasReader`; done once, in all processes."""
        with self._warm_up_lock:
            if not self._warm:
                members = [self._idle.get() for _ in self._members]
                # Each on a thread: all answers are awaited, so that none stays in its pipe.
                with ThreadPoolExecutor(len(members)) as pool:
                    done = [pool.submit(member.warm_up, sizes) for member in members]
                for member in members:
                    self._idle.put(member)
                try:
                    for each in done:
                        each.result()
                except _ProcessEndedError:
                    raise StrAppError("a model process ended while it warmed up, perhaps for lack of memory") from None
                self._warm = True

    def read_canvases(self, canvases: Sequence[Canvas], *, attention: bool = False) -> list[Reading]:
        """See `CanvasReader`."""
        member = self._idle.get()
        read = partial(member.call, "read_canvases", canvases, attention=attention)
        try:
            readings: list[Reading] = read()
        except _ProcessEndedError:
            member.replace()
            readings = read()
        finally:
            self._idle.put(member)
        return readings

    def use_threads(self, count: int) -> None:
        """Does nothing: the processes keep the threads they were started with."""


class _ProcessEndedError(Exception):
    """The process is gone."""


class _ModelProcess:
    """One process and the pipe to it."""

    def __init__(self, settings: Settings, threads: int, record: UsageRecord) -> None:
        self._settings = settings
        self._threads = threads
        self._record = record
        self.start()

    def start(self) -> None:
        """Start the process, which begins to load the model; `wait_until_loaded` waits for that."""
        _ = self._record.usage  # to start a process takes those that have ended from /proc
        self._connection, theirs = CONTEXT.Pipe()
        with theirs:
            self._process = CONTEXT.Process(target=_run, args=(theirs, self._settings, self._threads), daemon=True)
            self._process.start()
        self._record.add(self.pid)

    def wait_until_loaded(self) -> Description:
        """Wait for the model.

        Raises:
            Exception: from loading it. StrAppError: the process has ended.
        """
        try:
            description: Description = self.result()
        except _ProcessEndedError:
            raise self._load_failure() from None
        self._description = description
        return description

    def warm_up(self, sizes: Sequence[int]) -> None:
        """See `CanvasReader`; a process that ends meanwhile is replaced once.

        Raises:
            Exception: as from `replace`. _ProcessEndedError: the replacement ended too.
        """
        try:
            self.call("warm_up", sizes)
        except _ProcessEndedError:
            self.replace()
            self.call("warm_up", sizes)

    def replace(self) -> None:
        """Start another process in its place and wait until it has loaded.

        A replacement that ends while it loads has not seen the batch, so the batch is not to blame: try again. It loads
        what the file holds now; if that is another model than the server's, an error is logged.

        Raises:
            Exception: as from `wait_until_loaded`.
        """
        for _ in range(MAX_STARTS):
            logger.error("model process %s ended (%s): starting another", self.pid, self.end())
            self._record.count_restart()
            self.start()
            with suppress(_ProcessEndedError):
                if self.result() != self._description:
                    logger.error(
                        "model process %s loaded another model than the other processes, since %s was replaced: reload "
                        "with SIGHUP",
                        self.pid,
                        self._settings.model,
                    )
                return
        raise self._load_failure()

    def _load_failure(self) -> StrAppError:
        return StrAppError(f"the model process ended while it loaded ({self.end()})")

    @property
    def pid(self) -> int:
        assert self._process.pid is not None, "it has been started"
        return self._process.pid

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the `CanvasReader` there and return its result; see `result` for errors."""
        self.send(method, *arguments, **options)
        return self.result()

    def send(self, method: str, *arguments: Any, **options: Any) -> None:
        """Have a method of the `CanvasReader` called there; `result` waits for what it returns.

        Raises:
            _ProcessEndedError: the process is gone.
        """
        try:
            self._connection.send((method, arguments, options))
        except OSError:
            raise _ProcessEndedError from None

    def result(self) -> Any:
        """What the last call returned, or at first the `Description`.

        Raises:
            Exception: what was raised there. _ProcessEndedError: the process is gone.
        """
        try:
            outcome = self._connection.recv()
        except (EOFError, OSError):
            raise _ProcessEndedError from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def end(self) -> str:
        """End the process if it still runs; says how it ended."""
        self._connection.close()
        if not wait([self._process.sentinel], 10):
            self._process.kill()
        self._record.remove(self.pid)
        self._process.join()
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _end_all(members: list[_ModelProcess]) -> None:
    """Close the pipes, by which the processes end; threads wait for that, so that garbage collection does not."""
    for member in members:
        threading.Thread(target=member.end, daemon=True).start()


def _run(connection: Connection, settings: Settings, threads: int) -> None:
    """The process: load the model, send its `Description`, then answer calls until the pipe is closed."""
    # Signals are sent to the whole process group, but only the server decides when to stop.
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)
    os.nice(NICENESS)
    configure_logging(settings.log_format, settings.log_level)
    from str_app.reader import Reader

    with suppress(EOFError, OSError):  # the server is gone
        try:
            reader = Reader.load(
                settings.model,
                device=settings.device,
                threads=threads,
                batch_size=settings.max_batch,
                prior=settings.prior,
                blank=settings.blank,
                variants=settings.variants,
                engine=settings.engine,
                precision=settings.precision,
            )
        except Exception as error:
            connection.send(_picklable(error))
            return
        if not reader.engine.caches_shapes:  # torch would ask for them again with every batch
            memory.release_large_blocks()
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
