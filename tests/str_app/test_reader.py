"""Reading with an engine whose pictures say exactly what they hold."""

from __future__ import annotations

import io
import math
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from str_app.buckets import bucket_sizes, split_into_buckets
from str_app.decoding.character_boxes import character_boxes
from str_app.errors import ImageError, StrAppError
from str_app.models.charset import PRINTABLE_94, Charset
from str_app.models.presets import weights_path
from str_app.policy import DEFAULT_POLICY
from str_app.reader import Reader
from tests.str_app.fake_engine import AS_PAINTED, CELLS, FakeEngine, paint

WORDS = [f"word{number}" for number in range(45)]


@pytest.fixture
def reader() -> Reader:
    return Reader(FakeEngine(), batch_size=8, policy=AS_PAINTED)


@given(st.text(alphabet=PRINTABLE_94, max_size=CELLS - 1))
@settings(max_examples=60, deadline=None)
def test_whatever_is_painted_is_read(text: str) -> None:
    upright = replace(AS_PAINTED, tall=math.inf)  # on its side a painted letter is a row of letters
    assert Reader(FakeEngine(), policy=upright).recognize(paint(text))[0].text == text


def test_paths_bytes_arrays_and_pil_images(reader: Reader, tmp_path: Path) -> None:
    image = Image.fromarray(paint("Stop!"))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    path = tmp_path / "word.png"
    path.write_bytes(stream.getvalue())
    forms = [path, str(path), stream.getvalue(), image, np.asarray(image)]
    assert [reading.text for reading in reader.recognize(forms)] == ["Stop!"] * 5
    for form in forms:
        assert [reading.text for reading in reader.recognize(form)] == ["Stop!"]
    stacked = np.stack([paint("one"), paint("two")])
    assert [reading.text for reading in reader.recognize(stacked)] == ["one", "two"]
    assert reader.recognize([]) == []


def test_order_is_kept_and_passes_have_few_sizes(reader: Reader) -> None:
    readings = reader.recognize([paint(word) for word in WORDS])
    assert [reading.text for reading in readings] == WORDS
    assert reader.engine.batches == [8, 8, 8, 8, 8, 4, 1]


@given(st.integers(0, 200), st.integers(1, 48))
def test_batch_sizes_add_up(count: int, largest: int) -> None:
    sizes = split_into_buckets(count, largest)
    assert sum(sizes) == count
    assert set(sizes) <= set(bucket_sizes(largest))
    assert sizes == sorted(sizes, reverse=True)


def test_usual_sizes() -> None:
    assert bucket_sizes(1) == [1]
    assert bucket_sizes(12) == [1, 2, 3, 4, 6, 8, 12]
    assert bucket_sizes(20) == [1, 2, 3, 4, 6, 8, 12, 16, 20]


def test_a_reading_does_not_depend_on_its_batch() -> None:
    crops = [paint(word, probability=0.5 + len(word) / 40) for word in WORDS]
    alone = [Reader(FakeEngine(), batch_size=1).recognize(crop)[0] for crop in crops]
    assert Reader(FakeEngine(), batch_size=32).recognize(crops) == alone


def test_a_reading_as_long_as_it_may_get_keeps_its_last_character(reader: Reader) -> None:
    # FACTS defect 1: slicing at an end token that never came drops a character.
    text = "ABCDEFGHIJKLMNOP"
    assert len(text) == reader.engine.max_length
    crop = paint(text)[:, : 8 * CELLS]
    assert reader.recognize(crop)[0].text == text


def test_confidence_is_the_product_up_to_and_including_the_end(reader: Reader) -> None:
    # FACTS defect 8: a minimum over all steps, the ones after the end too, says nothing.
    chances = [0.9, 0.6, 0.8]
    reading = reader.recognize(paint("cat", chances))[0]
    assert reading.confidence == pytest.approx(math.prod(chances) * 0.99, rel=0.01)
    assert [character.confidence for character in reading.characters] == pytest.approx(chances, rel=0.01)
    # A longer neighbour makes the batch run on; that must not change the shorter word's confidence.
    batched = reader.recognize([paint("cat", chances), paint("a-long-word", 0.3 + 0.3)])[0]
    assert batched.confidence == reading.confidence


def test_many_threads_share_a_reader(reader: Reader) -> None:
    # FACTS defect 10: a predictor that keeps the current image in itself mixes up its callers.
    def read(number: int) -> bool:
        words = [f"t{number}n{place}" for place in range(1 + number % 11)]
        found = reader.recognize([paint(word) for word in words], attention=True)
        return [reading.text for reading in found] == words

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(200)))


def test_boxes_are_in_pixels_of_the_image_given(reader: Reader) -> None:
    for scale in (1, 3):
        crop = paint("Box", scale=scale)
        boxes = [character.box for character in reader.recognize(crop)[0].characters]
        expected = [(8 * scale * place, 0, 8 * scale * (place + 1), 32 * scale) for place in range(3)]
        assert np.allclose(boxes, expected, atol=0.6 * scale)


def test_attention_comes_when_asked(reader: Reader) -> None:
    reading = reader.recognize(paint("Map"), attention=True)[0]
    assert reading.attention is not None
    assert reading.attention.shape == (4, 1, CELLS)
    assert reading.attention.argmax(axis=2).ravel().tolist() == [0, 1, 2, 3]
    assert reader.recognize(paint("Map"))[0].attention is None


def test_readings_with_attention_are_compared_without_it(reader: Reader) -> None:
    with_attention, again = (reader.recognize(paint("cat"), attention=True)[0] for _ in range(2))
    (without,) = reader.recognize(paint("cat"))
    assert with_attention == again == without
    assert len({with_attention, again, without}) == 1
    assert with_attention != reader.recognize(paint("cab"), attention=True)[0]


def test_beam_and_lexicon(reader: Reader) -> None:
    crops = [paint("cat", 0.6), paint("dog", 0.6)]
    greedy = reader.recognize(crops)
    assert [reading.text for reading in reader.recognize(crops, beam=3)] == [reading.text for reading in greedy]
    found = reader.recognize(crops, lexicon=["Bus", "dog", "cau"])  # "u" is the likeliest mistake for "t"
    assert [reading.text for reading in found] == ["cau", "dog"]
    assert found[0].confidence < greedy[0].confidence
    each = reader.read_crops(crops, lexicons=[["dog"], ["cat"]])
    assert [reading.text for reading in each] == ["dog", "cat"]


@pytest.mark.parametrize("words", [[], [""], ["naïve"], ["new york"], ["a" * 17], ["cat", "a" * 17]])
def test_a_lexicon_that_cannot_be_used(reader: Reader, words: list[str]) -> None:
    with pytest.raises(StrAppError, match="lexicon"):
        reader.recognize(paint("cat"), lexicon=words)


def test_a_crop_with_too_little_evidence_has_no_text() -> None:
    reader = Reader(FakeEngine(), policy=replace(AS_PAINTED, least_evidence=0.8))
    faint, clear, clear_at_first = paint("word", 0.7), paint("word", 0.9), paint("wordsmith", [0.9] * 5 + [0.6] * 4)
    readings = reader.read_crops([faint, clear, clear_at_first], attention=True)
    assert [reading.text for reading in readings] == ["", "word", "wordsmith"]
    assert (readings[0].confidence, readings[0].characters) == (0, ())
    assert readings[0].attention is not None
    assert len(readings[0].attention) == 1, "the end's"
    assert reader.read_crops([faint], lexicon=["word", "work"])[0].text == "word", "one of the words, in any case"
    assert Reader(FakeEngine()).read_crops([faint])[0].text == "word"


def test_an_improbable_reading_needs_more_evidence() -> None:
    doubtful, improbable = paint("word", 0.55), paint("wordsmiths", 0.55)
    policy = replace(DEFAULT_POLICY, improbable=0.01, improbable_evidence=0.6)
    readings = Reader(FakeEngine(), policy=policy).read_crops([doubtful, improbable])
    assert [reading.text for reading in readings] == ["word", ""]
    readings = Reader(FakeEngine(), policy=replace(policy, improbable=0.0)).read_crops([doubtful, improbable])
    assert [reading.text for reading in readings] == ["word", "wordsmiths"]


def test_a_crop_of_one_colour_has_no_text() -> None:
    crop = np.tile(paint("a", 0.99)[:, :8], (1, 5, 1))
    assert Reader(FakeEngine()).read_crops([crop])[0].text == ""
    guessing = Reader(FakeEngine(), policy=replace(DEFAULT_POLICY, blank=False))
    assert guessing.read_crops([crop])[0].text.startswith("aaaa")


def test_a_lexicon_may_be_read_once_only(reader: Reader) -> None:
    assert reader.recognize(paint("cau"), lexicon=iter(["bus", "cat"]))[0].text == "cat"


def test_no_text_has_no_confidence() -> None:
    blank = np.full((32, 64, 3), 250, np.uint8)
    blank[:, 40:] = 245  # not of one colour
    for policy in (DEFAULT_POLICY, replace(DEFAULT_POLICY, blank=False)):
        (reading,) = Reader(FakeEngine(), policy=policy).read_crops([blank])
        assert (reading.text, reading.confidence) == ("", 0.0)


def test_variants_are_of_what_can_hardly_be_read_and_have_one_look() -> None:
    hazy, unsettled, clear = paint("word", 0.45), paint("word", 0.86), paint("word", 0.98)
    engine = FakeEngine()
    Reader(engine).read_crops([clear, hazy, hazy])
    # Together in one look, two further looks at the doubtful ones, and nine variants of each.
    assert engine.batches == [3, 2, 2, 16, 2]
    engine = FakeEngine()
    Reader(engine).read_crops([unsettled])
    assert engine.batches == [1, 4], "four of what is only unsettled"
    for kept in (Reader(FakeEngine(), policy=AS_PAINTED), Reader(FakeEngine())):
        kept.read_crops([hazy], beam=None if kept.policy.unsettled == 0 else 1)
        assert sum(kept.engine.batches) <= 3, "switched off, or greedy"


def test_a_bad_image_is_named(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="image 2 of 3: not an image"):
        reader.recognize([paint("a"), b"nonsense", paint("b")])
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        reader.recognize([tmp_path / "gone.png"])
    with pytest.raises(ImageError, match="float32"):
        reader.recognize(paint("a").astype(np.float32))
    with pytest.raises(ImageError, match="no pixels"):
        reader.read_crops([np.zeros((0, 5, 3), np.uint8)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lexicon": "hello"}, "lexicon is the text 'hello': give a list of words"),
        ({"lexicon": 5}, "lexicon is a int: give a list of words"),
        ({"lexicons": 5}, "lexicons is a int: give a list of words for each crop"),
        ({"lexicon": ["cat", b"dog"]}, "lexicon has b'dog', a bytes"),
        ({"lexicon": ["cat", None]}, "lexicon has None"),
        ({"lexicons": ["cat"]}, "lexicons has a text"),
        ({"lexicons": "c"}, "lexicons has a text"),
        ({"lexicons": [["cat"], ["dog"]]}, "2 lexicons for 1 crops"),
        ({"lexicons": [None]}, "the lexicon of crop 1 is a NoneType: give a list of words"),
        ({"lexicons": [["cat"], 7]}, "the lexicon of crop 2 is a int: give a list of words"),
        ({"lexicons": [["cat"]], "lexicon": ["cat"]}, "either a lexicon or lexicons"),
        ({"characters": ["0", "9"]}, "characters is a list: give one text"),
        ({"characters": 9}, "characters is a int"),
        ({"characters": b"0-9"}, "characters is a bytes"),
    ],
)
def test_options_of_another_kind_are_refused(reader: Reader, options: dict[str, Any], message: str) -> None:
    """A text is a sequence too: `lexicon="hello"` was a lexicon of letters."""
    with pytest.raises(StrAppError, match=message):
        reader.read_crops([paint("cat")], **options)


@pytest.mark.parametrize("beam", ["8", 2.5])
def test_a_beam_is_a_whole_number(reader: Reader, beam: Any) -> None:
    with pytest.raises(StrAppError, match=r"beam is .* must be a whole number"):
        reader.recognize(paint("cat"), beam=beam)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "2", None, True, np.int64(0)])
def test_a_batch_size_is_a_whole_number(batch_size: Any) -> None:
    with pytest.raises(StrAppError, match=r"batch_size is .*: it must be a whole number, at least 1"):
        Reader(FakeEngine(), batch_size)


@pytest.mark.parametrize("number", [np.int64(2), np.uint8(2)])
def test_whole_numbers_may_be_numpys(number: Any) -> None:
    reader = Reader(FakeEngine(), batch_size=number)
    readings = reader.recognize([paint(word, 0.6) for word in ("one", "two", "three")], beam=number)
    assert readings == Reader(FakeEngine()).recognize([paint(word, 0.6) for word in ("one", "two", "three")], beam=2)
    assert type(reader.batch_size) is int


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "image 1 of 1: a NoneType is not an image"),
        (7, "a int is not an image"),
        ({b"a", b"b"}, "a set, which has no order"),
        ({"a": b"a"}, "a dict, which has no order"),
        (bytearray(b"a"), "a bytearray is not an image"),
        (io.BytesIO(b"a\nb"), "image 1 of 1: a BytesIO is not an image"),
        ([None], "image 1 of 1: a NoneType"),
        ([[paint("a")]], "image 1 of 1: a list"),
    ],
)
def test_what_is_no_image_is_refused(reader: Reader, images: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        reader.recognize(images)


def test_images_may_come_from_a_generator(reader: Reader) -> None:
    assert [reading.text for reading in reader.recognize(paint(word) for word in ("one", "two"))] == ["one", "two"]


@pytest.mark.parametrize("crops", [paint("cat"), [paint("cat")[:, :, 0]], [paint("cat").astype(float)], [b"cat"]])
def test_crops_are_colour_arrays(reader: Reader, crops: Any) -> None:
    with pytest.raises(ImageError, match="give uint8 arrays"):
        reader.read_crops(crops)


@pytest.mark.parametrize(
    "regions", ["0,0,9,9", b"0", [0, 0, 9, 9], np.array([0, 0, 9, 9]), None, 7, {(0, 0, 9, 9)}, {"box": [0, 0, 9, 9]}]
)
def test_regions_that_are_no_list_of_regions(reader: Reader, regions: Any) -> None:
    with pytest.raises(StrAppError, match=r"regions is .*: give a list of regions"):
        reader.recognize_regions(paint("cat"), regions)


def test_regions_may_be_an_array_or_come_from_a_generator(reader: Reader) -> None:
    boxes = [(0, 0, 32, 32), (8, 0, 32, 32)]
    of_array = reader.recognize_regions(paint("cat"), np.array(boxes))
    assert [reading.text for reading in of_array] == ["cat", "at"]
    assert reader.recognize_regions(paint("cat"), iter(boxes)) == of_array


def test_regions_are_read_with_the_options_of_crops(reader: Reader) -> None:
    (digits,) = reader.recognize_regions(paint("8a9"), [(0, 0, 32, 32)], characters="0-9")
    assert digits.text.isdigit()
    upside_down = np.rot90(paint("EXIT", [0.99, 0.99, 0.6, 0.99], scale=2), 2)
    (turned,) = reader.recognize_regions(upside_down, [(0, 0, 80, 64)], rotate=True)
    assert (turned.text, turned.rotation) == ("EXIT", 180)


def test_a_crop_may_be_a_masked_array(reader: Reader) -> None:
    """Variants of it, as of what can hardly be read, came out as numbers of 64 bits."""
    crop = paint("left", 0.3)
    assert reader.read_crops([np.ma.masked_array(crop, mask=True)]) == reader.read_crops([crop])


def test_wrong_arguments(reader: Reader) -> None:
    with pytest.raises(StrAppError, match="batch_size is 0"):
        Reader(FakeEngine(), batch_size=0)
    with pytest.raises(StrAppError, match="beam is 0"):
        reader.recognize(paint("a"), beam=0)


@given(
    maps=st.integers(1, 12).flatmap(
        lambda count: st.lists(st.lists(st.floats(0, 1), min_size=16, max_size=16), min_size=count, max_size=count)
    ),
    covered=st.integers(4, 128),
    width=st.integers(3, 900),
)
@settings(max_examples=200, deadline=None)
def test_boxes_keep_order_and_stay_inside(maps: list[list[float]], covered: int, width: int) -> None:
    attention = np.array(maps, dtype=np.float32)[:, None, :]
    boxes = character_boxes(attention, covered, (32, 128), (40, width))
    assert len(boxes) == len(maps)
    for x0, y0, x1, y1 in boxes:
        assert 0 <= x0 < x1 <= width + 1e-6
        assert (y0, y1) == (0, 40)
    for left, right in pairwise(boxes):
        assert left[2] == pytest.approx(right[0])


def test_a_character_alone_is_boxed_round_its_attention() -> None:
    attention = np.zeros((1, 1, 16), dtype=np.float32)
    attention[0, 0, 8] = 1.0
    assert character_boxes(attention, 128, (32, 128), (32, 128)) == [(60.0, 0.0, 76.0, 32.0)]
    assert character_boxes(np.zeros((0, 1, 16)), 128, (32, 128), (32, 128)) == []


def test_a_character_alone_is_as_wide_as_its_attention() -> None:
    attention = np.zeros((1, 1, 16))
    attention[0, 0, 4:12] = 1.0
    ((left, _, right, _),) = character_boxes(attention, 128, (32, 128), (32, 128))
    assert (left, right) == pytest.approx((32, 96), abs=1)


def test_outer_characters_reach_as_far_outwards_as_inwards() -> None:
    attention = np.eye(16)[[7, 9], None]  # centres at 60 and 76 of 128
    assert character_boxes(attention, 128, (32, 128), (20, 64)) == [(26.0, 0.0, 34.0, 20.0), (34.0, 0.0, 42.0, 20.0)]


def test_characters_seen_in_the_wrong_order_meet_in_the_middle() -> None:
    attention = np.eye(16)[[1, 9, 6, 14], None]  # centres at 12, 76, 52 and 116 of 128
    boxes = character_boxes(attention, 128, (32, 128), (32, 128))
    assert boxes[1][2] == pytest.approx((76 + 52) / 2, abs=128 / 16)


def test_a_real_network_reads_the_same_in_any_batch() -> None:
    from str_app.engines.torch_engine import TorchEngine
    from tests.str_app.engines.test_torch_engine import recognizer

    engine = TorchEngine(recognizer(0), {"temperature": 0.7}, precision="fp32")
    noise = np.random.default_rng(0)
    crops = [noise.integers(0, 256, (32, int(width), 3), dtype=np.uint8) for width in noise.integers(10, 200, 9)]
    policy = replace(DEFAULT_POLICY, blank=False)
    alone, together = (Reader(engine, batch_size=size, policy=policy).recognize(crops, beam=1) for size in (1, 64))
    assert len({reading.text for reading in alone}) > 1
    assert [reading.text for reading in together] == [reading.text for reading in alone]
    confidences = [character.confidence for reading in alone for character in reading.characters]
    assert [character.confidence for reading in together for character in reading.characters] == pytest.approx(
        confidences, rel=1e-3
    )


def test_blank_pictures_and_variants_are_options_of_loading() -> None:
    reader = Reader.load("small", blank=False, variants=False)
    assert reader.policy == replace(DEFAULT_POLICY, blank=False, unsettled=0.0)


FORK = """
import os, sys, threading
from str_app import Reader

reader = Reader.load("small", engine=ENGINE, threads=2, precision=PRECISION)
image = "samples/images/01.jpg"
(reading,) = reader.recognize(image)
stop = threading.Event()
def read():
    while not stop.is_set():
        reader.recognize([image] * 16)
busy = threading.Thread(target=read)
if BUSY:
    busy.start()
for number in range(10 if BUSY else 2):
    child = os.fork()
    if child == 0:
        if number % 3 == 0:  # ends as programs do, without ever reading
            sys.exit()
        right = reader.recognize(image)[0].text == reading.text
        sys.exit(not right)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize(
    ("engine", "precision", "busy"), [("torch", "fp32", False), ("auto", "auto", False), ("auto", "auto", True)]
)
def test_a_forked_child_reads_too(engine: str, precision: str, busy: bool) -> None:
    """Even if another thread of the parent was reading at that moment."""
    program = FORK.replace("ENGINE", repr(engine)).replace("PRECISION", repr(precision)).replace("BUSY", repr(busy))
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)


@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_a_reader_pickles_by_the_path_of_its_model(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Path("samples/images/01.jpg").absolute()
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(weights_path("small").read_bytes())
    policy = replace(DEFAULT_POLICY, beam=3)
    for model in ("small", weights):
        reader = Reader.load(model, engine=engine, threads=1, batch_size=7, prior=False, policy=policy)
        pickled = pickle.dumps(reader)
        assert len(pickled) < 10_000
        monkeypatch.chdir(tmp_path)
        copy = pickle.loads(pickled)
        monkeypatch.undo()
        assert (copy.batch_size, copy.prior, copy.policy) == (7, None, policy)
        assert copy.recognize(image) == reader.recognize(image)
    weights.unlink()
    with pytest.raises(StrAppError, match=r"own\.safetensors"):
        pickle.loads(pickled)


def test_a_word_of_a_lexicon_with_accents_of_their_own_has_as_many_characters_as_were_read() -> None:
    engine = FakeEngine()
    engine.charset = Charset(engine.charset.characters.replace("~", "\u00e9"))
    crop = paint("caf~")  # what the engine's last character stands for
    found = Reader(engine).recognize(crop, lexicon=["cafe\u0301", "other"], attention=True)[0]
    assert found.text == "cafe\u0301"
    assert [each.text for each in found.characters] == ["c", "a", "f", "\u00e9"]
    assert len(found.attention) == 5
