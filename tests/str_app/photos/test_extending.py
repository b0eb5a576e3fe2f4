"""docs/how-to/extending.md, "Add a detector", followed word for word."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from str_app.errors import StrAppError
from str_app.photos import load
from str_app.photos.photo_reader import PhotoReader
from str_app.reader import Reader


def test_a_detector_added_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path("docs/how-to/extending.md").read_text(encoding="utf-8")
    section = page.split("## Add a detector")[1].split("\n## ")[0]
    source, registration = map(dedent, re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    module = ModuleType("str_app.photos.dark_ink")
    exec(source, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    registered = {**vars(load)}
    exec(registration, registered)
    assert {**load.DETECTORS, "dark-ink": registered["DETECTORS"]["dark-ink"]} == registered["DETECTORS"]
    monkeypatch.setattr(load, "DETECTORS", registered["DETECTORS"])

    picture = Image.new("RGB", (500, 200), (240, 240, 235))
    font = ImageFont.load_default(40)
    for y, text in ((30, "Mind the gap"), (110, "between")):
        ImageDraw.Draw(picture).text((40, y), text, fill=(20, 20, 60), font=font)
    reader = PhotoReader(Reader.load("small", threads=1), load.load_pipeline("dark-ink", threads=1))
    assert reader.read(np.array(picture)).text == "Mind the gap\nbetween"
    assert reader.pipeline.detector.name == "dark-ink"
    with pytest.raises(StrAppError, match="not one of auto, pp-ocrv6-small, dark-ink"):
        load.load_pipeline("other")
