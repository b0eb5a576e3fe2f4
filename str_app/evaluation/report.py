"""The HTML report: scores, quality of the confidences, and the most confident mistakes, in one file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.sample import Source
from str_app.evaluation import confidence, table
from str_app.evaluation.protocol import SetResult, numbered
from str_app.evaluation.templates import render
from str_app.reader import Reader, Reading
from str_app.reading_picture import attention_overlay


def render_report(
    reader: Reader,
    sources: Sequence[Source],
    results: Sequence[SetResult],
    mistakes: int = 24,
    beam: int | None = None,
) -> str:
    """The HTML page, with all images embedded.

    Args:
        reader: reads the mistakes again, for their attention maps.
        sources: the data sets, in the order of `results`.
        results: of `evaluate_source`.
        mistakes: maximum number shown per data set, the most confident first.
        beam: that of `evaluate_source`.
    """
    covers = [f"best {coverage} %" if coverage < 100 else "all" for coverage in confidence.COVERAGES]
    names = numbered(result.name for result in results)
    targets = [f"for {accuracy} % correct" for accuracy in confidence.ACCURACIES]
    return render(
        "report.html",
        model=reader.name,
        protocol=results[0].protocol.description,
        headings=table.headings(results),
        rows=table.rows(results),
        meaning=confidence.MEANING,
        selective_headings=["set", "n", *covers, *targets, "AURC", "ECE"],
        selective_rows=[_selective_row(*pair) for pair in zip(names, results, strict=True)],
        plots=confidence_plots(results).values(),
        sets=[_mistakes(reader, *entry, mistakes, beam) for entry in zip(names, sources, results, strict=True)],
    )


def confidence_plots(results: Sequence[SetResult]) -> dict[str, str]:
    """File name → SVG: accuracy against coverage of all sets, and the reliability of each; on the default subsets."""
    sets = []
    for result, name in zip(results, numbered(result.name for result in results), strict=True):
        members = result.of(result.default_subset)
        sets.append((name, [sample.confidence for sample in members], [sample.correct for sample in members]))
    plots = {"coverage.svg": confidence.coverage_plot("Accuracy when uncertain readings are rejected", sets)}
    return plots | {f"reliability-{entry[0]}.svg": confidence.reliability_plot(*entry) for entry in sets}


def _selective_row(name: str, result: SetResult) -> list[str]:
    """Selective metrics of the default subset."""
    score = result.score(result.default_subset)
    cells = [name, str(score.n)]
    cells += [f"{score.selective.accuracy_at_coverage[coverage]:.1f}" for coverage in confidence.COVERAGES]
    for accuracy in confidence.ACCURACIES:
        threshold = score.selective.threshold_for_accuracy[accuracy]
        cells.append("never" if threshold is None else f"≥ {threshold.confidence:.3f} keeps {threshold.coverage:.1f} %")
    return [*cells, f"{score.selective.aurc:.2f}", f"{score.ece:.1f}"]


def _mistakes(
    reader: Reader, name: str, source: Source, result: SetResult, limit: int, beam: int | None
) -> dict[str, Any]:
    """What the page shows of one data set."""
    wrong = sorted((sample for sample in result.predictions if not sample.correct), key=lambda s: -s.confidence)
    readable = [sample for sample in wrong if sample.readable][:limit]
    crops = [source[sample.index].image for sample in readable]
    # With a lexicon the scored reading may differ from the free reading whose attention is shown.
    readings = reader.read_crops(crops, beam=beam, attention=True)
    cards = [
        {
            "sample": sample,
            "record": sample.index + 1,
            "size": f"{crop.shape[1]}×{crop.shape[0]}",
            "image": data_url(crop),
            "heat": list(_heat(crop, reading)),
        }
        for sample, crop, reading in zip(readable, crops, readings, strict=True)
    ]
    unreadable = [sample.index + 1 for sample in wrong if not sample.readable]
    counts = {"wrong": len(wrong), "n": len(result.predictions)}
    return {"name": name, **counts, "unreadable": unreadable, "cards": cards}


def _heat(crop: npt.NDArray[np.uint8], reading: Reading) -> Iterator[tuple[str, str]]:
    """For each character and the end: the crop with its attention map, and the character with its confidence."""
    if reading.attention is None:
        return
    captions = [*(f"{char.text} {char.confidence:.2f}" for char in reading.characters), "end "]
    for weights, caption in zip(reading.attention, captions, strict=True):
        yield data_url(attention_overlay(crop, weights, reading.covered, reading.rotation)), caption


def data_url(image: npt.NDArray[np.uint8], max_height: int = 128) -> str:
    """The image as a JPEG data URL, at most so many pixels high."""
    height, width = image.shape[:2]
    if height > max_height:
        size = max(1, width * max_height // height), max_height
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise RuntimeError(f"an image of shape {image.shape} could not be encoded as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
