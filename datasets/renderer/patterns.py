"""Texts that are not in word lists: numbers, prices, times, punctuation, addresses, invented names, random strings."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

CURRENCIES = "$$$$$#"
ONSETS = (
    *"bcdfghjklmnprstvwxyz",
    *("qu", "bl", "br", "ch", "cl", "cr", "dr", "fl", "fr", "gl", "gr", "pl", "pr"),
    *("sc", "sh", "sk", "sl", "sm", "sn", "sp", "st", "th", "tr", "tw"),
)
NUCLEI = (*"aeiouaeiou", "ai", "ea", "ee", "ia", "io", "oo", "ou", "y")
CODAS = (*[""] * 5, *"bdfgklmnnprrstxz", "ck", "ll", "nd", "ng", "nt", "ss", "st")
DOMAINS = (
    "com",
    "com",
    "com",
    "com",
    "net",
    "org",
    "co.uk",
    "de",
    "nl",
    "it",
    "fr",
    "in",
    "sg",
    "com.au",
    "edu",
    "gov",
)
UNITS = (
    *("kg", "g", "ml", "cm", "mm", "km", "mph", "kmph", "GB", "MB", "oz", "lb", "m", "%", "%", "%"),
    *("am", "pm", "AM", "PM", "th", "st", "nd", "rd", "s", "x"),
)
RARE = '[]{}<>\\^`;%?=_~|#+"'  # rare in all other texts
BRACKETS = ["()", "()", "()", "[]", "{}", "<>", '""', '""', "''", "**", "//", "--", "__", "||", "~~", "``"]

# What recognisers confuse most often, in either direction.
CONFUSED = tuple(
    tuple(pair.split("-"))
    for pair in "c-g a-o m-n i-l m-rn c-e u-v f-t h-n b-h d-cl q-g i-j r-n C-G O-Q O-D I-L M-N E-F P-R U-V B-R H-N "
    "T-I V-Y K-X 0-O 1-l 1-I 5-S 8-B 2-Z 6-G 0-6 3-8 1-7".split()
)


def _choice(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _digits(rng: np.random.Generator, low: int, high: int) -> str:
    """`low` to `high` digits, both included; zeros may lead."""
    return "".join(str(digit) for digit in rng.integers(0, 10, int(rng.integers(low, high + 1))))


def _count(rng: np.random.Generator, high: int) -> str:
    """A number below 10**`high` with a uniform number of digits: small numbers are common, as on signs."""
    return str(int(rng.integers(0, 10 ** int(rng.integers(1, high + 1)))))


def number(rng: np.random.Generator) -> str:
    """A number as on signs and tags."""
    kind = rng.random()
    if kind < 0.34:
        return _count(rng, 4)
    if kind < 0.42:
        return str(int(rng.integers(1890, 2031)))
    if kind < 0.47:
        return _digits(rng, 4, 8)
    if kind < 0.59:
        return _price(rng)
    if kind < 0.66:
        return _count(rng, 3) + _choice(rng, UNITS)
    if kind < 0.71:
        return f"{_count(rng, 2)}{_choice(rng, '.,')}{_digits(rng, 1, 2)}"
    if kind < 0.78:
        return _clock_or_date(rng)
    if kind < 0.85:
        return _phone(rng)
    if kind < 0.90:
        return f"{_count(rng, 2)}/{_count(rng, 3)}"
    if kind < 0.94:
        letters = "".join(_choice(rng, string.ascii_uppercase) for _ in range(int(rng.integers(1, 4))))
        parts = [letters, _count(rng, 4)] if rng.random() < 0.6 else [_count(rng, 3), letters]
        return _choice(rng, ["", "", "-"]).join(parts)
    if kind < 0.97:
        return _choice(rng, ["#", "No.", "+", "-", "x", "=", "<", ">", "@", "(", "*", "&"]) + _count(rng, 3)
    return f"{_count(rng, 2)}{_choice(rng, '-+x*=:~_|')}{_count(rng, 2)}"


def _price(rng: np.random.Generator) -> str:
    amount = _count(rng, 3)
    kind = rng.random()
    if kind < 0.6:
        amount += "." + ("99" if rng.random() < 0.2 else "00" if rng.random() < 0.2 else _digits(rng, 2, 2))
    elif kind < 0.7:
        amount = f"{_count(rng, 2)},{_digits(rng, 3, 3)}"
    if rng.random() < 0.7:
        return _choice(rng, CURRENCIES) + amount
    return amount + _choice(rng, ["", "", "/-", "c", "p", "$", "+", "*"])


def _clock_or_date(rng: np.random.Generator) -> str:
    if rng.random() < 0.55:
        clock = f"{int(rng.integers(0, 24))}{_choice(rng, '::.')}{int(rng.integers(0, 60)):02d}"
        return clock + _choice(rng, ["", "", "am", "pm", "AM", "PM", "h", f"-{int(rng.integers(1, 24))}"])
    mark = _choice(rng, "//.-")
    day, month, year = int(rng.integers(1, 32)), int(rng.integers(1, 13)), int(rng.integers(1950, 2031))
    kind = rng.random()
    if kind < 0.4:
        return f"{day:02d}{mark}{month:02d}{mark}{year if rng.random() < 0.5 else year % 100:02d}"
    if kind < 0.7:
        return f"{day}{mark}{month}"
    return f"{year}-{year % 100 + 1:02d}" if rng.random() < 0.5 else f"'{year % 100:02d}"


def _phone(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.3:
        return f"{_digits(rng, 3, 3)}-{_digits(rng, 4, 4)}"
    if kind < 0.5:
        return f"({_digits(rng, 3, 3)}){_digits(rng, 3, 3)}-{_digits(rng, 4, 4)}"
    if kind < 0.65:
        return f"+{_digits(rng, 5, 12)}"
    if kind < 0.8:
        return f"0{_digits(rng, 3, 3)}-{_digits(rng, 4, 6)}"
    mark = _choice(rng, "-.")
    return f"{_digits(rng, 3, 3)}{mark}{_digits(rng, 3, 3)}{mark}{_digits(rng, 4, 4)}"


def punctuated(rng: np.random.Generator, word: str) -> str:
    """`word` with common punctuation."""
    kind = rng.random()
    if kind < 0.17:
        return word + ("'S" if word.isupper() else "'s")
    if kind < 0.47:
        return word + _choice(
            rng, [".", ".", ",", ",", "!", "!", "?", ":", ";", "...", "-", "*", "!!", '"', "'", ")", "&"]
        )
    if kind < 0.57:
        return word + "-" + (invented_name(rng).upper() if word.isupper() else invented_name(rng))
    if kind < 0.70:
        pair = _choice(rng, BRACKETS)
        return pair[0] + word + pair[1]
    if kind < 0.80:
        letters = [_choice(rng, string.ascii_uppercase) for _ in range(int(rng.integers(2, 5)))]
        return _choice(rng, ["&", "&", ".", "/", "-"]).join(letters)
    if kind < 0.86:
        letters = [_choice(rng, string.ascii_uppercase) for _ in range(int(rng.integers(1, 4)))]
        return ".".join(letters) + "."
    if kind < 0.94:
        return (
            _choice(rng, ["'", '"', "(", "#", "@", "&", "-", "*", ".", "/", "$", "+", "~", "^", "_", "<", ">", "\\"])
            + word
        )
    if kind < 0.97:
        return word + _choice(rng, ["/", "&", "+", "@", "'", "|", "_", "=", "\\"]) + word[: int(rng.integers(1, 5))]
    return _choice(rng, string.punctuation)


def address(rng: np.random.Generator, first: str, second: str) -> str:
    """A web or e-mail address."""
    domain = _choice(rng, DOMAINS)
    name = first.lower() if rng.random() < 0.6 or len(first) + len(second) > 14 else (first + second).lower()
    kind = rng.random()
    if kind < 0.45:
        text = f"www.{name}.{domain}"
    elif kind < 0.75:
        text = f"{name}.{domain}"
    elif kind < 0.80:
        text = f".{domain}"
    elif kind < 0.84:
        text = f"http://{name}.{domain}"
    else:
        text = f"{name[:10]}@{second.lower()[:9]}.{domain}"
    return text.upper() if rng.random() < 0.15 else text


def invented_name(rng: np.random.Generator) -> str:
    """A pronounceable name of one to three syllables."""
    syllables = 1 + int(rng.random() < 0.75) + int(rng.random() < 0.3)
    return "".join(_choice(rng, ONSETS) + _choice(rng, NUCLEI) + _choice(rng, CODAS) for _ in range(syllables))


def random_string(rng: np.random.Generator, alphabet: str) -> str:
    """1 to 8 characters of `alphabet`, uniformly distributed."""
    return "".join(alphabet[i] for i in rng.integers(0, len(alphabet), int(rng.integers(1, 9))))


def with_random_punctuation(rng: np.random.Generator, word: str) -> str:
    """`word` with one to three punctuation characters anywhere, so that every character occurs in training."""
    for _ in range(int(rng.integers(1, 4))):
        index = int(rng.integers(0, len(word) + 1))
        word = word[:index] + _choice(rng, RARE if rng.random() < 0.75 else string.punctuation) + word[index:]
    return word


def contextless(rng: np.random.Generator) -> str:
    """2 to 10 letters, uniformly distributed; a fifth of the strings have digits among them."""
    alphabet = string.ascii_lowercase + string.digits if rng.random() < 0.2 else string.ascii_lowercase
    return "".join(alphabet[i] for i in rng.integers(0, len(alphabet), int(rng.integers(2, 11))))


def confused(rng: np.random.Generator, word: str) -> str:
    """`word` with one or two letters replaced by others that look like them; unchanged if it has none of `CONFUSED`."""
    for _ in range(1 + int(rng.random() < 0.3)):
        replacements = [
            (start, old, new)
            for pair in CONFUSED
            for old, new in (pair, pair[::-1])
            for start in range(len(word))
            if word.startswith(old, start)
        ]
        if replacements:
            start, old, new = replacements[int(rng.integers(len(replacements)))]
            word = word[:start] + new + word[start + len(old) :]
    return word
