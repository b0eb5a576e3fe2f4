"""Which characters a text may have: digits only, plates, codes."""

from __future__ import annotations

import numpy as np

from str_app.decoding.scoring import Mask
from str_app.errors import StrAppError
from str_app.models.charset import Charset


def parse_characters(text: str) -> str:
    """The characters that a list such as `0-9A-F.-` stands for, each once, in order.

    A `-` between two characters is a range, at either end of the list it is itself; a backslash takes the next
    character literally.

    Raises:
        StrAppError: nothing is listed, a range runs backwards, or a backslash ends the list.
    """
    tokens: list[tuple[str, bool]] = []  # a character, and whether it is literal
    chars = iter(text)
    for char in chars:
        if char != "\\":
            tokens.append((char, False))
            continue
        escaped = next(chars, None)
        if escaped is None:
            raise StrAppError(f"characters {text!r}: nothing follows the backslash at the end")
        tokens.append((escaped, True))
    listed: dict[str, None] = {}
    index = 0
    while index < len(tokens):
        first = tokens[index][0]
        if index + 2 < len(tokens) and tokens[index + 1] == ("-", False):
            last = tokens[index + 2][0]
            if ord(last) < ord(first):
                raise StrAppError(f"characters {text!r}: the range {first}-{last} runs backwards")
            listed.update(dict.fromkeys(map(chr, range(ord(first), ord(last) + 1))))
            index += 3
        else:
            listed[first] = None
            index += 1
    if not listed:
        raise StrAppError("characters: the list is empty; give at least one character, such as 0-9")
    return "".join(listed)


def mask_of(characters: str, charset: Charset) -> Mask:
    """bool (V,): the classes that a text of these characters may have, the end among them.

    Raises:
        StrAppError: the model reads none of the characters; in either case counts.
    """
    wanted = [char for char in characters if char in charset]
    if not wanted:
        raise StrAppError(f"characters {characters!r}: the model's charset has none of them")
    mask = np.zeros(charset.num_classes, dtype=np.bool_)
    mask[charset.encode("".join(wanted))] = True
    return mask
