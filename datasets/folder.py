"""A folder of crops with their labels: images and `labels.tsv`, one `path TAB text` a line."""

from __future__ import annotations

from pathlib import Path

from str_app.datasets.image_decoding import decode_image
from str_app.datasets.sample import DataError, Sample, UnreadableSample

LABELS = "labels.tsv"


def read_tab_separated(path: str | Path) -> list[tuple[str, str]]:
    """Lines of `key TAB text`, split on the first tab only: everything after it belongs to the text, quotes and all.

    A byte-order mark, a carriage return before the line feed and empty lines are passed over.

    Raises:
        DataError: no such file, not UTF-8, or a line without a tab.
    """
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        key, tab, text = line.partition("\t")
        if not tab:
            raise DataError(f"{path} line {number}: no tab between path and text")
        pairs.append((key, text))
    return pairs


def read_lines(path: str | Path) -> list[str]:
    """Lines of a UTF-8 file, ended by line feeds alone: labels may hold the other separators of Unicode.

    Raises:
        DataError: no such file, or not UTF-8.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} line {line}: not UTF-8 ({error.reason}): save the file as UTF-8") from None
    return [line.removesuffix("\r") for line in content.split("\n")]


class FolderSource:
    """Random access to a folder's crops.

    Args:
        path: the folder; `labels.tsv` in it holds paths relative to it.

    Raises:
        DataError: no `labels.tsv`, a line without a tab, or no line at all.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        labels = self.path / LABELS
        if not labels.is_file():
            raise DataError(f"{self.path}: no {LABELS} here (lines of `path TAB text`, paths relative to the folder)")
        self._samples = read_tab_separated(labels)
        if not self._samples:
            raise DataError(f"{labels}: no samples")

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.absolute().name

    def __len__(self) -> int:
        return len(self._samples)

    def __repr__(self) -> str:
        return f"FolderSource({str(self.path)!r})"

    def __getitem__(self, index: int) -> Sample:
        """Sample at `index` in [0, len).

        Raises:
            IndexError: `index` is outside.
            UnreadableSample: the image is missing or cannot be decoded.
        """
        encoded = self.image_bytes(index)
        try:
            return Sample(decode_image(encoded), self.label(index))
        except DataError as error:
            raise UnreadableSample(f"{self.path / self.identifier(index)}: {error}") from error

    def image_bytes(self, index: int) -> bytes:
        """The encoded image. Raises UnreadableSample where the file cannot be read."""
        path = self.path / self.identifier(index)
        try:
            return path.read_bytes()
        except OSError as error:
            raise UnreadableSample(f"{path}: {error.strerror}") from error

    def label(self, index: int) -> str:
        """The label at `index`, as written."""
        return self._at(index)[1]

    def identifier(self, index: int) -> str:
        """The image's path relative to the folder, as written in `labels.tsv`."""
        return self._at(index)[0]

    def _at(self, index: int) -> tuple[str, str]:
        if not 0 <= index < len(self._samples):
            raise IndexError(f"sample {index} of {self.path}, which has {len(self._samples)}")
        return self._samples[index]
