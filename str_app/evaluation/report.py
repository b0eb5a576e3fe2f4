"""A page of one file: the table, how far confidence can be trusted, and the mistakes the model was surest of."""

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
    """The HTML page; pictures are inside it, nothing is loaded from elsewhere.

    Args:
        reader: reads the mistakes once more, for its attention.
        sources: where the pictures are, in the order of `results`.
        results: what `evaluate_source` returned.
        mistakes: shown per data set, the most confident first.
    """
    parts = [
        f"<h1>How well <code>{html.escape(reader.name)}</code> reads</h1>",
        f"<p class=quiet>Accuracy: {html.escape(results[0].protocol.description)}. Percent throughout. "
        "† not part of total and mean.</p>",
        _table(results),
        f"<h2>Confidence</h2><p class=quiet>{html.escape(MEANING)} On the diagonal it is exactly that.</p>",
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
        f"<tr{' class=total' if place >= len(rows) - 2 else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for place, row in enumerate(rows)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def confidence_plots(results: Sequence[SetResult]) -> dict[str, str]:
    """File name → SVG: accuracy against coverage of all sets, and each set's reliability; default subsets."""
    sets = []
    for result in results:
        members = result.of(result.default_subset)
        sets.append((result.name, [one.confidence for one in members], [one.correct for one in members]))
    plots = {"coverage.svg": confidence.coverage_plot("What refusing unsure readings gives", sets)}
    return plots | {f"reliability-{one[0]}.svg": confidence.reliability_plot(*one) for one in sets}


def _confidence(results: Sequence[SetResult]) -> Iterator[str]:
    """Plots of every set's default subset, and what refusing unsure readings would give."""
    rows = ""
    for result in results:
        score = result.score(result.default_subset)
        cells = [f"{score.selective.accuracy_at_coverage[coverage]:.1f}" for coverage in confidence.COVERAGES]
        for accuracy in confidence.ACCURACIES:
            found = score.selective.threshold_for_accuracy[accuracy]
            cells.append("never" if found is None else f"≥ {found.confidence:.3f} keeps {found.coverage:.1f} %")
        cells += [f"{score.selective.aurc:.2f}", f"{score.ece:.1f}"]
        body = "".join(f"<td>{cell}</td>" for cell in [html.escape(result.name), str(score.n), *cells])
        rows += f"<tr>{body}</tr>"
    names = [f"surest {coverage} %" if coverage < 100 else "all" for coverage in confidence.COVERAGES]
    names += [f"for {accuracy} % right" for accuracy in confidence.ACCURACIES]
    head = "".join(f"<th>{name}</th>" for name in ["set", "n", *names, "AURC", "ECE"])
    yield f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    plots = confidence_plots(results).values()
    yield '<div class="diagrams">' + "".join(f"<figure>{one}</figure>" for one in plots) + "</div>"


def _mistakes(reader: Reader, source: Source, result: SetResult, limit: int) -> Iterator[str]:
    wrong = sorted((one for one in result.predictions if not one.correct), key=lambda one: -one.confidence)
    readable = [one for one in wrong if one.readable][:limit]
    unreadable = [one for one in wrong if not one.readable]
    count = f"{len(wrong)} of {len(result.predictions)} wrong"
    shown = f"; the {len(readable)} read with the most confidence" if readable else ""
    yield f"<h2>{html.escape(result.name)}</h2><p class=quiet>{count}{shown}.</p>"
    if unreadable:
        places = ", ".join(str(one.index + 1) for one in unreadable[:20])
        more = ", …" if len(unreadable) > 20 else ""
        yield f"<p>Cannot be decoded: {len(unreadable)} (records {places}{more}).</p>"
    crops = [source[one.index].image for one in readable]
    readings = reader.read_crops(crops, attention=True)
    yield '<div class="mistakes">'
    for one, crop, reading in zip(readable, crops, readings, strict=True):
        yield _card(one, crop, reading, reader.engine.preprocessing)
    yield "</div>"


def _card(one: Prediction, crop: npt.NDArray[np.uint8], reading: Reading, preprocessing: Preprocessing) -> str:
    # With lexicons the reading that was scored is another one than the free reading whose attention is shown.
    maps = "".join(
        f'<figure><img src="{picture}" alt=""><figcaption>{html.escape(text)} {sure}</figcaption></figure>'
        for picture, text, sure in _heat(crop, reading, preprocessing)
    )
    height, width = crop.shape[:2]
    return (
        f'<div class="mistake"><img src="{_data_url(crop)}" alt="record {one.index + 1}, {width}×{height} pixels">'
        f'<dl><dt>label</dt><dd class="label">{html.escape(one.label)}</dd>'
        f'<dt>reading</dt><dd class="reading">{html.escape(one.text) or "(nothing)"}</dd>'
        f"<dt>confidence</dt><dd>{one.confidence:.3f}</dd>"
        f"<dt>record</dt><dd>{one.index + 1}, {width}×{height}</dd></dl>"
        f'<div class="heat">{maps}</div></div>'
    )


def _heat(
    crop: npt.NDArray[np.uint8], reading: Reading, preprocessing: Preprocessing
) -> Iterator[tuple[str, str, str]]:
    """For each character, and for the end: the crop lit where the network looked, the character, its confidence."""
    if reading.attention is None:
        return
    names = [*((one.text, f"{one.confidence:.2f}") for one in reading.characters), ("end", "")]
    for weights, (text, sure) in zip(reading.attention, names, strict=True):
        yield _data_url(attention_overlay(crop, weights, preprocessing)), text, sure


def _data_url(image: npt.NDArray[np.uint8]) -> str:
    """A JPEG inside a URL; crops higher than 128 pixels are shrunk to that."""
    height, width = image.shape[:2]
    if height > 128:
        image = np.asarray(
            cv2.resize(image, (max(1, width * 128 // height), 128), interpolation=cv2.INTER_AREA), np.uint8
        )
    done, encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise RuntimeError(f"a picture of shape {image.shape} could not be written as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
