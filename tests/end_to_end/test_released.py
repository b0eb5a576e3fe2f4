"""The released weights are here, small enough, and read the samples."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from str_app import Reader
from str_app.datasets.folder import FolderSource
from str_app.models.checkpoint import read_header
from str_app.models.presets import weights_path

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reader():
    return Reader.load("small")


def test_small_enough_to_ship():
    assert weights_path("small").stat().st_size <= 25e6


def test_reads_most_of_the_samples(reader):
    """Mismatched preprocessing or charset would read none; how well it reads is measured by `str-app evaluate`."""
    samples = FolderSource(ROOT / "samples")
    readings = reader.read_crops([samples[index].image for index in range(len(samples))])
    wrong = [
        (samples.label(index), reading.text)
        for index, reading in enumerate(readings)
        if reading.text.lower() != samples.label(index).lower()
    ]
    assert len(wrong) < 5, wrong


def test_confidences_are_calibrated(reader):
    """The checkpoint carries a fitted temperature and what it was chosen on."""
    assert reader.info["temperature"] != 1.0
    assert {row["name"] for row in reader.info["metrics"]["validation"]} >= {"IIIT5K_train", "IC15_train"}


def test_the_model_card_tells_the_same():
    """Validation numbers of the card are those in the checkpoint."""
    card = (ROOT / "models/weights/small.md").read_text(encoding="utf-8")
    for row in read_header(weights_path("small"))["info"]["metrics"]["validation"]:
        assert re.search(rf"\| {row['name']} +\| +{row['n']} \| +{row['accuracy']:.2f} \|", card), row["name"]


def spaced(text, gap):
    """A line of spaced characters, dark on light."""
    crop = np.full((44, 20 + len(text) * (20 + gap), 3), 225, np.uint8)
    for index, character in enumerate(text):
        place = (12 + index * (20 + gap), 34)
        cv2.putText(crop, character, place, cv2.FONT_HERSHEY_DUPLEX, 1.0, (25, 25, 25), 2, cv2.LINE_AA)
    return crop


def test_a_spaced_code_is_read_without_a_letter_twice(reader):
    """It is read in three parts; joined by place alone it was XJK64V64ANEB65."""
    (reading,) = reader.read_crops([spaced("XJK64VG4ANEB65", 24)])
    assert reading.text == "XJK64VG4ANEB65"


def test_a_picture_without_text_reads_as_none(reader):
    column = np.linspace(60, 200, 40)[:, None, None]
    pictures = {
        "flat": np.full((32, 100, 3), 128, np.uint8),
        "gradient": np.broadcast_to(column, (40, 120, 3)).astype(np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (48, 160, 3), dtype=np.uint8),
    }
    readings = reader.read_crops(pictures.values())
    assert {name: reading.text for name, reading in zip(pictures, readings, strict=True)} == dict.fromkeys(pictures, "")
    guesses = Reader.load("small", blank=False).read_crops(pictures.values())
    assert all(reading.text for reading in guesses)


def test_a_character_in_an_upright_frame_is_not_turned(reader):
    """On its side or upside down a character is another one, often a surer one: J is C, 9 is 6, 0 is 9.

    One of the 24, the thin J, is read as U, whichever way it is looked at.
    """
    characters = "0123456789ABCDEFGHIJKLMN"
    frames = [np.full((44, 24, 3), 220, np.uint8) for _ in characters]
    for frame, character in zip(frames, characters, strict=True):
        cv2.putText(frame, character, (2, 32), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (30, 30, 30), 1, cv2.LINE_AA)
    for rotate in (False, True):
        readings = list(reader.read_crops(frames, rotate=rotate))
        assert {reading.rotation for reading in readings} == {0}
        assert "".join(reading.text for reading in readings) in (characters, characters.replace("J", "U"))


def test_a_character_that_could_be_two_is_read(reader):
    """O or 0: each has half of the probability."""
    frame = cv2.putText(np.full((44, 24, 3), 220, np.uint8), "O", (2, 32), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (30,) * 3, 2)
    assert reader.read_crops([frame])[0].text in ("O", "0", "o")


def rising(word, degrees):
    """The upright box of a word that rises so steeply: 100 pixels high, blurred and noisy."""
    font = ImageFont.load_default(60)
    left, top, right, bottom = font.getbbox(word)
    line = Image.new("RGB", (int(right - left) + 16, int(bottom - top) + 16), (30, 60, 120))
    ImageDraw.Draw(line).text((8 - left, 8 - top), word, (230, 220, 60), font)
    turned = line.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(30, 60, 120))
    small = turned.resize((round(turned.width * 100 / turned.height), 100), Image.Resampling.BOX)
    blurred = np.asarray(small.filter(ImageFilter.GaussianBlur(2.5)), dtype=np.float32)
    noise = np.random.default_rng(0).normal(0, 30, blurred.shape)
    return np.clip(blurred + noise, 0, 255).astype(np.uint8)


def test_variants_read_words_that_rise_steeply(reader):
    words = ["LIBRARY", "Brewing", "TERMINAL", "Orchard", "PHARMACY", "Gallery", "restaurant", "STATION", "Bookshop"]
    labels = [word for word in words for _ in range(3)]
    crops = [rising(word, degrees) for word in words for degrees in (-32, 32, 38)]
    right = [
        sum(reading.text == label for reading, label in zip(reader.read_crops(crops, level=level), labels, strict=True))
        for level in (False, True)
    ]
    assert right[0] >= right[1] + 3
