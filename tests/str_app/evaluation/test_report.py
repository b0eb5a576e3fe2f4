"""What the report shows of a data set."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from str_app.evaluation.protocol import Prediction, SetResult
from str_app.evaluation.report import _heat, confidence_plots
from str_app.reading import Character, Reading


def test_attention_is_laid_over_the_crop_as_it_was_read() -> None:
    crop = np.full((120, 30, 3), 100, np.uint8)  # tall: read turned by 90°, when its right side is above
    attention = np.zeros((2, 4, 16), np.float32)
    attention[:, :, 1] = 1.0  # near the beginning of the turned crop
    character = Character("a", 0.9, (0.0, 0.0, 1.0, 1.0))
    reading = Reading("a", 0.9, (character,), attention, covered=0.9, rotation=90)
    picture, _ = next(iter(_heat(crop, reading)))
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(picture.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert shown.shape[1] > shown.shape[0]
    red = shown[:, :, 2].astype(int).sum(axis=0)
    assert red.argmax() < shown.shape[1] // 3


def test_sets_of_equal_names_have_a_plot_each() -> None:
    result = SetResult("val", (Prediction(0, "a", "a", 0.9, True),), (), {})
    plots = confidence_plots([result, result])
    assert sorted(plots) == ["coverage.svg", "reliability-val-2.svg", "reliability-val.svg"]
