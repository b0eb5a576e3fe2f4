"""Options and choices that several verbs share, declared once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from str_app import engines, photos
from str_app.engines import precision

Model = Annotated[
    str,
    typer.Option(
        help="A name that `str-app models` lists, a checkpoint file, or a folder that `str-app export` wrote."
    ),
]
Device = Annotated[str, typer.Option(help="Where the network runs: cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: the engine's own choice.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Maximum number of crops per forward pass.")]
Beam = Annotated[
    int | None,
    typer.Option(min=1, help="Beam width used when a reading is uncertain; 1 decodes greedily [default: 8]."),
]
Prior = Annotated[bool, typer.Option(help="Prefer known words and numbers where the image is ambiguous.")]
Engine = Annotated[str, typer.Option(help=engines.HELP)]
Blank = Annotated[bool, typer.Option(help="Return an empty text where the image shows none.")]
Variants = Annotated[
    bool,
    typer.Option(help="Retry hard-to-read crops in up to nine variants: more accurate, up to 5 times slower."),
]
Precision = Annotated[precision.Precision, typer.Option(help=precision.HELP)]

Characters = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Characters that a text may have, such as 0-9 or A-Z0-9- (a - is a range)."),
]
SERVER_DECIDES = "cannot be used with --server: the server decides it"  # see `refuse`
Server = Annotated[str | None, typer.Option(metavar="URL", help="Read with a running `str-app serve` and its model.")]
ApiKey = Annotated[str | None, typer.Option(envvar="STR_APP_API_KEY", help="API key of that server.", show_envvar=True)]
Detector = Annotated[str, typer.Option(help=photos.HELP)]
LongestSide = Annotated[
    int,
    typer.Option(
        min=photos.LEAST_LONGEST_SIDE,
        metavar="PIXELS",
        help="Shrink larger photographs to this for detection; words are still read at full resolution.",
    ),
]

Fonts = Annotated[
    Path | None, typer.Option(help="Folder with .ttf and .otf files. Default: the fonts installed on the system.")
]


def choices(about: str, names: Sequence[str]) -> Any:
    """A repeatable option that accepts these names; typer supports `Literal` for single values only."""

    def check(values: list[str] | None) -> list[str] | None:
        for value in values or []:
            if value not in names:
                raise typer.BadParameter(f"{value!r} is not one of {', '.join(map(repr, names))}.")
        return values

    return typer.Option(callback=check, help=f"{about}: {', '.join(names)}; repeatable. Default: all.")


Units = Annotated[list[str] | None, choices("Recurrent unit", ("LSTM", "GRU", "MGU"))]


def refuse(context: typer.Context, names: Iterable[str], reason: str) -> None:
    """Raise BadParameter if one of these options is on the command line: an option without effect is a mistake.

    Args:
        context: of the verb.
        names: of its parameters.
        reason: follows the option in the message.
    """
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"--{name.replace('_', '-')} {reason}")
