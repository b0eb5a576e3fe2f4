"""A folder of crops: images, and `labels.tsv` with lines of `path TAB text`."""

from __future__ import annotations

import errno
import stat
import unicodedata
from pathlib import Path

from str_app.datasets.image_decoding import decode_image
from str_app.datasets.sample import DataError, Sample, UnreadableSample
from str_app.datasets.text_files import read_tab_separated

LABELS = "labels.tsv"
MAX_BYTES = 256 * 2**20  # of one image file


def image_path(root: Path, name: str) -> Path:
    """The file `name` in `root`.

    If there is none, backslashes are taken for slashes, as Windows writes them, and accents as characters of their own,
    or not, as macOS and others spell the names of the same files.
    """
    path = root / name
    if ("\\" not in name and name.isascii()) or _exists(path):
        return path
    name = name.replace("\\", "/")
    spellings = [root / unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    return next((other for other in spellings if _exists(other)), root / name)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is too long, say
        return False


def read_image_file(path: Path) -> bytes:
    """The bytes of a file that a list names, which may be anything.

    Raises:
        OSError: it cannot be read, is a pipe, socket or device, or is larger than `MAX_BYTES`.
    """
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):  # reading it may never end
        raise OSError(errno.EINVAL, "a pipe, socket or device, not a file")
    with path.open("rb") as file:
        # Not MAX_BYTES alone: Python allocates what it is asked to read.
        content = file.read(min(found.st_size, MAX_BYTES) + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"larger than {MAX_BYTES / 2**20:g} MiB")
    return content


class FolderSource:
    """Random access to the crops of a folder.

    Args:
        path: the folder; `labels.tsv` in it holds paths relative to it.

    Raises:
        DataError: no `labels.tsv`, no samples in it, or see `read_tab_separated`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        labels = self.path / LABELS
        if not labels.is_file():
            raise DataError(f"{self.path}: no {LABELS} here (lines of `path TAB text`, paths relative to this folder)")
        self._samples = read_tab_separated(labels)
        if not self._samples:
            raise DataError(f"{labels}: no samples")

    @property
    def name(self) -> str:
        """The name of the folder."""
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
        """The encoded image as stored. Raises UnreadableSample if the file cannot be read."""
        path = image_path(self.path, self.identifier(index))
        try:
            return read_image_file(path)
        except OSError as error:
            raise UnreadableSample(f"{path}: {error.strerror}") from error

    def label(self, index: int) -> str:
        """The label at `index`, as written."""
        return self._pair(index)[1]

    def identifier(self, index: int) -> str:
        """The image's path relative to the folder, as written in `labels.tsv`."""
        return self._pair(index)[0]

    def _pair(self, index: int) -> tuple[str, str]:
        if not 0 <= index < len(self._samples):
            raise IndexError(f"sample {index} of {self.path}, which has {len(self._samples)} samples")
        return self._samples[index]
