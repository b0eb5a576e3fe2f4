"""A page of one file: the table, how far confidence can be trusted, and the mistakes the model was surest of."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from datasets.sample import Source
from models.preprocessing import Preprocessing
from str_app.evaluation import metrics, table
from str_app.evaluation.protocol import Prediction, SetResult
from str_app.reader import Reader, Reading

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #3b7dd8; --bad: #c2410c; --good: #15803d }
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
        "<h2>Confidence</h2><p class=quiet>Share of right readings (bars) against their mean confidence (line); "
        "a bar's opacity grows with the number of readings in it. On the diagonal, confidence is a probability.</p>",
        '<div class="diagrams">' + "".join(_diagram(result) for result in results) + "</div>",
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


def _diagram(result: SetResult) -> str:
    """Reliability of the default subset as an SVG of 180 × 180 units."""
    members = None if result.default_subset is None else result.subsets[result.default_subset]
    scored = [one for one in result.predictions if members is None or one.index in members]
    bars = metrics.reliability([one.confidence for one in scored], [one.correct for one in scored])
    largest = max(bar.size for bar in bars)
    side = 180
    drawn = []
    for bar in bars:
        if not bar.size:
            continue
        left, width, height = bar.low * side, side / len(bars) - 1, bar.accuracy * side
        opacity = 0.3 + 0.7 * bar.size / largest
        level = side - bar.confidence * side
        drawn.append(
            f'<rect x="{left:.1f}" y="{side - height:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill="var(--bar)" opacity="{opacity:.2f}"><title>confidence {bar.low:.2f} to {bar.high:.2f}: '
            f"{bar.size} readings, {100 * bar.accuracy:.1f} % right</title></rect>"
            f'<path d="M{left:.1f} {level:.1f}h{width:.1f}" stroke="currentColor" stroke-width="2"/>'
        )
    score = result.score(result.default_subset)
    return (
        f'<figure><svg viewBox="0 0 {side} {side}" width="{side}" height="{side}" role="img" '
        f'aria-label="Reliability of {html.escape(result.name)}">'
        f'<rect width="{side}" height="{side}" fill="none" stroke="var(--line)"/>'
        f'<path d="M0 {side}L{side} 0" stroke="var(--line)"/>{"".join(drawn)}</svg>'
        f"<figcaption>{html.escape(result.name)}, ECE {score.ece:.1f}</figcaption></figure>"
    )


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
        f'<figure><img src="{picture}" alt=""><figcaption>{html.escape(text)} {confidence}</figcaption></figure>'
        for picture, text, confidence in _heat(crop, reading, preprocessing)
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
    canvas, covered = preprocessing(crop)
    names = [*((one.text, f"{one.confidence:.2f}") for one in reading.characters), ("end", "")]
    for weights, (text, confidence) in zip(reading.attention, names, strict=True):
        spread = cv2.resize(weights, (canvas.shape[1], canvas.shape[0]), interpolation=cv2.INTER_LINEAR)
        strength = (spread / max(float(spread.max()), 1e-9))[:, :covered, None]
        lit = canvas[:, :covered] * (0.35 + 0.65 * strength) + np.array([255.0, 90.0, 0.0]) * 0.35 * strength
        yield _data_url(np.clip(lit, 0, 255).astype(np.uint8)), text, confidence


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
