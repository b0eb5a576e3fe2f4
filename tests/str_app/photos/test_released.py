"""The released parts together, on drawn pictures: what a person expects of each."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from str_app.errors import StrAppError
from str_app.photos import pp_ocr
from str_app.photos.load import load_pipeline
from str_app.photos.photo_reader import PhotoReader
from str_app.reader import Reader

pytest.importorskip("rapidocr", reason="pip install 'str-app[photo]'")


@pytest.fixture(scope="module")
def reader() -> PhotoReader:
    return PhotoReader(Reader.load("small", threads=1), load_pipeline(threads=1))


def drawn(size: tuple[int, int], texts: dict[tuple[int, int], str], height: int, colour: int = 235) -> np.ndarray:
    """A picture with a line of text, its top left corner at each place; letters `height` pixels high."""
    image = Image.new("RGB", size, (colour, colour, colour))
    font = ImageFont.load_default(height)
    for place, text in texts.items():
        ImageDraw.Draw(image).text(place, text, fill=(20, 30, 60), font=font)
    return np.array(image)


SIGN = {(60, 60): "Mind the gap", (60, 150): "between train and platform"}


def test_a_pickled_reader_reads_the_same(reader: PhotoReader) -> None:
    photo = drawn((800, 300), SIGN, 44)
    assert pickle.loads(pickle.dumps(reader)).read(photo) == reader.read(photo)


def test_lines_come_apart_into_words(reader: PhotoReader) -> None:
    reading = reader.read(drawn((800, 300), SIGN, 44))
    assert reading.text == "Mind the gap\nbetween train and platform"
    assert not any(word.doubtful for word in reading.words)
    xs = [min(x for x, _ in word.quad) for word in reading.words]
    assert xs[:3] == sorted(xs[:3])
    assert xs[0] == pytest.approx(60, abs=8)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_lines_in_other_directions(reader: PhotoReader, turns: int) -> None:
    picture = np.ascontiguousarray(np.rot90(drawn((800, 300), SIGN, 44), turns))
    words = {word.text for word in reader.read(picture).words}
    assert {"between", "train", "platform", "Mind"} <= words


def test_a_slanted_line(reader: PhotoReader) -> None:
    image = Image.fromarray(drawn((800, 300), {(60, 120): "between train and platform"}, 44))
    picture = np.array(image.rotate(12, expand=True, fillcolor=(235, 235, 235), resample=Image.Resampling.BICUBIC))
    assert reader.read(picture).text == "between train and platform"


def test_a_picture_of_twelve_megapixels(reader: PhotoReader) -> None:
    reading = reader.read(drawn((4000, 3000), {(900, 1400): "Restaurant open"}, 260))
    assert reading.text == "Restaurant open"
    assert (reading.width, reading.height) == (4000, 3000)
    assert min(x for x, _ in reading.words[0].quad) == pytest.approx(900, abs=60)


def test_a_panorama(reader: PhotoReader) -> None:
    """Shrunk to 1280 pixels on its longer side, it would have letters of 7 pixels."""
    reading = reader.read(drawn((6000, 250), {(300, 100): "Harbour", (5200, 90): "Restaurant"}, 44))
    assert [word.text for word in reading.words] == ["Harbour", "Restaurant"]


def test_an_icon(reader: PhotoReader) -> None:
    assert reader.read(drawn((64, 64), {(8, 18): "GO"}, 26)).text in ("GO", "Go")


@pytest.mark.parametrize("size", [(64, 64), (640, 480), (33, 200)])
def test_a_blank_wall(reader: PhotoReader, size: tuple[int, int]) -> None:
    assert reader.read(drawn(size, {}, 10)).text == ""


def test_one_big_word(reader: PhotoReader) -> None:
    assert reader.read(drawn((1200, 600), {(60, 180): "HOTEL"}, 300)).text == "HOTEL"


def test_two_columns(reader: PhotoReader) -> None:
    left, right = ["Opening hours", "Monday to Friday", "from nine to five"], ["Ring the bell", "for deliveries"]
    texts = {(60, 60 + 60 * row): text for row, text in enumerate(left)}
    texts |= {(560, 60 + 60 * row): text for row, text in enumerate(right)}
    assert reader.read(drawn((1000, 320), texts, 32)).text.split("\n") == [*left, *right]


def test_letters_far_apart_are_one_word(reader: PhotoReader) -> None:
    texts = {(60 + 55 * place, 80): letter for place, letter in enumerate("SWAN")}
    assert reader.read(drawn((400, 220), texts, 40)).text == "SWAN"


def test_another_file_than_the_tested_one_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.onnx").write_bytes(b"another network")
    monkeypatch.setattr(pp_ocr, "_installed_file", lambda: tmp_path / "other.onnx")
    with pytest.raises(StrAppError, match=r"other\.onnx is not the file .* --no-deps rapidocr=="):
        pp_ocr.PpOcrDetector()


def test_the_tested_file_is_installed() -> None:
    assert pp_ocr.ADVICE.rpartition(" ")[2] in Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    assert hashlib.sha256(pp_ocr._installed_file().read_bytes()).hexdigest() == pp_ocr.SHA256


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pp_ocr, "find_spec", lambda name: None)
    with pytest.raises(StrAppError, match=r"pip install 'str-app\[photo\]'"):
        load_pipeline("pp-ocrv6-small")


def test_an_unknown_detector_is_named() -> None:
    with pytest.raises(StrAppError, match="not one of auto, pp-ocrv6-small"):
        load_pipeline("craft")
