"""The command `str-app`: one module per verb, and one place that turns errors into exit codes.

Verb modules import nothing heavy at the top, so that `str-app --help` answers at once.
"""

from __future__ import annotations

import codecs
import functools
import importlib
import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo

from str_app.cli.printing import note
from str_app.errors import StrAppError

# Each is the function of its name in the module of its name, with hyphens for underscores on the command line. The list
# of commands shows these texts, and would cut what is longer than a line.
VERBS = {
    "synth": "Render crops of words, or whole scenes.",
    "convert": "Convert a data set to an LMDB.",
    "select": "Copy the crops that a model does not read confidently.",
    "train": "Train a recogniser.",
    "average": "Write the mean of several checkpoints' weights.",
    "evaluate": "Score a model on labelled crops.",
    "evaluate_photos": "Score a model on labelled photographs.",
    "export": "Write a model as ONNX graphs, which need no torch.",
    "recognize": "Read crops of words.",
    "read": "Find and read the words of photographs.",
    "bulk": "Read millions of images into Parquet files.",
    "serve": "Serve the HTTP API, and a page to try it.",
    "models": "List the models.",
    "study": "Compare kinds of gates on a task.",
    "doctor": "Show versions, and what is missing here.",
}
BENCHES = {
    "limits": "Measure accuracy by length, rotation, height and contrast.",
    "engines": "Time every engine and precision that runs here.",
    "gates": "Time the refined-gate layers against torch's.",
}
METAVARS = {Path: "PATH", str: "TEXT", int: "N", float: "X"}  # shown in help as the value of an option
MODULES_OF_EXTRA = {
    "synth": ("wordfreq", "fontTools"),
    "serve": (
        *("fastapi", "starlette", "uvicorn", "pydantic", "pydantic_settings"),
        *("prometheus_client", "multipart", "python_multipart"),
    ),
    "client": ("urllib3",),
    "torch": ("torch", "torchvision"),
    "train": ("tensorboard",),
    "export": ("onnx", "onnxscript"),
    "convert": ("scipy",),
    "bulk": ("pyarrow",),
    "ray": ("ray",),
    "photo": ("shapely",),
}
EXTRA_OF_MODULE = {module: extra for extra, modules in MODULES_OF_EXTRA.items() for module in modules}


def build_app(debug: bool = False) -> typer.Typer:
    """The whole command line; with `debug`, errors keep their traceback."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["--help", "-h"]},
    )

    @app.callback(help="Recognise words in images: make data, train, evaluate, read and serve.")
    def root(
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
        version: Annotated[
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        pass

    for name, summary in VERBS.items():
        module, verb = importlib.import_module(f"str_app.cli.{name}"), name.replace("_", "-")
        app.command(verb, short_help=summary)(_guarded(_with_metavars(getattr(module, name)), debug, verb))
    benches = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    bench = importlib.import_module("str_app.cli.bench")
    for name, summary in BENCHES.items():
        benches.command(name, short_help=summary)(
            _guarded(_with_metavars(getattr(bench, name)), debug, f"bench {name}")
        )
    app.add_typer(
        benches,
        name="bench",
        help="Measure limits, and the speed of engines and gates.",
    )
    return app


def main() -> None:
    """Entry point. Exit codes: 0 success, 1 error, 2 wrong usage, 128 + n stopped by signal n."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("file names", _encoded)
        sys.stdout.reconfigure(errors="file names")
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:end]
    # Removed here so that it works before and after the verb.
    arguments = [argument for argument in arguments[:end] if argument != "--debug"] + arguments[end:]
    try:
        (build_app(debug=True) if debug else app)(args=arguments, prog_name="str-app")
    except OSError as error:  # help, or the version, cannot be written
        if debug:
            raise
        note(f"str-app: {explain(error)}")
        sys.exit(1)


def _encoded(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes of file names that are no UTF-8 as they are; other lone surrogates, as labels may have, escaped."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def explain(error: Exception) -> str:
    """One line that describes `error`, with the remedy if it is known."""
    if isinstance(error, StrAppError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        file = f": {error.filename}" if error.filename is not None else ""
        return f"{error.strerror}{file}"
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        extra = EXTRA_OF_MODULE.get(error.name.split(".")[0])
        if extra:
            return f"{error.name} is not installed: pip install 'str-app[{extra}]'"
    # DataError, CharsetError, CheckpointError and the like, recognised by module so that nothing heavy is imported.
    if isinstance(error, ValueError) and type(error).__module__.split(".")[0] == "str_app":
        return str(error)
    return f"{type(error).__name__}: {error} (run again with --debug for the traceback)"


def _with_metavars(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The verb, whose options without a metavar get one: typer shows their Python types, such as `<list[Path]>`.

    The annotations are kept as they were evaluated here: each evaluation makes new options.
    """
    hints = get_type_hints(verb, include_extras=True)
    for hint in hints.values():
        if get_origin(hint) is Annotated and isinstance((info := get_args(hint)[1]), OptionInfo):
            info.metavar = info.metavar or next((METAVARS[part] for part in _parts(hint) if part in METAVARS), None)
    verb.__annotations__ = hints
    return verb


def _parts(hint: Any) -> Iterator[Any]:
    """The types in a hint such as `list[Path] | None`."""
    for part in get_args(hint):
        yield part
        yield from _parts(part)


def _guarded(verb: Callable[..., Any], debug: bool, name: str) -> Callable[..., Any]:
    @functools.wraps(verb)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            with nullcontext() if name == "serve" else _ended_by_exceptions():  # the server ends in its own way
                return verb(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            note("interrupted")
            signum = interrupt.args[0] if interrupt.args else signal.SIGINT
            raise typer.Exit(128 + signum) from None
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except Exception as error:
            if debug:
                raise
            line = " ".join(explain(error).split("\n"))
            note(f"str-app {name}: {line}")
            raise typer.Exit(1) from None

    return guarded


@contextmanager
def _ended_by_exceptions() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command by an exception, as Ctrl-C does, so that temporary files are removed."""

    def end(signum: int, frame: object) -> None:
        raise SystemExit(128 + signum)

    wanted = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]  # Windows has no SIGHUP
    # What is ignored stays ignored, as SIGHUP under nohup.
    stops = [stop for stop in wanted if stop is not None and signal.getsignal(stop) is not signal.SIG_IGN]
    before = {stop: signal.signal(stop, end) for stop in stops}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _print_version(wanted: bool) -> None:
    if wanted:
        from str_app import __version__

        typer.echo(f"str-app {__version__}")
        raise typer.Exit


app = build_app()
