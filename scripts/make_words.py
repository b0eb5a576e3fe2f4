"""Writes str_app/decoding/words.txt.gz, the word frequencies of `str_app.decoding.word_prior`, from wordfreq.

    python scripts/make_words.py

A line for each tenth of a power of ten: its exponent, then the words of that frequency.
"""

from __future__ import annotations

import gzip
import math
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import wordfreq

from str_app.datasets.renderer.words import ENGLISH_WORDS, OTHER_LANGUAGES, OTHER_WORDS

OTHER_SHARE = 0.02  # factor of the frequency in each of these languages
TARGET = Path(__file__).parent.parent / "str_app" / "decoding" / "words.txt.gz"
HEADER = f"""\
# English words and some of {", ".join(OTHER_LANGUAGES)}, by frequency: log10, then the words.
# From wordfreq {version("wordfreq")} by Robyn Speer (doi 10.5281/zenodo.7199437), changed: chosen, mixed, rounded.
# Licence: Creative Commons Attribution-ShareAlike 4.0, https://creativecommons.org/licenses/by-sa/4.0/
"""


def main() -> None:
    """Write the file; the same words give the same bytes."""
    frequencies: dict[str, float] = {}
    for language, count, share in [
        ("en", ENGLISH_WORDS, 1.0),
        *((code, OTHER_WORDS, OTHER_SHARE) for code in OTHER_LANGUAGES),
    ]:
        known = wordfreq.get_frequency_dict(language, "best")
        for word in wordfreq.top_n_list(language, count):
            # don't and o'clock are words; possessives are covered by their stem.
            if word.isascii() and word.replace("'", "").isalpha() and not word.endswith("'s"):
                frequencies[word] = max(frequencies.get(word, 0.0), known[word] * share)
    lines = defaultdict(list)
    for word in sorted(frequencies):
        lines[round(math.log10(frequencies[word]), 1)].append(word)
    text = HEADER + "".join(f"{exponent:.1f} {' '.join(words)}\n" for exponent, words in sorted(lines.items()))
    with TARGET.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text.encode())
    print(f"{TARGET}: {len(frequencies)} words, {TARGET.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
