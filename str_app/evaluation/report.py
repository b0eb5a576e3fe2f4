"""The HTML report: scores, quality of the confidences, and the most confident mistakes, in one file."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.sample import Source
from str_app.evaluation import confidence, table
from str_app.evaluation.confidence import MEANING
from str_app.evaluation.protocol import Prediction, SetResult
from str_app.models.preprocessing import Preprocessing
from str_app.reader import Reader, Reading
from str_app.reading_picture import attention_overlay

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #c2410c; --good: #15803d }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
h1, h2 { font-weight: 600; line-height: 1.2 } .quiet { opacity: .75 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } tr.total { font-weight: 600 }
.diagrams { display: flex; flex-wrap: wrap; gap: 1.5rem } figure { margin: 0 } figcaption { text-align: center }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: 1rem }
.mistake { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; overflow: hidden }
.mistake > img { max-width: 100%; height: 64px; object-fit: contain; object-position: left; image-rendering: auto }
.mistake dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 .75rem; margin: .4rem 0 }
.mistake dd { margin: 0; font-family: ui-monospace, monospace; overflow-wrap: anywhere }
.label { color: var(--good) } .reading { color: var(--bad) }
.heat { display: flex; flex-wrap: wrap; gap: .3rem } .heat figure { font: 12px ui-monospace, monospace }
.heat img { height: 24px; display: block }
"""


def render_report(reader: Reader, sources: Sequence[Source], results: Sequence[SetResult], mistakes: int = 24) -> str:
    """The HTML page, with all images embedded.

    Args:
        reader: reads the mistakes again, for their attention maps.
        sources: the data sets, in the order of `results`.
        results: of `evaluate_source`.
        mistakes: maximum number shown per data set, the most confident first.
    """
    parts = [
        f"<h1>Evaluation of <code>{html.escape(reader.name)}</code></h1>",
        f"<p class=quiet>Accuracy: {html.escape(results[0].protocol.description)}. All values in percent. "
        "† does not count in total and mean.</p>",
        _table(results),
        f"<h2>Confidence</h2><p class=quiet>{html.escape(MEANING)} On the diagonal it is exact.</p>",
        *_confidence(results),
    ]
    for source, result in zip(sources, results, strict=True):
        parts.extend(_mistakes(reader, source, result, mistakes))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(reader.name)}: evaluation</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _table(results: Sequence[SetResult]) -> str:
    rows = table.rows(results)
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in table.headings(results))
    body = "".join(
        f"<tr{' class=total' if index >= len(rows) - 2 else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for index, row in enumerate(rows)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def confidence_plots(results: Sequence[SetResult]) -> dict[str, str]:
    """File name → SVG: accuracy against coverage of all sets, and the reliability of each; on the default subsets."""
    sets = []
    for result in results:
        members = result.of(result.default_subset)
        sets.append((result.name, [sample.confidence for sample in members], [sample.correct for sample in members]))
    plots = {"coverage.svg": confidence.coverage_plot("Accuracy when uncertain readings are rejected", sets)}
    return plots | {f"reliability-{entry[0]}.svg": confidence.reliability_plot(*entry) for entry in sets}


def _confidence(results: Sequence[SetResult]) -> Iterator[str]:
    """Table of selective metrics and the confidence plots, on the default subsets."""
    rows = ""
    for result in results:
        score = result.score(result.default_subset)
        cells = [f"{score.selective.accuracy_at_coverage[coverage]:.1f}" for coverage in confidence.COVERAGES]
        for accuracy in confidence.ACCURACIES:
            threshold = score.selective.threshold_for_accuracy[accuracy]
            cells.append(
                "never" if threshold is None else f"≥ {threshold.confidence:.3f} keeps {threshold.coverage:.1f} %"
            )
        cells += [f"{score.selective.aurc:.2f}", f"{score.ece:.1f}"]
        body = "".join(f"<td>{cell}</td>" for cell in [html.escape(result.name), str(score.n), *cells])
        rows += f"<tr>{body}</tr>"
    names = [f"best {coverage} %" if coverage < 100 else "all" for coverage in confidence.COVERAGES]
    names += [f"for {accuracy} % correct" for accuracy in confidence.ACCURACIES]
    head = "".join(f"<th>{name}</th>" for name in ["set", "n", *names, "AURC", "ECE"])
    yield f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    plots = confidence_plots(results).values()
    yield '<div class="diagrams">' + "".join(f"<figure>{svg}</figure>" for svg in plots) + "</div>"


def _mistakes(reader: Reader, source: Source, result: SetResult, limit: int) -> Iterator[str]:
    wrong = sorted((sample for sample in result.predictions if not sample.correct), key=lambda s: -s.confidence)
    readable = [sample for sample in wrong if sample.readable][:limit]
    unreadable = [sample for sample in wrong if not sample.readable]
    count = f"{len(wrong)} of {len(result.predictions)} wrong"
    shown = f"; the {len(readable)} most confident are shown" if readable else ""
    yield f"<h2>{html.escape(result.name)}</h2><p class=quiet>{count}{shown}.</p>"
    if unreadable:
        records = ", ".join(str(sample.index + 1) for sample in unreadable[:20])
        more = ", …" if len(unreadable) > 20 else ""
        yield f"<p>Cannot be decoded: {len(unreadable)} (records {records}{more}).</p>"
    crops = [source[sample.index].image for sample in readable]
    readings = reader.read_crops(crops, attention=True)
    yield '<div class="mistakes">'
    for sample, crop, reading in zip(readable, crops, readings, strict=True):
        yield _card(sample, crop, reading, reader.preprocessing)
    yield "</div>"


def _card(sample: Prediction, crop: npt.NDArray[np.uint8], reading: Reading, preprocessing: Preprocessing) -> str:
    # With a lexicon the scored reading may differ from the free reading whose attention is shown.
    maps = "".join(
        f'<figure><img src="{picture}" alt=""><figcaption>{html.escape(text)} {value}</figcaption></figure>'
        for picture, text, value in _heat(crop, reading, preprocessing)
    )
    height, width = crop.shape[:2]
    return (
        f'<div class="mistake"><img src="{_data_url(crop)}" alt="record {sample.index + 1}, {width}×{height} pixels">'
        f'<dl><dt>label</dt><dd class="label">{html.escape(sample.label)}</dd>'
        f'<dt>reading</dt><dd class="reading">{html.escape(sample.text) or "(nothing)"}</dd>'
        f"<dt>confidence</dt><dd>{sample.confidence:.3f}</dd>"
        f"<dt>record</dt><dd>{sample.index + 1}, {width}×{height}</dd></dl>"
        f'<div class="heat">{maps}</div></div>'
    )


def _heat(
    crop: npt.NDArray[np.uint8], reading: Reading, preprocessing: Preprocessing
) -> Iterator[tuple[str, str, str]]:
    """For each character and the end: the crop with its attention map, the character, and its confidence."""
    if reading.attention is None:
        return
    captions = [*((char.text, f"{char.confidence:.2f}") for char in reading.characters), ("end", "")]
    for weights, (text, value) in zip(reading.attention, captions, strict=True):
        yield _data_url(attention_overlay(crop, weights, preprocessing)), text, value


def _data_url(image: npt.NDArray[np.uint8]) -> str:
    """The crop as a JPEG data URL, at most 128 pixels high."""
    height, width = image.shape[:2]
    if height > 128:
        image = np.asarray(
            cv2.resize(image, (max(1, width * 128 // height), 128), interpolation=cv2.INTER_AREA), np.uint8
        )
    done, encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise RuntimeError(f"an image of shape {image.shape} could not be encoded as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
