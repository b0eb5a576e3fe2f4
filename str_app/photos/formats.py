"""Readings of photographs as hOCR and ALTO, the two formats that other programs take."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from str_app import __version__
from str_app.photos.reading import PhotoReading, PhotoWord

ALTO = "http://www.loc.gov/standards/alto/ns-v4#"
XHTML = "http://www.w3.org/1999/xhtml"


def to_hocr(reading: PhotoReading, name: str) -> str:
    """An hOCR 1.2 page; `name` is the photograph's."""
    name = _printable(name)
    html = ElementTree.Element("html", {"xmlns": XHTML, "lang": "en"})
    head = ElementTree.SubElement(html, "head")
    ElementTree.SubElement(head, "title").text = name
    ElementTree.SubElement(head, "meta", {"charset": "utf-8"})
    for key, value in (
        ("ocr-system", f"str-app {__version__}"),
        ("ocr-capabilities", "ocr_page ocr_line ocrx_word ocrp_wconf ocrp_poly"),
    ):
        ElementTree.SubElement(head, "meta", {"name": key, "content": value})
    body = ElementTree.SubElement(html, "body")
    quoted = name.replace('"', "%22")  # hOCR has no escape; what it names may be a URL
    title = f'image "{quoted}"; bbox 0 0 {reading.width} {reading.height}'
    page = ElementTree.SubElement(body, "div", {"class": "ocr_page", "id": "page_1", "title": title})
    for number, line in enumerate(reading.lines, 1):
        words = [reading.words[index] for index in line.words if reading.words[index].text]
        if not words:
            continue
        box = _numbers(_box_of(words, reading))
        attributes = {"class": "ocr_line", "id": f"line_{number}", "title": f"bbox {box}"}
        span = ElementTree.SubElement(page, "span", attributes)
        for word in words:
            corners = " ".join(f"{x} {y}" for x, y in _corners(word, reading))
            title = f"bbox {_numbers(_box_of([word], reading))}; x_wconf {round(100 * word.confidence)}; poly {corners}"
            child = ElementTree.SubElement(span, "span", {"class": "ocrx_word", "title": title})
            child.text = _printable(word.text)
            child.tail = " "
    ElementTree.indent(html)
    return "<!DOCTYPE html>\n" + ElementTree.tostring(html, encoding="unicode", method="xml") + "\n"


def to_alto(reading: PhotoReading, name: str) -> str:
    """An ALTO 4 document of one page; `name` is the photograph's."""
    alto = ElementTree.Element("alto", {"xmlns": ALTO})
    description = ElementTree.SubElement(alto, "Description")
    ElementTree.SubElement(description, "MeasurementUnit").text = "pixel"
    source = ElementTree.SubElement(description, "sourceImageInformation")
    ElementTree.SubElement(source, "fileName").text = _printable(name)
    processing = ElementTree.SubElement(description, "Processing", {"ID": "reading"})
    software = ElementTree.SubElement(processing, "processingSoftware")
    ElementTree.SubElement(software, "softwareName").text = "str-app"
    ElementTree.SubElement(software, "softwareVersion").text = __version__
    size = {"WIDTH": str(reading.width), "HEIGHT": str(reading.height)}
    page = ElementTree.SubElement(
        ElementTree.SubElement(alto, "Layout"), "Page", {"ID": "page_1", "PHYSICAL_IMG_NR": "1", **size}
    )
    space = ElementTree.SubElement(page, "PrintSpace", {"HPOS": "0", "VPOS": "0", **size})
    for number, line in enumerate(reading.lines, 1):
        words = [reading.words[index] for index in line.words if reading.words[index].text]
        if not words:
            continue
        place = _place(words, reading)
        block = ElementTree.SubElement(space, "TextBlock", {"ID": f"block_{number}", **place})
        text_line = ElementTree.SubElement(block, "TextLine", {"ID": f"line_{number}", **place})
        for position, word in enumerate(words):
            if position:
                ElementTree.SubElement(text_line, "SP")
            string = ElementTree.SubElement(
                text_line,
                "String",
                {"CONTENT": _printable(word.text), "WC": f"{word.confidence:.4f}", **_place([word], reading)},
            )
            points = " ".join(f"{x},{y}" for x, y in _corners(word, reading))
            ElementTree.SubElement(ElementTree.SubElement(string, "Shape"), "Polygon", {"POINTS": points})
    ElementTree.indent(alto)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(alto, encoding="unicode") + "\n"


def _printable(text: str) -> str:
    """U+FFFD for what XML or UTF-8 cannot hold, and for other control characters, which a terminal would obey.

    File names may have them, also as bytes that are no UTF-8, and so may the text that a server returns.
    """
    return re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


def _corners(word: PhotoWord, page: PhotoReading) -> list[tuple[int, int]]:
    """Whole pixels on the page: a detector's corners may lie outside, and neither format knows negative numbers."""
    return [(min(max(0, round(x)), page.width), min(max(0, round(y)), page.height)) for x, y in word.quad]


def _box_of(words: list[PhotoWord], page: PhotoReading) -> tuple[int, int, int, int]:
    corners = [corner for word in words for corner in _corners(word, page)]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _numbers(box: tuple[int, int, int, int]) -> str:
    return " ".join(map(str, box))


def _place(words: list[PhotoWord], page: PhotoReading) -> dict[str, str]:
    x0, y0, x1, y1 = _box_of(words, page)
    return {"HPOS": str(x0), "VPOS": str(y0), "WIDTH": str(x1 - x0), "HEIGHT": str(y1 - y0)}
