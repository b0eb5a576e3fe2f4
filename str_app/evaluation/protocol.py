"""How a data set is scored: which images count, which subsets are reported, and what is averaged."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from str_app.datasets.sample import Source, UnreadableSample
from str_app.decoding import BEAM
from str_app.errors import StrAppError
from str_app.evaluation import metrics
from str_app.evaluation.confidence import SelectiveMetrics, selective_metrics
from str_app.models.charset import Charset
from str_app.reader import Reader


@dataclass(frozen=True)
class Protocol:
    """What of a text counts.

    Attributes:
        name: as `str-app evaluate --protocol` takes it.
        description: for tables and reports.
        fold: text → what is compared; samples whose label folds to nothing are dropped.
    """

    name: str
    description: str
    fold: Callable[[str], str]


FIELD = Protocol(
    "field",
    "case-insensitive [0-9a-z] after NFKD on both sides; samples without such a character are dropped",
    metrics.normalise,
)
# The field's would drop Cyrillic, and take ä for a.
UNICODE = Protocol(
    "unicode",
    "case-insensitive letters, accents and digits of every script after NFC on both sides; samples without any are "
    "dropped",
    metrics.letters,
)
PROTOCOLS = {protocol.name: protocol for protocol in (FIELD, UNICODE)}


def protocol_of(charset: Charset) -> Protocol:
    """The protocol by which a model is judged unless another is asked for: the field's where it reads ASCII alone."""
    return FIELD if charset.characters.isascii() else UNICODE


# The subset that totals and comparisons use, where the field does not use the whole set.
DEFAULT_SUBSET = {"IC13": "1015"}


@dataclass(frozen=True)
class Prediction:
    """One sample with what was read.

    Attributes:
        index: place in the source.
        label: as the data set writes it.
        text: the reading; empty where the image is unreadable.
        confidence: of the whole reading; 0 where the image is unreadable.
        correct: right under the protocol.
        readable: False where the image could not be decoded. It counts as wrong.
    """

    index: int
    label: str
    text: str
    confidence: float
    correct: bool
    readable: bool = True


@dataclass(frozen=True)
class Score:
    """A set's or a subset's row. Percentages, except counts.

    Attributes:
        name: of the data set.
        subset: e.g. `"1015"`; None for the whole set.
        n: samples scored.
        correct: of these, right under the protocol.
        dropped: samples whose label has nothing that the protocol compares.
        unreadable: scored samples whose image cannot be decoded.
        accuracy: share of `correct`, by default the case-insensitive alphanumeric word accuracy.
        interval: its 95 % Wilson interval.
        accuracy_62: exact match on digits and letters with case.
        accuracy_94: exact match on all printable ASCII characters.
        accuracy_exact: exact match of the whole text after NFC, whatever its characters.
        ned: mean of 1 − edit distance / longer length.
        cer: edit distance over label length, both summed.
        ece: expected calibration error of the confidence against `accuracy`'s notion of right, 15 bins.
        selective: accuracy at coverages, thresholds for accuracies, AURC.
    """

    name: str
    subset: str | None
    n: int
    correct: int
    dropped: int
    unreadable: int
    accuracy: float
    interval: tuple[float, float]
    accuracy_62: float
    accuracy_94: float
    accuracy_exact: float
    ned: float
    cer: float
    ece: float
    selective: SelectiveMetrics

    def as_json(self) -> dict[str, Any]:
        """The row as `--json` writes it; percentages to two decimals."""
        row: dict[str, Any] = {"name": self.name, "subset": self.subset, "n": self.n}
        row["accuracy"] = round(self.accuracy, 2)
        row["interval"] = [round(bound, 2) for bound in self.interval]
        for key in ("accuracy_62", "accuracy_94", "accuracy_exact", "ned", "cer", "ece"):
            row[key] = round(getattr(self, key), 2)
        return {**row, **self.selective.as_json(), "unreadable": self.unreadable, "dropped": self.dropped}


@dataclass(frozen=True)
class SetResult:
    """All that was read of one data set.

    Attributes:
        name: of the data set.
        predictions: one per sample scored, in the source's order.
        dropped: indices of the samples whose label has nothing that the protocol compares.
        subsets: name of each subset to the indices it has.
        protocol: what was compared.
    """

    name: str
    predictions: tuple[Prediction, ...]
    dropped: tuple[int, ...]
    subsets: Mapping[str, frozenset[int]]
    protocol: Protocol = FIELD

    def of(self, subset: str | None) -> list[Prediction]:
        """The predictions of the whole set or of one of its subsets."""
        return [one for one in self.predictions if subset is None or one.index in self.subsets[subset]]

    def score(self, subset: str | None = None) -> Score:
        """Numbers of the whole set or of one of its subsets."""
        dropped = [index for index in self.dropped if subset is None or index in self.subsets[subset]]
        return score_of(self.name, subset, self.of(subset), len(dropped), self.protocol)

    @property
    def default_subset(self) -> str | None:
        """The subset that totals use; None for the whole set."""
        wanted = DEFAULT_SUBSET.get(self.name)
        return wanted if wanted in self.subsets else None

    def scores(self) -> list[Score]:
        """The whole set and each subset, the default one first, then larger before smaller."""
        rest: list[str | None] = [None, *sorted(self.subsets, key=lambda name: -len(self.subsets[name]))]
        rest.remove(self.default_subset)
        return [self.score(subset) for subset in [self.default_subset, *rest]]


def evaluate_source(
    reader: Reader,
    source: Source,
    *,
    limit: int | None = None,
    subsets: Mapping[str, frozenset[int]] | None = None,
    lexicons: Mapping[int, Sequence[str]] | None = None,
    protocol: Protocol | None = None,
    beam: int = BEAM,
    on_progress: Callable[[int], None] | None = None,
) -> SetResult:
    """Read a data set and keep what is needed to score it.

    Args:
        reader: its `batch_size` is the number of crops in one pass; the result does not depend on it.
        source: a labelled data set.
        limit: read this many scorable samples only, spread evenly over the set.
        subsets: name → indices, as `sources.subsets_of` finds them.
        lexicons: index → the words to choose from; samples without an entry are read freely.
        protocol: what is compared; by default what `protocol_of` says of the reader's charset.
        beam: see `Reader.recognize`.
        on_progress: called with the number of samples done since the last call.

    Raises:
        StrAppError: no sample of the set can be scored.
    """
    labels = [_label_of(source, index) for index in range(len(source))]
    protocol = protocol or protocol_of(reader.charset)
    scorable = [index for index, label in enumerate(labels) if protocol.fold(label)]
    dropped = tuple(index for index, label in enumerate(labels) if not protocol.fold(label))
    if not scorable:
        way_out = "" if protocol is UNICODE else "; --protocol unicode compares the letters of every script"
        raise StrAppError(
            f"{source.name}: none of its {len(labels)} labels has a digit or a letter: nothing to score{way_out}"
        )
    if limit is not None and limit < len(scorable):
        scorable = [scorable[place * len(scorable) // limit] for place in range(limit)]
    predictions: list[Prediction] = []
    for start in range(0, len(scorable), reader.batch_size):
        batch = scorable[start : start + reader.batch_size]
        predictions.extend(_read_batch(reader, source, batch, labels, lexicons or {}, protocol, beam))
        if on_progress is not None:
            on_progress(len(batch))
    return SetResult(source.name, tuple(predictions), dropped, dict(subsets or {}), protocol)


def _label_of(source: Source, index: int) -> str:
    try:
        return source.label(index)
    except UnreadableSample:
        return ""  # nothing to compare with, so it is dropped as any label without a letter


def _read_batch(
    reader: Reader,
    source: Source,
    batch: Sequence[int],
    labels: Sequence[str],
    lexicons: Mapping[int, Sequence[str]],
    protocol: Protocol,
    beam: int,
) -> Iterator[Prediction]:
    crops: dict[int, npt.NDArray[np.uint8]] = {}
    for index in batch:
        try:
            crops[index] = source[index].image
        except UnreadableSample:
            continue
    free = [index for index in crops if index not in lexicons]
    bound = [index for index in crops if index in lexicons]
    readings = dict(zip(free, reader.read_crops([crops[index] for index in free], beam=beam), strict=True))
    chosen = reader.read_crops([crops[index] for index in bound], lexicons=[lexicons[index] for index in bound])
    readings.update(zip(bound, chosen, strict=True))
    for index in batch:
        if index in readings:
            text = readings[index].text
            correct = protocol.fold(text) == protocol.fold(labels[index])
            yield Prediction(index, labels[index], text, readings[index].confidence, correct)
        else:
            yield Prediction(index, labels[index], "", 0.0, correct=False, readable=False)


def score_of(
    name: str, subset: str | None, predictions: Sequence[Prediction], dropped: int, protocol: Protocol
) -> Score:
    """Numbers of some predictions; see `Score`."""
    count = len(predictions)
    correct = [one.correct for one in predictions]
    confidences = [one.confidence for one in predictions]
    low, high = metrics.wilson_interval(sum(correct), count)
    distances, longest, reference = 0, 0.0, 0
    for one in predictions:
        label, text = protocol.fold(one.label), protocol.fold(one.text)
        distance = metrics.edit_distance(label, text)
        distances += distance
        reference += len(label)
        longest += 1.0 - distance / max(len(label), len(text))
    return Score(
        name=name,
        subset=subset,
        n=count,
        correct=sum(correct),
        dropped=dropped,
        unreadable=sum(not one.readable for one in predictions),
        accuracy=_percent(sum(correct), count),
        interval=(100.0 * low, 100.0 * high),
        accuracy_62=_exact(predictions, lambda text: metrics.restrict(text, metrics.ALPHABET_62)),
        accuracy_94=_exact(predictions, lambda text: metrics.restrict(text, metrics.ALPHABET_94)),
        accuracy_exact=_exact(predictions, lambda text: unicodedata.normalize("NFC", text)),
        ned=_percent(longest, count),
        cer=_percent(distances, reference),
        ece=100.0 * metrics.expected_calibration_error(confidences, correct),
        selective=selective_metrics(confidences, correct),
    )


def _exact(predictions: Sequence[Prediction], fold: Callable[[str], str]) -> float:
    right = sum(one.readable and fold(one.text) == fold(one.label) for one in predictions)
    return _percent(right, len(predictions))


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else 0.0
