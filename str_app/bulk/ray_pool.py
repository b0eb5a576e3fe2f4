"""Maps shards over actors of Ray, on this machine or a cluster whose machines see the same files."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from str_app.bulk.processes import R, S


@dataclass(frozen=True)
class RayOptions:
    """What each actor gets.

    Attributes:
        address: of the cluster; None: Ray on this machine, for this command.
        actors: number of actors; None: as many as the cluster has room for.
        cpus: of each actor: its engine's threads.
        gpus: of each actor; may be a fraction.
        memory: bytes of each actor, by which Ray places it.
    """

    address: str | None = None
    actors: int | None = None
    cpus: int = 1
    gpus: float = 0.0
    memory: int = 2**30


class _Actor:
    """Holds the task, and so the model, for all shards that it is given."""

    def __init__(self, task: Callable[[Any], Any]) -> None:
        self._task = task

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            result = self._task(pickle.loads(row["shard"]))
        except Exception as error:  # Ray would wrap it twice
            error.add_note(traceback.format_exc())
            result = error
        return {"result": pickle.dumps(result)}


def on_ray(task: Callable[[S], R], shards: Sequence[S], options: RayOptions) -> Iterator[R]:
    """The results of `task`, in the order in which they are done; see `in_processes`.

    Between driver and actors travel shards, which are paths and ranges, and results, which are counts: actors open the
    input and write the output themselves. Ray starts an actor that died again, and gives it its shard again.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    ours = not ray.is_initialized()
    if ours:
        ray.init(
            address=options.address or "local",  # None would join a cluster that someone left running here
            num_cpus=options.cpus * options.actors if options.address is None and options.actors else None,
            include_dashboard=False if options.address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = False
        if options.address is None:
            room = int(ray.cluster_resources().get("CPU", 1) // options.cpus) or 1
            actors: dict[str, Any] = {"size": min(options.actors or room, len(shards))}
        else:  # as machines join, so do actors
            actors = {"min_size": 1, "max_size": min(options.actors or len(shards), len(shards))}
        rows = [{"shard": pickle.dumps(shard)} for shard in shards]
        actor: Any = _Actor  # Ray's type of a row is none that a class can declare
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            actor,
            fn_constructor_args=(task,),
            # The second shard waits for the first: an actor is never idle, and Ray Data sees that more would be busy.
            compute=ActorPoolStrategy(**actors, max_tasks_in_flight_per_actor=2),
            num_cpus=options.cpus,
            num_gpus=options.gpus or None,
            memory=options.memory,
        )
        for row in results.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        if ours:
            ray.shutdown()
