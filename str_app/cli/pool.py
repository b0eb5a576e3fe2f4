"""Options of verbs that may use several processes or Ray, and the pool that they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from str_app.bulk.ray_pool import RayOptions

Ray = Annotated[bool, typer.Option("--ray", help="Use Ray: the cluster of --ray-address, else this machine.")]
RayAddress = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", envvar="RAY_ADDRESS", help="Cluster of --ray, such as auto or ray://host:10001."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of processes. Default: 1; with --ray, as many actors as fit."),
]


def make_pool(workers: int | None, ray: RayOptions | None) -> Callable[[Any, Sequence[Any]], Iterable[Any]]:
    """Maps a task over shards: on Ray, in processes, or in this one."""
    if ray is not None:
        from str_app.bulk.ray_pool import on_ray

        return lambda task, shards: on_ray(task, shards, ray)
    if workers is not None and workers > 1:
        from str_app.bulk.processes import in_processes

        return lambda task, shards: in_processes(task, shards, workers)
    return map
