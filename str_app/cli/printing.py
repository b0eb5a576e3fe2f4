"""Rows and JSON lines on standard output that any file name leaves whole."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def row(*cells: str) -> str:
    """Cells with tabs between them; backslashes and control characters in a cell are escaped as in C."""
    return "\t".join(re.sub(r"[\\\x00-\x1f\x7f-\x9f]", _escape, cell) for cell in cells)


def json_line(fields: Mapping[str, Any]) -> str:
    """JSON that UTF-8 can hold: bytes of a file name that are not UTF-8 become U+FFFD, as in hOCR."""
    return re.sub("[\ud800-\udfff]", "\ufffd", json.dumps(fields, ensure_ascii=False))


def _escape(found: re.Match[str]) -> str:
    return _SHORT.get(found[0], f"\\x{ord(found[0]):02x}")
