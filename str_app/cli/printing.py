"""Lines that any file name leaves whole: rows and documents on standard output, notes on standard error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import typer

from str_app.errors import StrAppError

_CONTROL = r"\x00-\x1f\x7f-\x9f"
_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def row(*cells: str) -> str:
    """Cells with tabs between them; backslashes and control characters in a cell are escaped as in C."""
    return "\t".join(re.sub(rf"[\\{_CONTROL}]", _escape, cell) for cell in cells)


def json_line(fields: Mapping[str, Any]) -> str:
    """JSON that UTF-8 can hold and terminals do not obey: bytes of a file name that are not UTF-8 become U+FFFD."""
    encoded = re.sub("[\ud800-\udfff]", "\ufffd", json.dumps(fields, ensure_ascii=False))
    return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", encoded)


def printable(text: str) -> str:
    """One line of text whose control characters, which a terminal would obey, are escaped."""
    return re.sub(f"[{_CONTROL}]", _escape, text)


def write(text: str | bytes, newline: bool = True) -> None:
    """Print on standard output. Raises StrAppError where it cannot be written, as on a full disk."""
    try:
        typer.echo(text, nl=newline)
    except BrokenPipeError:  # `| head`: typer ends quietly
        raise
    except OSError as error:
        raise StrAppError(f"standard output: {error.strerror}") from None


def write_document(text: str, newline: bool = True) -> None:
    """Print JSON, hOCR or ALTO as UTF-8, which they are by definition, whatever encoding standard output has for rows.

    Raises:
        StrAppError: see `write`.
    """
    takes_bytes = hasattr(sys.stdout, "buffer")  # `io.StringIO` in its place does not
    write(text.encode("utf-8", "replace") if takes_bytes else text, newline)


def write_line(text: str) -> None:
    """Print one line on standard output; control characters in it, line breaks too, are escaped.

    Raises:
        StrAppError: see `write`.
    """
    write(printable(text))


def write_lines(text: str) -> None:
    """Print lines of text on standard output; control characters in them are escaped.

    Raises:
        StrAppError: see `write`.
    """
    write("\n".join(map(printable, text.split("\n"))))


def note(text: str) -> None:
    """Print one line on standard error, if it can be written; control characters are escaped."""
    with suppress(OSError):  # a terminal that was closed: the exit code still tells
        typer.echo(printable(text), err=True)


def _escape(found: re.Match[str]) -> str:
    return _SHORT.get(found[0], f"\\x{ord(found[0]):02x}")
