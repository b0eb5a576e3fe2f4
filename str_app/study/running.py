"""Runs all parts of a study, several at a time."""

from __future__ import annotations

import functools
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from str_app.datasets.processes import end_with_parent
from str_app.study.experiment import Experiment, Run
from str_app.study.report import file_name
from str_app.study.studies import STUDIES, Scale
from str_app.study.variants import Variant


@dataclass(frozen=True)
class Plan:
    """A study and its size; sent to the worker processes.

    Attributes:
        study: a name in `STUDIES`.
        scale: its size.
        data: folder of the corpora.
        lengths: replace the study's own lengths unless empty.
        out: folder of the report; the runs are kept in `out/runs`.
    """

    study: str
    scale: Scale
    data: Path
    lengths: tuple[int, ...]
    out: Path


@dataclass(frozen=True)
class _Job:
    plan: Plan
    experiment: int
    variant: Variant
    seed: int


def run_study(
    plan: Plan, variants: Sequence[Variant], seeds: int, workers: int, report: Callable[[str], None]
) -> list[tuple[Experiment, list[Run]]]:
    """Run every experiment with every variant and seed; finished runs in `plan.out` are not repeated.

    Args:
        plan: what to run.
        variants: the variants to compare.
        seeds: number of seeds, from 0.
        workers: number of processes, with one thread each.
        report: called with a line about each finished run.

    Raises:
        StrAppError: a corpus is missing or unusable.
        KeyboardInterrupt: SIGINT or SIGTERM; unfinished runs have written their state.
    """
    experiments = _experiments(plan)
    jobs = [
        _Job(plan, number, variant, seed)
        for number in range(len(experiments))
        for seed in range(seeds)
        for variant in variants
    ]
    runs: dict[_Job, Run] = {}
    in_process = ((job, _run(job)) for job in jobs)
    for job, run in in_process if workers == 1 else _parallel(jobs, workers):
        runs[job] = run
        metric = experiments[job.experiment].metric
        label = f"{run.experiment}, {run.variant}, seed {run.seed}"
        result = (
            f"{metric.name} {run.value(metric):.4g}" if run.diverged_at is None else f"diverged at {run.diverged_at}"
        )
        report(f"{len(runs)} of {len(jobs)}: {label}: {result} ({run.seconds:.0f} s)")
    return [
        (experiment, [runs[job] for job in jobs if job.experiment == number])
        for number, experiment in enumerate(experiments)
    ]


def _parallel(jobs: Sequence[_Job], workers: int) -> Iterator[tuple[_Job, Run]]:
    previous = signal.signal(signal.SIGTERM, _interrupt)
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    try:
        with ProcessPoolExecutor(workers, context, _start_worker) as pool:
            futures = {pool.submit(_run_in_worker, job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:
                for child in multiprocessing.active_children():
                    child.terminate()  # ends its run, which writes its state
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt(signum)


_stopping = False  # in a worker process


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches workers, too: the parent stops them
    signal.signal(signal.SIGTERM, _stop)
    end_with_parent()


def _stop(signum: int, frame: object) -> None:
    global _stopping
    _stopping = True


def _run_in_worker(job: _Job) -> Run:
    """`_run`; after a signal the jobs that the pool has handed to this process already are not begun."""
    if _stopping:
        raise KeyboardInterrupt
    try:
        return _run(job)
    except KeyboardInterrupt:
        _stop(signal.SIGTERM, None)
        raise


def _run(job: _Job) -> Run:
    experiment = _experiments(job.plan)[job.experiment]
    folder = job.plan.out / "runs" / file_name(experiment.name)
    folder.mkdir(parents=True, exist_ok=True)
    return experiment.run(job.variant, job.seed, folder, watch=job.seed == 0)


@functools.cache
def _experiments(plan: Plan) -> list[Experiment]:
    return STUDIES[plan.study].experiments(plan.scale, plan.data, plan.lengths)
