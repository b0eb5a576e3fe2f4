"""The registry of studies, each in three sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from str_app.datasets.text_corpus import Corpus, penn_treebank, tiny_shakespeare, wikitext_2, wikitext_2_characters
from str_app.errors import StrAppError
from str_app.models.backbones.resnet import ResNetConfig
from str_app.models.decoders.attention_decoder import AttentionDecoderConfig
from str_app.models.recognizer import RecognizerConfig
from str_app.study.experiment import Experiment, Training
from str_app.study.language import LEAST_TOKENS, Language, LanguageSizes
from str_app.study.scene_text import SceneText, data_sets
from str_app.study.synthetic import Adding, CopyMemory, EqualNumbers, MarkedCount
from str_app.study.variants import GATES, UNITS, GateName, UnitName
from str_app.training.settings import TrainSettings

Scale = Literal["quick", "default", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)
Experiments = Callable[[Scale, Path, Sequence[int]], list[Experiment]]


@dataclass(frozen=True)
class Study:
    """A named study.

    Attributes:
        about: a line for the list of studies and the report.
        experiments: function of scale, folder of the corpora, and lengths (empty: the study's own).
        seeds: number of seeds for the scales quick, default and paper.
        units, gates: that the study can compare.
    """

    about: str
    experiments: Experiments
    seeds: tuple[int, int, int] = (2, 5, 5)
    units: tuple[UnitName, ...] = UNITS
    gates: tuple[GateName, ...] = GATES


Sizes = dict[Scale, tuple[tuple[int, ...], Training, int]]  # lengths, training and hidden size

_ADDING: Sizes = {
    "quick": ((30,), Training(800, 32, 3e-3, evaluate_every=50), 32),
    "default": ((50, 100, 200), Training(2000, 50, 2e-3), 64),
    "paper": ((50, 100, 200, 400), Training(20_000, 50), 128),
}
_COUNTING: Sizes = {
    "quick": ((20,), Training(800, 32, 3e-3, evaluate_every=50), 32),
    "default": ((50,), Training(1500, 50, 2e-3), 64),
    "paper": ((50, 100, 200), Training(20_000, 50), 128),
}
_COPY: Sizes = {
    "quick": ((10,), Training(400, 32, 3e-3, evaluate_every=50), 48),
    "default": ((50,), Training(2000, 50, 2e-3), 96),
    "paper": ((50, 100, 200), Training(30_000, 64), 128),
}


def _synthetic(sizes: Sizes, *tasks: Callable[[int, Training, int], Experiment]) -> Experiments:
    """Each task at each length; aⁿbⁿ may be the same at two of them."""

    def experiments(scale: Scale, data: Path, lengths: Sequence[int]) -> list[Experiment]:
        own, training, hidden = sizes[scale]
        made = [task(length, training, hidden) for task in tasks for length in lengths or own]
        return list({experiment.name: experiment for experiment in made}.values())

    return experiments


def _equal_numbers(length: int, training: Training, hidden: int) -> Experiment:
    """aⁿbⁿ is easier than counting between marks: half the hidden size and half the steps."""
    return EqualNumbers(2 * length // 5, replace(training, steps=training.steps // 2), hidden // 2)


def _language(
    read: Callable[[Path], Corpus],
    steps: tuple[int, int, int],
    sizes: tuple[LanguageSizes, LanguageSizes],
    batch: tuple[int, int] = (32, 70),
) -> Experiments:
    """A language study: steps of the three scales; network sizes of quick and default, and of paper.

    `batch` is the number of streams and of tokens of each, except at the paper's scale.
    """

    def experiments(scale: Scale, data: Path, lengths: Sequence[int]) -> list[Experiment]:
        count = steps[SCALES.index(scale)]
        streams, window = (40, 70) if scale == "paper" else batch
        training = Training(count, streams, 2e-3, cosine=True, clip_norm=0.5, evaluate_every=max(1, count // 10))
        chosen = sizes[scale == "paper"]
        corpus = read(data)
        for bptt in lengths or (window,):
            longest = len(corpus.train) // streams
            if bptt >= longest:
                raise StrAppError(
                    f"{corpus.name}: a step of {bptt} tokens is longer than each of the {streams} streams ({longest} "
                    "tokens): give a smaller --length"
                )
        for split, text in (("validation", corpus.validation), ("test", corpus.test)):
            if len(text) < LEAST_TOKENS:
                raise StrAppError(
                    f"{corpus.name}: the {split} text has {len(text)} tokens, and at least {LEAST_TOKENS} are needed"
                )
        return [
            Language(corpus, training, chosen, bptt, suffix="" if bptt == window else f", BPTT {bptt}")
            for bptt in lengths or (window,)
        ]

    return experiments


# A quarter of the arithmetic of the first `small` preset.
REDUCED = RecognizerConfig(
    backbone=ResNetConfig(stem=(16, 24), stages=(48, 80, 128)),
    decoder=AttentionDecoderConfig(hidden_size=128, attention_size=64, embedding_size=32),
)


def _scene_text(scale: Scale, data: Path, lengths: Sequence[int]) -> list[Experiment]:
    """The recogniser, of the architecture `REDUCED` except at paper scale."""
    train, validation = data_sets(data)
    common = TrainSettings(train=train, validation=validation, workers=0, log_every=50)
    match scale:
        case "quick":
            settings = replace(common, steps=20, warmup_steps=5, architecture=REDUCED, validation_limit=50)
        case "default":
            settings = replace(
                common,
                steps=2000,
                warmup_steps=200,
                ema_decay=0.99,
                architecture=REDUCED,
                validate_every=1000,
                validation_limit=0,
            )
        case "paper":
            settings = replace(common, steps=60_000, validate_every=5000, validation_limit=0)
    return [SceneText(settings)]


_WORDS = (LanguageSizes(128, 128, dropout=0.3), LanguageSizes(400, 1150, 3, 0.1, 0.4, 0.5))
_CHARACTERS = (LanguageSizes(128, 128, dropout=0.1), LanguageSizes(128, 1000, 3, 0.0, 0.1, 0.25))
_ONE_PASS = (20, 35)  # 1,300 steps read Penn Treebank once; the output layer of 10,000 words takes most of the time

STUDIES: dict[str, Study] = {
    "adding": Study("The adding problem: the sum of two marked numbers among T.", _synthetic(_ADDING, Adding)),
    "counting": Study(
        "Counting a symbol between two marks, and aⁿbⁿ beyond the trained n.",
        _synthetic(_COUNTING, MarkedCount, _equal_numbers),
    ),
    "copy": Study("Copy memory: ten symbols to repeat after a delay.", _synthetic(_COPY, CopyMemory)),
    "shakespeare": Study(
        "Tiny Shakespeare by characters.", _language(tiny_shakespeare, (150, 1000, 20_000), _CHARACTERS)
    ),
    "ptb-characters": Study(
        "Penn Treebank by characters.",
        _language(lambda root: penn_treebank(root, "characters"), (100, 1500, 60_000), _CHARACTERS),
    ),
    "ptb-words": Study(
        "Penn Treebank by words.",
        _language(lambda root: penn_treebank(root, "words"), (60, 1300, 130_000), _WORDS, _ONE_PASS),
    ),
    "wikitext-2-characters": Study(
        "WikiText-2 by characters: trained on valid.txt, validated and tested on the halves of test.txt.",
        _language(wikitext_2_characters, (150, 1000, 20_000), _CHARACTERS),
    ),
    "wikitext-2": Study("WikiText-2 by words.", _language(wikitext_2, (60, 3000, 280_000), _WORDS, _ONE_PASS)),
    "scene-text": Study(
        "The recogniser with each kind of gates in its decoder; --data has train/ and validation/.",
        _scene_text,
        seeds=(1, 5, 5),
        units=("LSTM",),
        gates=("none", "add", "mul", "ur"),
    ),
}
