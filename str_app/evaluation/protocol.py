"""Scoring a data set: which samples count, which subsets are reported, and what is averaged."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.datasets.sample import Source, UnreadableSample
from str_app.errors import StrAppError
from str_app.evaluation import metrics
from str_app.evaluation.confidence import SelectiveMetrics, selective_metrics
from str_app.evaluation.metrics import rounded
from str_app.evaluation.sources import evenly_spaced
from str_app.models.charset import Charset
from str_app.reader import Reader

PART_BATCHES = 8  # of a part that another process reads
Pool = Callable[["SetReader", Sequence["Part"]], Iterable["ReadPart"]]


@dataclass(frozen=True)
class Protocol:
    """Which characters of a text are compared.

    Attributes:
        name: value of `str-app evaluate --protocol`.
        description: for tables and reports.
        fold: maps a text to what is compared; samples whose label maps to an empty text are dropped.
    """

    name: str
    description: str
    fold: Callable[[str], str]


FIELD = Protocol(
    "field",
    "case-insensitive [0-9a-z] after NFKD on both sides; samples without such a character are dropped",
    metrics.normalise,
)
# The field's protocol would drop Cyrillic and equate ä with a.
UNICODE = Protocol(
    "unicode",
    "case-insensitive letters, accents and digits of every script after NFC on both sides; samples without any are "
    "dropped",
    metrics.letters,
)
PROTOCOLS = {protocol.name: protocol for protocol in (FIELD, UNICODE)}


def protocol_of(charset: Charset) -> Protocol:
    """The default protocol of a model: the field's if it reads only ASCII, else the one for every script."""
    return FIELD if charset.characters.isascii() else UNICODE


# The subset for totals and comparisons, where the field does not use the whole set.
DEFAULT_SUBSET = {"IC13": "1015"}


@dataclass(frozen=True)
class Prediction:
    """One sample and its reading.

    Attributes:
        index: in the source.
        label: as written in the data set.
        text: the reading; empty if the image is unreadable.
        confidence: of the whole reading; 0 if the image is unreadable.
        correct: whether label and text agree under the protocol.
        readable: False if the image could not be decoded; it counts as wrong.
    """

    index: int
    label: str
    text: str
    confidence: float
    correct: bool
    readable: bool = True


@dataclass(frozen=True)
class Score:
    """Scores of a set or a subset. Percentages, except counts.

    Attributes:
        name: of the data set.
        subset: e.g. `"1015"`; None for the whole set.
        n: number of samples scored.
        correct: number of these that are correct under the protocol.
        dropped: number of samples whose label has no character that the protocol compares, or cannot be read.
        unreadable: number of scored samples whose image cannot be decoded.
        accuracy: share of `correct`; by default the case-insensitive alphanumeric word accuracy.
        interval: its 95 % Wilson interval.
        accuracy_62: exact match on digits and letters with case.
        accuracy_94: exact match on all printable ASCII characters.
        accuracy_exact: exact match of the whole text after NFC.
        ned: mean of 1 − edit distance / longer length.
        cer: sum of edit distances / sum of label lengths.
        ece: expected calibration error of the confidence with respect to `correct`, 15 bins.
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
        row = rounded(vars(self))
        ends = {key: row.pop(key) for key in ("unreadable", "dropped")}
        del row["correct"], row["selective"]
        return {**row, **self.selective.as_json(), **ends}


@dataclass(frozen=True)
class SetResult:
    """All readings of one data set.

    Attributes:
        name: of the data set.
        predictions: one per scored sample, in the source's order.
        dropped: indices of the samples whose label has no character that the protocol compares, or cannot be read.
        subsets: name → indices of each subset.
        protocol: which characters were compared.
        unreadable_labels: why the labels of some of `dropped` cannot be read.
    """

    name: str
    predictions: tuple[Prediction, ...]
    dropped: tuple[int, ...]
    subsets: Mapping[str, frozenset[int]]
    protocol: Protocol = FIELD
    unreadable_labels: tuple[str, ...] = ()

    def of(self, subset: str | None) -> list[Prediction]:
        """The predictions of the whole set or of one of its subsets."""
        return [sample for sample in self.predictions if subset is None or sample.index in self.subsets[subset]]

    def score(self, subset: str | None = None) -> Score:
        """Scores of the whole set or of one of its subsets."""
        dropped = [index for index in self.dropped if subset is None or index in self.subsets[subset]]
        return score_of(self.name, subset, self.of(subset), len(dropped), self.protocol)

    @property
    def default_subset(self) -> str | None:
        """The subset that totals use; None for the whole set."""
        subset = DEFAULT_SUBSET.get(self.name)
        return subset if subset in self.subsets and subset not in self.unscored_subsets else None

    @property
    def unscored_subsets(self) -> list[str]:
        """Subsets without any sample that was scored."""
        return [name for name in self.subsets if not self.of(name)]

    def scores(self) -> list[Score]:
        """Scores of the default subset, then of the whole set and the other subsets with samples, the larger first."""
        unscored = self.unscored_subsets
        scored = [name for name in self.subsets if name not in unscored]
        rest: list[str | None] = [None, *sorted(scored, key=lambda name: -len(self.subsets[name]))]
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
    beam: int | None = None,
    pool: Pool = map,
    on_progress: Callable[[int], None] | None = None,
) -> SetResult:
    """Read a data set.

    Args:
        reader: the result does not depend on its `batch_size`.
        source: a labelled data set.
        limit: maximum number of samples to read, evenly spaced over the set; None reads all.
        subsets: name → indices; see `sources.TestSet`.
        lexicons: index → the words to choose from; samples without an entry are read without a lexicon.
        protocol: which characters are compared; default: `protocol_of(reader.charset)`.
        beam: see `Reader.recognize`.
        pool: maps a `SetReader` over parts of the set, in any order; `map` reads here.
        on_progress: called with the number of samples read since the last call.

    Raises:
        StrAppError: no sample of the set can be scored.
    """
    labels, unreadable_labels = [], []
    for index in range(len(source)):
        try:
            labels.append(source.label(index))
        except UnreadableSample as error:
            labels.append("")  # dropped like any label without a letter
            unreadable_labels.append(str(error))
    protocol = protocol or protocol_of(reader.charset)
    scorable = [index for index, label in enumerate(labels) if protocol.fold(label)]
    dropped = tuple(index for index, label in enumerate(labels) if not protocol.fold(label))
    if not scorable:
        hint = "" if protocol is UNICODE else "; --protocol unicode compares the letters of every script"
        problem = f"none of its {len(labels)} labels has a digit or a letter: nothing to score{hint}"
        if unreadable_labels:
            problem = f"{len(unreadable_labels)} of its {len(labels)} labels cannot be read, and none can be scored"
            problem += f"; the first: {unreadable_labels[0]}"
        raise StrAppError(f"{source.name}: {problem}")
    if limit is not None:
        scorable = [scorable[k] for k in evenly_spaced(len(scorable), limit)]
    size = reader.batch_size if pool is map else PART_BATCHES * reader.batch_size
    parts = [Part(start, scorable[start : start + size]) for start in range(0, len(scorable), size)]
    read: dict[int, list[Prediction]] = {}
    for part in pool(SetReader(reader, source, lexicons or {}, protocol, beam), parts):
        read[part.number] = part.predictions
        if on_progress is not None:
            on_progress(len(part.predictions))
    predictions = [prediction for number in sorted(read) for prediction in read[number]]
    found = dict(subsets or {})
    return SetResult(source.name, tuple(predictions), dropped, found, protocol, tuple(unreadable_labels))


def numbered(names: Iterable[str]) -> list[str]:
    """The names of data sets, told apart where several have one: val, val-2, …"""
    distinct: list[str] = []
    for name in names:
        free, number = name, 1
        while free in distinct:
            number += 1
            free = f"{name}-{number}"
        distinct.append(free)
    return distinct


class Part(NamedTuple):
    """Indices of some samples of a set."""

    number: int
    indices: Sequence[int]


class ReadPart(NamedTuple):
    """What was read of them, in order."""

    number: int
    predictions: list[Prediction]


@dataclass(frozen=True)
class SetReader:
    """Reads parts of a set. Pickles as its reader and its source do: by their paths.

    Attributes:
        reader, source, lexicons, protocol, beam: see `evaluate_source`.
    """

    reader: Reader
    source: Source
    lexicons: Mapping[int, Sequence[str]]
    protocol: Protocol
    beam: int | None

    def __call__(self, part: Part) -> ReadPart:
        """Read the samples of a part."""
        return ReadPart(part.number, list(self._read(part.indices)))

    def _read(self, indices: Sequence[int]) -> Iterator[Prediction]:
        reader, lexicons = self.reader, self.lexicons
        crops: dict[int, npt.NDArray[np.uint8]] = {}
        for index in indices:
            try:
                crops[index] = self.source[index].image
            except UnreadableSample:
                continue
        free = [index for index in crops if index not in lexicons]
        restricted = [index for index in crops if index in lexicons]
        readings = dict(zip(free, reader.read_crops([crops[index] for index in free], beam=self.beam), strict=True))
        chosen = reader.read_crops(
            [crops[index] for index in restricted], lexicons=[lexicons[index] for index in restricted]
        )
        readings.update(zip(restricted, chosen, strict=True))
        for index in indices:
            label = self.source.label(index)
            if index in readings:
                text = readings[index].text
                correct = self.protocol.fold(text) == self.protocol.fold(label)
                yield Prediction(index, label, text, readings[index].confidence, correct)
            else:
                yield Prediction(index, label, "", 0.0, correct=False, readable=False)


def score_of(
    name: str, subset: str | None, predictions: Sequence[Prediction], dropped: int, protocol: Protocol
) -> Score:
    """Scores of `predictions`."""
    count = len(predictions)
    correct = [prediction.correct for prediction in predictions]
    confidences = [prediction.confidence for prediction in predictions]
    low, high = metrics.wilson_interval(sum(correct), count)
    distances, similarity, label_length = 0, 0.0, 0
    for prediction in predictions:
        label, text = protocol.fold(prediction.label), protocol.fold(prediction.text)
        distance = metrics.edit_distance(label, text)
        distances += distance
        label_length += len(label)
        similarity += 1.0 - distance / max(len(label), len(text))
    return Score(
        name=name,
        subset=subset,
        n=count,
        correct=sum(correct),
        dropped=dropped,
        unreadable=sum(not prediction.readable for prediction in predictions),
        accuracy=_percent(sum(correct), count),
        interval=(100.0 * low, 100.0 * high),
        accuracy_62=_exact(predictions, lambda text: metrics.restrict(text, metrics.ALPHABET_62)),
        accuracy_94=_exact(predictions, lambda text: metrics.restrict(text, metrics.ALPHABET_94)),
        accuracy_exact=_exact(predictions, lambda text: unicodedata.normalize("NFC", text)),
        ned=_percent(similarity, count),
        cer=_percent(distances, label_length),
        ece=100.0 * metrics.expected_calibration_error(confidences, correct),
        selective=selective_metrics(confidences, correct),
    )


def _exact(predictions: Sequence[Prediction], fold: Callable[[str], str]) -> float:
    matches = sum(p.readable and fold(p.text) == fold(p.label) for p in predictions)
    return _percent(matches, len(predictions))


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else 0.0
