"""What `str-app export` writes into its graphs, checked field by field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from str_app.engines.graph_folder import FORMAT, GraphError
from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing
from str_app.models.stored_config import checked_info


@dataclass(frozen=True)
class GraphHeader:
    """The model that the graphs of a folder run.

    Attributes:
        charset, preprocessing, max_length, info: see `str_app.engines.base.Engine`.
        map_rows: rows of the feature map, over which attention is spread.
        precision: of weights and convolutions: fp32 or int8.
        source_sha256: of the checkpoint that was exported.
    """

    charset: Charset
    preprocessing: Preprocessing
    max_length: int
    map_rows: int
    precision: str
    source_sha256: str
    info: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str, file: Path) -> GraphHeader:
        """From the JSON in a graph's metadata.

        Args:
            text: the JSON.
            file: the graph, for errors.

        Raises:
            GraphError: not JSON, another format, or a field that is missing or wrong; names the file and the field.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise GraphError(f"{file}: its metadata is not JSON ({error}); export the model again") from None
        if not isinstance(values, dict):
            raise GraphError(f"{file}: its metadata is not a JSON object; export the model again")
        if values.get("format") != FORMAT:
            raise GraphError(
                f"{file}: format {values.get('format')!r}, this version reads {FORMAT!r}; export the model again"
            )

        def field(name: str, parse: Callable[[Any], Any]) -> Any:
            if name not in values:
                raise GraphError(f"{file}: its metadata lacks {name!r}; export the model again")
            try:
                return parse(values[name])
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                raise GraphError(f"{file}: {name!r} in its metadata: {error}; export the model again") from None

        return cls(
            charset=field("charset", _charset),
            preprocessing=field("preprocessing", _preprocessing),
            max_length=field("max_length", _count),
            map_rows=field("map_rows", _count),
            precision=field("precision", _precision),
            source_sha256=field("source", _sha256),
            info=field("info", checked_info),
        )


def _charset(value: Any) -> Charset:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return Charset(value)


def _preprocessing(value: Any) -> Preprocessing:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not a JSON object")
    return Preprocessing.from_dict(value)


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is not an integer of at least 1")
    return value


def _precision(value: Any) -> str:
    if value not in ("fp32", "int8"):
        raise ValueError(f"{value!r} is neither fp32 nor int8")
    return str(value)


def _sha256(value: Any) -> str:
    sha256 = value.get("sha256") if isinstance(value, dict) else None
    if not isinstance(sha256, str):
        raise TypeError(f"{value!r} has no sha256")
    return sha256
