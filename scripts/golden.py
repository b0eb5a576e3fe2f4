"""Write down what this code reads, serves and takes on the command line, for tests/end_to_end/test_golden.py.

    python scripts/golden.py tests/end_to_end/golden

The folder holds crops/, photo.jpg, regions.json and lexicon.txt. Writes readings.json, openapi.json and options.json
there, with the code that Python imports as `str_app`.
"""

from __future__ import annotations

import enum
import json
import sys
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).resolve().parents[1] / "samples/images"
SETTINGS = ("default", "rotate", "beam=1", "prior=False", "lexicon")

Readings = dict[str, Any]  # name → `Reading.as_dict()`


def images(folder: Path) -> dict[str, Path]:
    """The samples and the folder's crops, by their names in readings.json."""
    paths = [*sorted(SAMPLES.iterdir()), *sorted((folder / "crops").iterdir())]
    return {f"{path.parent.name}/{path.name}": path for path in paths}


def read_images(folder: Path, setting: str, names: Collection[str]) -> Readings:
    """Read some of `images` with one of `SETTINGS`."""
    from str_app import Reader

    reader = Reader.load("small", precision="fp32", threads=1, prior=setting != "prior=False")
    options: dict[str, Any] = {}
    if setting == "rotate":
        options["rotate"] = True
    elif setting == "beam=1":
        options["beam"] = 1
    elif setting == "lexicon":
        options["lexicon"] = (folder / "lexicon.txt").read_text(encoding="utf-8").split()
    paths = {name: path for name, path in images(folder).items() if name in names}
    readings = reader.recognize(list(paths.values()), **options)
    return {name: reading.as_dict() for name, reading in zip(paths, readings, strict=True)}


def read_regions(folder: Path) -> Readings:
    """Read the regions of photo.jpg."""
    from str_app import Reader

    regions = json.loads((folder / "regions.json").read_text(encoding="utf-8"))
    reader = Reader.load("small", precision="fp32", threads=1)
    readings = reader.recognize_regions(folder / "photo.jpg", regions)
    return {str(region): reading.as_dict() for region, reading in zip(regions, readings, strict=True)}


def openapi() -> dict[str, Any]:
    """The server's OpenAPI document."""
    from str_app.serve.http.app import create_app

    return create_app().openapi()


def options() -> dict[str, dict[str, Any]]:
    """The options and arguments of the command line and of each verb, without their help."""
    from typer.main import get_command

    from str_app.cli import build_app

    verbs: dict[str, dict[str, Any]] = {}

    def walk(name: str, command: Any) -> None:
        annotations = typing.get_type_hints(command.callback) if command.callback else {}
        verbs[name] = {_name(option): _option(option, annotations[option.name]) for option in command.params}
        for verb, subcommand in getattr(command, "commands", {}).items():
            walk(f"{name} {verb}", subcommand)

    walk("str-app", get_command(build_app()))
    return verbs


def _name(option: Any) -> str:
    """What a user types, or sees in place of an argument; never the name of a Python variable."""
    names = [*option.opts, *option.secondary_opts]
    return "/".join(names) if option.param_type_name == "option" else option.metavar or names[0].upper()


def _option(option: Any, annotation: Any) -> dict[str, Any]:
    fields = {
        "type": _type(annotation),
        "min": option.min,
        "max": option.max,
        "default": str(option.default) if isinstance(option.default, Path) else option.default,
        "required": option.required,
        "variable": option.envvar,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _type(annotation: Any) -> str:
    """The type without None, in one spelling: `Optional[str]` and `str | None` are the same to a user."""
    arguments = [argument for argument in typing.get_args(annotation) if argument is not type(None)]
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return f"one of {', '.join(choice.value for choice in annotation)}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_type, arguments))
    return f"{origin.__name__} of {_type(arguments[0])}" if origin else str(annotation.__name__)


def write(folder: Path) -> None:
    """Write the three files."""
    readings = {setting: read_images(folder, setting, images(folder)) for setting in SETTINGS}
    readings["regions"] = read_regions(folder)
    (folder / "readings.json").write_text(in_lines(readings), encoding="utf-8")
    (folder / "options.json").write_text(in_lines(options()), encoding="utf-8")
    document = json.dumps(openapi(), ensure_ascii=False, sort_keys=True, indent=1)
    (folder / "openapi.json").write_text(document + "\n", encoding="utf-8")


def in_lines(groups: dict[str, dict[str, Any]]) -> str:
    """JSON with one line per reading or option, so that a diff shows which one changed."""

    def compact(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    blocks = []
    for name, items in groups.items():
        lines = ",\n".join(f"  {compact(key)}: {compact(item)}" for key, item in items.items())
        blocks.append(f" {compact(name)}: {{\n{lines}\n }}" if items else f" {compact(name)}: {{}}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
