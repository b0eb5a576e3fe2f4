"""A data set in several LMDBs, `shard-000000.lmdb` and so on, as one: what `str-app synth --shard-size` writes."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

from str_app.datasets.lmdb_source import LmdbSource
from str_app.datasets.sample import DataError, Sample
from str_app.datasets.text_files import read_json_object

PATTERN = "shard-*.lmdb"
DESCRIPTION = "shards.json"  # written before the first shard: what all of them are


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` of a data set lies."""
    return folder / f"shard-{number:06d}.lmdb"


def has_shards(folder: Path) -> bool:
    """Whether a folder is a data set in shards."""
    return next(folder.glob(PATTERN), None) is not None


def read_description(folder: Path) -> dict[str, Any]:
    """What all shards of a folder are.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / DESCRIPTION
    advice = "remove the folder and draw the crops again with `str-app synth`"
    try:
        description = read_json_object(path)
    except DataError as error:
        raise DataError(f"{error}; {advice}") from None
    if not isinstance(description.get("count"), int):
        raise DataError(f"{path}: no number of crops; {advice}")
    return description


class ShardedSource:
    """Random access to the samples of all shards, in the order of their names. Safe to pickle and to fork.

    Each shard that has been read stays open: one file each.

    Args:
        path: the folder.

    Raises:
        DataError: no shards in it, fewer crops than they shall have, or a damaged file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.shards = [LmdbSource(shard) for shard in sorted(self.path.glob(PATTERN))]
        if not self.shards:
            raise DataError(f"{self.path}: no {PATTERN} in this folder")
        self._ends = list(accumulate(len(shard) for shard in self.shards))
        described = (self.path / DESCRIPTION).is_file()
        wanted = read_description(self.path)["count"] if described else len(self)
        if len(self) != wanted:
            raise DataError(
                f"{path}: {len(self)} of {wanted} crops: the `str-app synth` run that writes it has not finished"
            )

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.absolute().name

    def __len__(self) -> int:
        return self._ends[-1]

    def __repr__(self) -> str:
        return f"ShardedSource({str(self.path)!r})"

    def __getitem__(self, index: int) -> Sample:
        """See `LmdbSource`; so are the others."""
        shard, inner = self._locate(index)
        return shard[inner]

    def image_bytes(self, index: int) -> bytes:
        """The encoded image as stored."""
        shard, inner = self._locate(index)
        return shard.image_bytes(inner)

    def label(self, index: int) -> str:
        """The label at `index`."""
        shard, inner = self._locate(index)
        return shard.label(inner)

    def identifier(self, index: int) -> str:
        """The sample's name, below that of its shard."""
        shard, inner = self._locate(index)
        return f"{shard.path.name}/{shard.identifier(inner)}"

    def _locate(self, index: int) -> tuple[LmdbSource, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {self.path}, which has {len(self)} samples")
        number = bisect_right(self._ends, index)
        return self.shards[number], index - (self._ends[number - 1] if number else 0)
