"""Text corpora for the language-modelling studies, as token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from str_app.datasets.sample import DataError
from str_app.datasets.text_files import read_lines


class CorpusError(DataError):
    """A corpus whose file is missing or not text."""


@dataclass(frozen=True)
class Corpus:
    """A corpus as token ids.

    Attributes:
        name: shown in reports.
        kind: what a token is.
        vocabulary: the tokens of the training text, in order of first appearance, and a last one for unknown
            characters where the other texts may have such.
        train, validation, test: int64 (tokens,).
        digest: short SHA-256 of the three texts.
    """

    name: str
    kind: Literal["words", "characters"]
    vocabulary: tuple[str, ...]
    train: Tensor
    validation: Tensor
    test: Tensor
    digest: str


def penn_treebank(root: Path, kind: Literal["words", "characters"]) -> Corpus:
    """Penn Treebank in Mikolov's form: lower case, 10,000 words, `<unk>`, `N` for numbers; `root/ptb/ptb.*.txt`.

    As characters, spaces and line ends are tokens and `<unk>` is spelled out. The usual character-level data set is the
    same text with `_` instead of the space.

    Raises:
        CorpusError: a file is missing, empty or not text; the message says where to put it.
    """
    texts = [_read(root / "ptb" / f"ptb.{split}.txt", "Penn Treebank") for split in ("train", "valid", "test")]
    return _corpus(f"Penn Treebank, {kind}", kind, texts)


def wikitext_2(root: Path) -> Corpus:
    """WikiText-2 words (Merity et al. 2016, arXiv 1609.07843): `root/wikitext-2/{train,valid,test}.txt`.

    Raises:
        CorpusError: see `penn_treebank`.
    """
    texts = [_read(root / "wikitext-2" / f"{split}.txt", "WikiText-2") for split in ("train", "valid", "test")]
    return _corpus("WikiText-2, words", "words", texts)


def wikitext_2_characters(root: Path) -> Corpus:
    """WikiText-2 without its training file: trained on `valid.txt`, validated and tested on the halves of `test.txt`.

    Characters that `valid.txt` does not have are one token.

    Raises:
        CorpusError: see `penn_treebank`.
    """
    train, rest = (_read(root / "wikitext-2" / f"{split}.txt", "WikiText-2") for split in ("valid", "test"))
    texts = [train, rest[: len(rest) // 2], rest[len(rest) // 2 :]]
    return _corpus("WikiText-2, characters", "characters", texts, unknown="\ufffd")


def tiny_shakespeare(root: Path) -> Corpus:
    """Tiny Shakespeare (Karpathy 2015), characters: 90 % for training, 5 % each for validation and test.

    Raises:
        CorpusError: see `penn_treebank`.
    """
    text = _read(root / "tinyshakespeare.txt", "Tiny Shakespeare")
    first, second = len(text) * 90 // 100, len(text) * 95 // 100
    return _corpus("Tiny Shakespeare, characters", "characters", [text[:first], text[first:second], text[second:]])


def _read(path: Path, name: str) -> str:
    if not path.is_file():
        raise CorpusError(f"{path}: no such file; {name} is not distributed with str-app: put your copy there")
    try:
        text = "\n".join(read_lines(path))
    except DataError as error:
        raise CorpusError(str(error)) from error
    if not text.strip():
        raise CorpusError(f"{path}: empty; put the text of {name} there")
    return text


def _corpus(name: str, kind: Literal["words", "characters"], texts: list[str], unknown: str | None = None) -> Corpus:
    tokens = [list(_tokens(text, kind)) for text in texts]
    ids = {token: index for index, token in enumerate(dict.fromkeys(tokens[0]))}
    if unknown is not None:
        ids.setdefault(unknown, len(ids))
    spare = ids.get(unknown or "<unk>")  # no character is called `<unk>`
    train, validation, test = (_encode(split, ids, spare, name) for split in tokens)
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
    return Corpus(name, kind, tuple(ids), train, validation, test, digest)


def _encode(tokens: list[str], ids: dict[str, int], unknown: int | None, name: str) -> Tensor:
    encoded = [ids.get(token, unknown) for token in tokens]
    if None in encoded:
        missing = tokens[encoded.index(None)]
        raise CorpusError(f"{name}: {missing!r} is not in the training text, which has no <unk>")
    return torch.tensor(encoded)


def _tokens(text: str, kind: str) -> Iterator[str]:
    """Words with `<eos>` at each line's end, or characters."""
    if kind == "characters":
        yield from text
        return
    for line in text.splitlines():
        yield from line.split()
        yield "<eos>"
