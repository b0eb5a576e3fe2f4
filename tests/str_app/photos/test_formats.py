"""hOCR and ALTO: well formed, with every word, its place and its confidence."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np

from str_app.photos.formats import ALTO, XHTML, to_alto, to_hocr
from str_app.photos.photo_reader import PhotoPipeline, PhotoPolicy, PhotoReader
from str_app.photos.picture import DOUBTFUL, SURE, draw
from str_app.reader import Reader
from tests.str_app.fake_engine import FakeEngine
from tests.str_app.photos.painted_photo import KnownPlaces, photo_of

PHOTO, QUADS = photo_of({(20, 10): "Q&A", (60, 10): "<b>", (20, 60): "end"})
READING = PhotoReader(Reader(FakeEngine()), PhotoPipeline(KnownPlaces(QUADS), policy=PhotoPolicy(room=0.0))).read(PHOTO)


def test_hocr() -> None:
    text = to_hocr(READING, 'a "name" & more.jpg')
    page = ElementTree.fromstring(text.partition("\n")[2])
    names = {"x": XHTML}
    lines = page.findall(".//x:span[@class='ocr_line']", names)
    assert [[word.text for word in line] for line in lines] == [["Q&A", "<b>"], ["end"]]
    title = lines[0][0].attrib["title"]
    assert re.fullmatch(r"bbox 20 10 52 42; x_wconf \d+; poly 20 10 52 10 52 42 20 42", title)
    assert "bbox 0 0 640 240" in page.find(".//x:div", names).attrib["title"]


def test_alto() -> None:
    page = ElementTree.fromstring(to_alto(READING, "photo.jpg").encode())
    names = {"a": ALTO}
    strings = page.findall(".//a:String", names)
    assert [string.attrib["CONTENT"] for string in strings] == ["Q&A", "<b>", "end"]
    assert [strings[0].attrib[key] for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT")] == ["20", "10", "32", "32"]
    assert 0 < float(strings[0].attrib["WC"]) <= 1
    assert page.find(".//a:fileName", names).text == "photo.jpg"


def test_the_picture_outlines_every_word() -> None:
    picture = draw(PHOTO, READING)
    assert picture.shape == PHOTO.shape
    for quad in QUADS:
        x, y = np.array(quad[3], int)
        assert tuple(picture[min(y, 239), x + 3]) in (SURE, DOUBTFUL)
    assert (picture[200:] == PHOTO[200:]).all()


def test_names_that_no_document_can_hold() -> None:
    name = 'a "b"\x01\n\udce9.jpg'
    page = ElementTree.fromstring(to_hocr(READING, name).encode().partition(b"\n")[2])
    title = page.find(".//x:div", {"x": XHTML}).attrib["title"]
    assert title == 'image "a %22b%22\ufffd\ufffd\ufffd.jpg"; bbox 0 0 640 240'
    alto = ElementTree.fromstring(to_alto(READING, name).encode())
    assert alto.find(".//a:fileName", {"a": ALTO}).text == 'a "b"\ufffd\ufffd\ufffd.jpg'


def test_corners_stay_on_the_page() -> None:
    quad = ((-8.0, -3.0), (650.0, -3.0), (650.0, 250.0), (-8.0, 250.0))
    outside = replace(READING, words=(replace(READING.words[0], quad=quad), *READING.words[1:]))
    page = ElementTree.fromstring(to_hocr(outside, "p.jpg").partition("\n")[2])
    title = page.find(".//x:span[@class='ocrx_word']", {"x": XHTML}).attrib["title"]
    assert title.startswith("bbox 0 0 640 240;")
    assert title.endswith("poly 0 0 640 0 640 240 0 240")
    string = ElementTree.fromstring(to_alto(outside, "p.jpg").encode()).find(".//a:String", {"a": ALTO})
    assert [string.attrib[key] for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT")] == ["0", "0", "640", "240"]
    assert string.find(".//a:Polygon", {"a": ALTO}).attrib["POINTS"] == "0,0 640,0 640,240 0,240"
