"""Finds the installed fonts and the characters that each of them can draw."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.sample import DataError

SCAN_VERSION = 4
SYSTEM_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "C:/Windows/Fonts",
)
SUFFIXES = {".ttf", ".otf", ".woff"}
PRINTABLE = "".join(chr(code) for code in range(33, 127))
LETTERS = string.digits + string.ascii_letters
SHAPE = 16  # side in pixels of the bitmaps that are compared
DECORATIVE_SHARE = 0.16
# Signs use bolder and more upright fonts than books: factors of the weight by style names in file names.
STYLE_FACTORS = (
    ("bold|black|heavy|extrabold|-[79]00-", 1.6),
    ("thin|light|hairline|-300-", 0.5),
    ("italic|oblique|slanted", 0.55),
    ("mono|code|courier|typewriter|terminal", 0.3),  # rare on signs, and large families
)
# Share of letters nearest to the mean shape of the same letter: below this, not legible as Latin text ...
UNREADABLE_BELOW = 0.46
# ... and below this, a decorative font.
DECORATIVE_BELOW = 0.8
# Mean shapes of fewer fonts mean nothing.
FEWEST_FONTS_TO_COMPARE = 40


class FontError(DataError):
    """No font has the glyphs that are needed."""


@dataclass(frozen=True)
class Font:
    """One font file.

    Attributes:
        path: the file.
        glyphs: the printable ASCII characters it has. Lower-case letters drawn as capitals do not count, because the
            label of such a crop would have the wrong case.
        family: from the name table.
        weight: probability of this font.
    """

    path: str
    glyphs: frozenset[str]
    family: str
    weight: float


class FontSet:
    """Fonts in a fixed order, with weights. Small enough to send to worker processes."""

    def __init__(self, fonts: Sequence[Font]) -> None:
        if not fonts:
            raise FontError("the font set is empty: run scripts/install_fonts.sh, or give a folder of fonts")
        self.fonts = tuple(fonts)
        self._cumulative = np.cumsum([font.weight for font in fonts])
        self._cumulative /= self._cumulative[-1]

    def __len__(self) -> int:
        return len(self.fonts)

    def can_write(self, text: str) -> bool:
        """Whether a font has every glyph of `text`."""
        needed = frozenset(text)
        return any(needed <= font.glyphs for font in self.fonts)

    def choose(self, rng: np.random.Generator, text: str) -> Font:
        """A random font, by weight, among those with every glyph of `text`.

        Raises:
            FontError: no font has all of them.
        """
        needed = frozenset(text)
        for _ in range(12):
            index = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
            if needed <= self.fonts[index].glyphs:
                return self.fonts[index]
        capable = [font for font in self.fonts if needed <= font.glyphs]
        if not capable:
            raise FontError(f"none of the {len(self)} fonts has all the glyphs of {text!r}")
        cumulative = np.cumsum([font.weight for font in capable])
        return capable[int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))]


def find_fonts(folder: str | Path | None = None, cache: Path | None = None) -> FontSet:
    """All usable Latin fonts in `folder` and below, or of the system if None.

    Files are scanned once: results are kept in the user's cache folder, by path, modification time and size.

    Raises:
        FontError: no such folder, or no usable font.
    """
    folders = [Path(folder)] if folder is not None else [_expanded(name) for name in SYSTEM_FOLDERS]
    if folder is not None and not folders[0].is_dir():
        raise FontError(f"{folder}: no such folder of fonts")
    files = sorted(
        path
        for directory in folders
        if directory.is_dir()
        for path in directory.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    scans = _scan_all(files, cache if cache is not None else _cache_file())
    usable = [(path, scan) for path, scan in zip(files, scans, strict=True) if scan is not None]
    if not usable:
        where = str(folder) if folder is not None else "the system's font folders"
        raise FontError(
            f"no usable Latin font in {where} ({len(files)} font files scanned): "
            "run scripts/install_fonts.sh, or give a folder of .ttf or .otf files with --fonts"
        )
    return FontSet(_weighted(usable))


def _weighted(usable: list[tuple[Path, dict[str, Any]]]) -> list[Font]:
    """Fonts legible as Latin text, weighted so that neither large families nor decorative fonts dominate."""
    readable = _readability([scan["shapes"] for _, scan in usable])
    kept = [
        (path, scan, score) for (path, scan), score in zip(usable, readable, strict=True) if score >= UNREADABLE_BELOW
    ]
    # Packages install a family, with all its weights and widths, in one folder.
    groups = [path.parent for path, _, _ in kept]
    sizes = Counter(groups)
    decorative = [bool(score < DECORATIVE_BELOW) or "aenigma" in path.parts for path, _, score in kept]
    raw = [sizes[group] ** -0.7 * _style_factor(path.stem) for group, (path, _, _) in zip(groups, kept, strict=True)]
    total = {flag: sum(w for w, d in zip(raw, decorative, strict=True) if d is flag) for flag in (True, False)}
    share = {True: DECORATIVE_SHARE, False: 1 - DECORATIVE_SHARE} if total[False] else {True: 1.0, False: 0.0}
    if not total[True]:
        share[False] = 1.0
    return [
        Font(
            str(path),
            frozenset(scan["glyphs"]),
            str(scan["family"]),
            weight / total[is_decorative] * share[is_decorative],
        )
        for (path, scan, _), weight, is_decorative in zip(kept, raw, decorative, strict=True)
    ]


def _style_factor(name: str) -> float:
    factor = 1.0
    for pattern, share in STYLE_FACTORS:
        if re.search(pattern, name, re.IGNORECASE):
            factor *= share
    return factor


def _readability(shapes: list[str]) -> npt.NDArray[np.float64]:
    """Share of each font's letters whose nearest mean shape over all fonts is the same letter in either case."""
    if len(shapes) < FEWEST_FONTS_TO_COMPARE:
        return np.ones(len(shapes))
    packed = np.frombuffer(b"".join(base64.b64decode(text) for text in shapes), np.uint8)
    bits = np.unpackbits(packed).reshape(len(shapes), len(LETTERS), SHAPE * SHAPE).astype(np.float32)
    present = np.asarray(bits.any(axis=2))  # (fonts, letters)
    # Mean shapes are separate for light, regular and bold fonts, upright and slanted.
    columns = np.tile(np.arange(SHAPE) - (SHAPE - 1) / 2, SHAPE).astype(np.float32)
    rows = np.repeat(np.arange(SHAPE) - (SHAPE - 1) / 2, SHAPE).astype(np.float32)
    weight = bits.sum(axis=(1, 2)) / np.maximum(present.sum(axis=1), 1)
    slant = (bits @ (columns * rows)).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    kind = 3 * np.digitize(weight, np.quantile(weight, [1 / 3, 2 / 3])) + np.digitize(
        slant, np.quantile(slant, [0.2, 0.6])
    )
    means = np.concatenate(
        [bits[kind == k].sum(axis=0) / np.maximum(present[kind == k].sum(axis=0), 1)[:, None] for k in range(9)]
    )
    distances = (means**2).sum(axis=1) - 2 * (bits.reshape(-1, SHAPE * SHAPE) @ means.T)
    nearest = distances.argmin(axis=1).reshape(present.shape) % len(LETTERS)
    # Bitmaps have no size: o and O, s and S, 0 and O are alike.
    alike = np.array([ord(char) for char in LETTERS.lower().translate(str.maketrans("01", "oi"))])
    right = (alike[nearest] == alike[None, :]) & present
    return np.asarray(right.sum(axis=1) / np.maximum(present.sum(axis=1), 1), dtype=np.float64)


def _expanded(path: str) -> Path:
    """`~` stays for a user without a home, where `Path.expanduser` raises."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def _cache_file() -> Path | None:
    """None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    folder = _expanded(base)
    return folder / "str-app" / f"fonts-v{SCAN_VERSION}.json" if folder.is_absolute() else None


def _scan_all(files: list[Path], cache: Path | None) -> list[dict[str, Any] | None]:
    known: dict[str, Any] = {}
    try:
        stored = json.loads(cache.read_text()) if cache else {}
        known = stored if isinstance(stored, dict) else {}
    except (OSError, ValueError):
        pass  # no cache yet, or a damaged one: it is rewritten
    keys = []
    for path in files:
        status = path.stat()
        keys.append(f"{path.resolve()}|{status.st_mtime_ns}|{status.st_size}")
    new = [(key, path) for key, path in zip(keys, files, strict=True) if key not in known]
    if new:
        paths = [str(path) for _, path in new]
        if len(new) > 64:
            with ProcessPoolExecutor() as pool:
                scans: Iterable[dict[str, Any] | None] = list(pool.map(scan_font, paths, chunksize=16))
        else:
            scans = map(scan_font, paths)
        known.update({key: scan for (key, _), scan in zip(new, scans, strict=True)})
        if cache:
            _replace(cache, json.dumps(known))
    return [known[key] for key in keys]


def _replace(path: Path, text: str) -> None:
    """Write atomically, for other processes; a read-only home is not an error."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)


def scan_font(path: str) -> dict[str, Any] | None:
    """Family, glyphs and shapes of a font file, or None if it is not a usable Latin font.

    Raises:
        OSError: the system could not read it now.
    """
    from fontTools.ttLib import TTFont

    try:
        with TTFont(path, lazy=True, fontNumber=0) as font:
            mapped = set(font.getBestCmap() or {})
            names = font["name"]
            family = names.getDebugName(16) or names.getDebugName(1) or Path(path).stem
        drawn = _draw_all(path, [char for char in PRINTABLE if ord(char) in mapped])
    except Exception as error:  # the font libraries may raise anything on a damaged file
        # Of the system, such as too many open files, not of the font: None would be cached.
        if isinstance(error, OSError) and error.errno and not isinstance(error, PermissionError):
            raise
        return None
    _drop_placeholders(drawn)
    if not set(string.ascii_uppercase) <= set(drawn):
        return None
    if _draws_capitals_for_small(drawn):
        for char in string.ascii_lowercase:
            drawn.pop(char, None)
    empty = np.zeros((SHAPE, SHAPE), np.uint8)
    bits = np.stack([drawn[char][1] if char in drawn else empty for char in LETTERS])
    return {
        "family": str(family),
        "glyphs": "".join(sorted(drawn)),
        "shapes": base64.b64encode(np.packbits(bits).tobytes()).decode(),
    }


def _draw_all(path: str, chars: list[str]) -> dict[str, tuple[int, npt.NDArray[np.uint8]]]:
    """Height in pixels and SHAPE×SHAPE bitmap of each glyph that is not empty and not oversized."""
    from PIL import ImageFont

    font = ImageFont.truetype(path, 48, layout_engine=ImageFont.Layout.BASIC)
    drawn = {}
    for char in chars:
        mask, _ = font.getmask2(char, mode="L", anchor="ls")
        width, height = mask.size
        if not (0 < width < 400 and 0 < height < 400):
            continue
        ink = np.frombuffer(bytes(mask), np.uint8).reshape(height, width) > 96
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        if ink.sum() < 6:
            continue
        tight = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8) * 255
        shape = cv2.resize(tight, (SHAPE, SHAPE), interpolation=cv2.INTER_AREA) > 127
        drawn[char] = (int(rows[-1] - rows[0] + 1), shape.astype(np.uint8))
    return drawn


def _drop_placeholders(drawn: dict[str, tuple[int, npt.NDArray[np.uint8]]]) -> None:
    """Remove placeholders: the box or cross that some fonts have for every missing character."""
    # Scaled to a square, I, l, |, - and . are solid bitmaps.
    shapes = {char: shape.tobytes() for char, (_, shape) in drawn.items() if shape.mean() < 0.97}
    counts = Counter(shapes.values())
    for char, shape in shapes.items():
        if counts[shape] >= 3:
            del drawn[char]


def _draws_capitals_for_small(drawn: dict[str, tuple[int, npt.NDArray[np.uint8]]]) -> bool:
    """Whether a, e, g … look like A, E, G …, as in all-capital and small-capital fonts."""
    pairs = [(char, char.upper()) for char in "abdefghnqrty" if char in drawn and char.upper() in drawn]
    if not pairs:
        return False
    same = [float((drawn[small][1] == drawn[capital][1]).mean()) for small, capital in pairs]
    return float(np.median(same)) > 0.79


def fingerprint(fonts: FontSet) -> str:
    """Short hash of file names, glyphs and weights, to record with a data set."""
    digest = hashlib.sha256()
    for font in fonts.fonts:
        digest.update(f"{Path(font.path).name}|{''.join(sorted(font.glyphs))}|{font.weight:.12g}\n".encode())
    return digest.hexdigest()[:12]
