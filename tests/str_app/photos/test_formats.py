"""hOCR and ALTO: well formed, with every word, its place and its confidence."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from str_app.photos.formats import ALTO, XHTML, to_alto, to_hocr
from str_app.photos.photo_reader import PhotoPipeline, PhotoPolicy, PhotoReader
from str_app.photos.picture import DOUBTFUL, SURE, draw
from str_app.photos.reading import PhotoReading
from str_app.reader import Reader
from tests.str_app.fake_engine import FakeEngine
from tests.str_app.photos.painted_photo import KnownPlaces, photo_of

PHOTO, QUADS = photo_of({(20, 10): "Q&A", (60, 10): "<b>", (20, 60): "end"})
READING = PhotoReader(Reader(FakeEngine()), PhotoPipeline(KnownPlaces(QUADS), policy=PhotoPolicy(room=0.0))).read(PHOTO)

EMPTY = PhotoReading(64, 48, (), ())
PLACE = ["HPOS", "VPOS", "WIDTH", "HEIGHT"]


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


def test_text_that_no_document_can_hold() -> None:
    """As a hostile server may send it; a no-break space and joiners of scripts are text."""
    word = READING.words[0]
    text = "a\x1b]0;b\x07\x9b\ufffe\u200d\u00a0c"
    hostile = replace(READING, words=(replace(word, reading=replace(word.reading, text=text)), *READING.words[1:]))
    held = "a\ufffd]0;b\ufffd\ufffd\ufffd\u200d\u00a0c"
    page = ElementTree.fromstring(to_hocr(hostile, "p.jpg").partition("\n")[2])
    assert page.find(".//x:span[@class='ocrx_word']", {"x": XHTML}).text == held
    alto = ElementTree.fromstring(to_alto(hostile, "p.jpg").encode())
    assert alto.find(".//a:String", {"a": ALTO}).attrib["CONTENT"] == held


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


# What of the ALTO 4.4 schema our documents use: children in their order, and attributes, the required ones first.
ALTO_ELEMENTS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "alto": (["Description", "Layout"], [], []),
    "Description": (["MeasurementUnit", "sourceImageInformation", "Processing"], [], []),
    "MeasurementUnit": ([], [], []),
    "sourceImageInformation": (["fileName"], [], []),
    "fileName": ([], [], []),
    "Processing": (["processingSoftware"], ["ID"], []),
    "processingSoftware": (["softwareName", "softwareVersion"], [], []),
    "softwareName": ([], [], []),
    "softwareVersion": ([], [], []),
    "Layout": (["Page"], [], []),
    "Page": (["PrintSpace"], ["ID", "PHYSICAL_IMG_NR"], ["WIDTH", "HEIGHT"]),
    "PrintSpace": (["TextBlock"], [], PLACE),
    "TextBlock": (["TextLine"], ["ID"], PLACE),
    "TextLine": (["String", "SP"], [], ["ID", *PLACE]),
    "String": (["Shape"], ["CONTENT"], ["WC", *PLACE]),
    "SP": ([], [], []),
    "Shape": (["Polygon"], [], []),
    "Polygon": ([], ["POINTS"], []),
}


@pytest.mark.parametrize("reading", [READING, EMPTY], ids=["words", "no words"])
def test_alto_keeps_to_the_schema(reading: PhotoReading) -> None:
    page = ElementTree.fromstring(to_alto(reading, "photo.jpg").encode())
    identifiers = []
    for element in page.iter():
        namespace, _, name = element.tag[1:].partition("}")
        assert namespace == ALTO
        children, required, optional = ALTO_ELEMENTS[name]
        present = [child.tag.partition("}")[2] for child in element]
        assert set(present) <= set(children)
        if name == "TextLine":
            assert present == (["String", "SP"] * len(present))[: len(present)]
            assert present[-1] == "String"
        else:
            assert present == sorted(present, key=children.index)
            assert len(present) == len(set(present)) or name == "PrintSpace"
        assert set(required) <= set(element.attrib) <= {*required, *optional}
        identifiers += [element.attrib["ID"]] if "ID" in element.attrib else []
        for key in {*PLACE, "PHYSICAL_IMG_NR"} & set(element.attrib):
            assert float(element.attrib[key]) >= 0
        if "WC" in element.attrib:
            assert 0 <= float(element.attrib["WC"]) <= 1
        if name == "Polygon":
            assert re.fullmatch(r"\d+,\d+( \d+,\d+){3}", element.attrib["POINTS"])
    assert len(identifiers) == len(set(identifiers))
    assert all(re.fullmatch(r"[A-Za-z_][\w.-]*", identifier) for identifier in identifiers)  # xsd:ID
    assert page.find(".//a:MeasurementUnit", {"a": ALTO}).text in ("pixel", "mm10", "inch1200")


@pytest.mark.parametrize("reading", [READING, EMPTY], ids=["words", "no words"])
def test_hocr_keeps_to_the_specification(reading: PhotoReading) -> None:
    document = ElementTree.fromstring(to_hocr(reading, "photo.jpg").partition("\n")[2])
    names = {"x": XHTML}
    about = {meta.get("name"): meta.get("content") for meta in document.findall("x:head/x:meta", names)}
    assert about["ocr-system"].startswith("str-app ")
    marked = [element for element in document.iter() if element.get("class", "").startswith("ocr")]
    capabilities = about["ocr-capabilities"].split()
    assert {element.attrib["class"] for element in marked} <= set(capabilities)
    assert {"ocrp_wconf", "ocrp_poly"} <= set(capabilities)  # x_wconf and poly

    def box(element: ElementTree.Element) -> list[int]:
        (found,) = re.findall(r"(?:^|; )bbox (\d+) (\d+) (\d+) (\d+)(?:;|$)", element.attrib["title"])
        return [int(number) for number in found]

    def inside(inner: list[int], outer: list[int]) -> bool:
        return outer[0] <= inner[0] <= inner[2] <= outer[2] and outer[1] <= inner[1] <= inner[3] <= outer[3]

    (page,) = document.findall("x:body/x:div[@class='ocr_page']", names)
    assert page.attrib["title"].startswith('image "photo.jpg"; bbox 0 0 ')
    for line in page:
        assert line.attrib["class"] == "ocr_line"
        assert inside(box(line), box(page))
        for word in line:
            assert word.attrib["class"] == "ocrx_word"
            assert inside(box(word), box(line))
            assert 0 <= int(re.search(r"x_wconf (\d+)", word.attrib["title"])[1]) <= 100
    identifiers = [element.attrib["id"] for element in marked if "id" in element.attrib]
    assert len(identifiers) == len(set(identifiers))
