"""Texts that no word list holds: numbers, prices, times, punctuation, addresses, coined names, plain noise."""

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
RARE = '[]{}<>\\^`;%?=_~|#+"'  # hardly ever met otherwise
BRACKETS = ["()", "()", "()", "[]", "{}", "<>", '""', '""', "''", "**", "//", "--", "__", "||", "~~", "``"]


def _one(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _digits(rng: np.random.Generator, low: int, high: int) -> str:
    """`low` to `high` digits, both included; zeros may lead."""
    return "".join(str(digit) for digit in rng.integers(0, 10, int(rng.integers(low, high + 1))))


def _count(rng: np.random.Generator, high: int) -> str:
    """A number below 10**`high` whose length is uniform, so that small numbers are as common as they are on signs."""
    return str(int(rng.integers(0, 10 ** int(rng.integers(1, high + 1)))))


def number(rng: np.random.Generator) -> str:
    """A number as it stands on signs, tags and boards."""
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
        return _count(rng, 3) + _one(rng, UNITS)
    if kind < 0.71:
        return f"{_count(rng, 2)}{_one(rng, '.,')}{_digits(rng, 1, 2)}"
    if kind < 0.78:
        return _clock_or_date(rng)
    if kind < 0.85:
        return _phone(rng)
    if kind < 0.90:
        return f"{_count(rng, 2)}/{_count(rng, 3)}"
    if kind < 0.94:
        letters = "".join(_one(rng, string.ascii_uppercase) for _ in range(int(rng.integers(1, 4))))
        parts = [letters, _count(rng, 4)] if rng.random() < 0.6 else [_count(rng, 3), letters]
        return _one(rng, ["", "", "-"]).join(parts)
    if kind < 0.97:
        return _one(rng, ["#", "No.", "+", "-", "x", "=", "<", ">", "@", "(", "*", "&"]) + _count(rng, 3)
    return f"{_count(rng, 2)}{_one(rng, '-+x*=:~_|')}{_count(rng, 2)}"


def _price(rng: np.random.Generator) -> str:
    amount = _count(rng, 3)
    kind = rng.random()
    if kind < 0.6:
        amount += "." + ("99" if rng.random() < 0.2 else "00" if rng.random() < 0.2 else _digits(rng, 2, 2))
    elif kind < 0.7:
        amount = f"{_count(rng, 2)},{_digits(rng, 3, 3)}"
    if rng.random() < 0.7:
        return _one(rng, CURRENCIES) + amount
    return amount + _one(rng, ["", "", "/-", "c", "p", "$", "+", "*"])


def _clock_or_date(rng: np.random.Generator) -> str:
    if rng.random() < 0.55:
        clock = f"{int(rng.integers(0, 24))}{_one(rng, '::.')}{int(rng.integers(0, 60)):02d}"
        return clock + _one(rng, ["", "", "am", "pm", "AM", "PM", "h", f"-{int(rng.integers(1, 24))}"])
    mark = _one(rng, "//.-")
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
    mark = _one(rng, "-.")
    return f"{_digits(rng, 3, 3)}{mark}{_digits(rng, 3, 3)}{mark}{_digits(rng, 4, 4)}"


def punctuated(rng: np.random.Generator, word: str) -> str:
    """`word` with the punctuation it meets in print."""
    kind = rng.random()
    if kind < 0.17:
        return word + ("'S" if word.isupper() else "'s")
    if kind < 0.47:
        return word + _one(
            rng, [".", ".", ",", ",", "!", "!", "?", ":", ";", "...", "-", "*", "!!", '"', "'", ")", "&"]
        )
    if kind < 0.57:
        return word + "-" + (coinage(rng).upper() if word.isupper() else coinage(rng))
    if kind < 0.70:
        pair = _one(rng, BRACKETS)
        return pair[0] + word + pair[1]
    if kind < 0.80:
        letters = [_one(rng, string.ascii_uppercase) for _ in range(int(rng.integers(2, 5)))]
        return _one(rng, ["&", "&", ".", "/", "-"]).join(letters)
    if kind < 0.86:
        letters = [_one(rng, string.ascii_uppercase) for _ in range(int(rng.integers(1, 4)))]
        return ".".join(letters) + "."
    if kind < 0.94:
        return (
            _one(rng, ["'", '"', "(", "#", "@", "&", "-", "*", ".", "/", "$", "+", "~", "^", "_", "<", ">", "\\"])
            + word
        )
    if kind < 0.97:
        return word + _one(rng, ["/", "&", "+", "@", "'", "|", "_", "=", "\\"]) + word[: int(rng.integers(1, 5))]
    return _one(rng, string.punctuation)


def address(rng: np.random.Generator, first: str, second: str) -> str:
    """A web or e-mail address."""
    domain = _one(rng, DOMAINS)
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


def coinage(rng: np.random.Generator) -> str:
    """A pronounceable name of one to three syllables."""
    syllables = 1 + int(rng.random() < 0.75) + int(rng.random() < 0.3)
    return "".join(_one(rng, ONSETS) + _one(rng, NUCLEI) + _one(rng, CODAS) for _ in range(syllables))


def random_string(rng: np.random.Generator, alphabet: str) -> str:
    """1 to 8 characters of `alphabet`, each with the same probability."""
    return "".join(alphabet[i] for i in rng.integers(0, len(alphabet), int(rng.integers(1, 9))))


def sprinkled(rng: np.random.Generator, word: str) -> str:
    """`word` with one to three punctuation characters anywhere, so that every character of the charset is learnt."""
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(0, len(word) + 1))
        word = word[:place] + _one(rng, RARE if rng.random() < 0.75 else string.punctuation) + word[place:]
    return word
