"""Which characters a text may have: digits only, plates, codes."""

from __future__ import annotations

import unicodedata

import numpy as np

from str_app.decoding.scoring import Mask
from str_app.errors import StrAppError
from str_app.models.charset import Charset


def parse_characters(text: str, charset: Charset) -> str:
    """The characters of the charset that a list such as `0-9A-F.-` allows, each once, in the list's order.

    A `-` between two characters is a range, at either end of the list it is itself; a backslash takes the next
    character literally. A range costs no more than the charset has characters, however wide it is.

    Raises:
        StrAppError: the list is not a str, nothing is listed, a range runs backwards, a backslash ends the list, or the
            charset has none of the characters.
    """
    if not isinstance(text, str):
        raise StrAppError(f"characters is a {type(text).__name__}: give one text, such as '0-9A-F'")
    tokens: list[tuple[str, bool]] = []  # a character, and whether it is literal
    if any(unicodedata.combining(char) and char not in charset for char in text):
        text = unicodedata.normalize("NFC", text)  # its accents are characters of their own
    chars = iter(text)
    for char in chars:
        if char != "\\":
            tokens.append((char, False))
            continue
        escaped = next(chars, None)
        if escaped is None:
            raise StrAppError(f"characters {text!r}: nothing follows the backslash at the end")
        tokens.append((escaped, True))
    if not tokens:
        raise StrAppError("characters: the list is empty; give at least one character, such as 0-9")
    allowed: dict[str, None] = {}
    index = 0
    while index < len(tokens):
        first = last = tokens[index][0]
        if index + 2 < len(tokens) and tokens[index + 1] == ("-", False):
            last = tokens[index + 2][0]
            if last < first:
                raise StrAppError(f"characters {text!r}: the range {first}-{last} runs backwards")
            index += 2
        index += 1
        allowed.update(dict.fromkeys(sorted(char for char in charset.characters if first <= char <= last)))
    if not allowed:
        raise StrAppError(f"characters {text!r}: the model's charset has none of them")
    return "".join(allowed)


def mask_of(characters: str, charset: Charset) -> Mask:
    """bool (V,): the classes that a text of these characters may have, the end among them.

    Args:
        characters: of the charset, as `parse_characters` gives them.
        charset: of the model.
    """
    mask = np.zeros(charset.num_classes, dtype=np.bool_)
    mask[charset.encode(characters)] = True
    return mask
