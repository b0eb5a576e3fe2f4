"""The HTML report on photographs: scores, the curve over thresholds, and the photographs that lost most words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from str_app.evaluation.photos import PhotoScore, table_rows
from str_app.evaluation.report import data_url
from str_app.evaluation.templates import render
from str_app.inputs.images import PHOTO_LIMITS, load_image
from str_app.photos.picture import draw

MISSED = (220, 0, 60)
HEIGHT = 720  # pixels, of a photograph in the report


def render_report(results: Mapping[str, Any], photos: Sequence[PhotoScore], threshold: float, worst: int) -> str:
    """The HTML page, with all pictures embedded.

    Args:
        results: of `str_app.evaluation.photos.as_json`.
        photos: the scored photographs.
        threshold: words of a lower confidence were left out.
        worst: number of photographs shown, those first that lost most words.
    """

    def lost(photo: PhotoScore) -> int:
        score = photo.end_to_end(threshold)
        return score.labelled + score.returned - 2 * score.right

    shown = sorted((photo for photo in photos if lost(photo)), key=lost, reverse=True)[:worst]
    return render(
        "photos.html",
        model=results["model"],
        detector=results["detector"],
        n=len(photos),
        rows=table_rows(results),
        curve=[_curve_row(point["threshold"], point["end_to_end"]) for point in results["curve"]],
        unreadable=[photo.path.name for photo in photos if not photo.readable],
        cards=[_card(photo, threshold) for photo in shown],
    )


def _curve_row(threshold: float, score: Mapping[str, float]) -> list[str]:
    return [f"{threshold:.2f}", *(f"{score[key]:.1f}" for key in ("precision", "recall", "h_mean"))]


def _card(photo: PhotoScore, threshold: float) -> dict[str, Any]:
    pairs, counted = photo.match(threshold)
    labels = [index for index in photo.counted_labels if index not in pairs]
    found = set(pairs.values())
    misread = [
        (photo.words[label].text, photo.reading.words[word].text)
        for label, word in pairs.items()
        if not photo.is_right(label, word)
    ]
    return {
        "name": photo.path.name,
        "image": data_url(_picture(photo, labels), HEIGHT) if photo.readable else None,
        "missed": [photo.words[index].text for index in labels],
        "misread": misread,
        "extra": [photo.reading.words[index].text for index in counted if index not in found],
    }


def _picture(photo: PhotoScore, missed: Sequence[int]) -> npt.NDArray[np.uint8]:
    picture = draw(load_image(photo.path, PHOTO_LIMITS), photo.reading)
    for index in missed:
        corners = np.round(np.array(photo.words[index].polygon)).astype(np.int32)
        cv2.polylines(picture, [corners], True, MISSED, max(1, round(max(picture.shape) / 640)), cv2.LINE_AA)
    return picture
