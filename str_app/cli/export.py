"""The verb `export`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from str_app.cli import options
from str_app.cli.printing import note, write_line
from str_app.cli.progress import ProgressBar
from str_app.errors import StrAppError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CALIBRATION_SEED = 97  # of no data set that weights are trained on


def export(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A name that `str-app models` lists, or a checkpoint file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. Default: the checkpoint's path with the suffix .onnx.")
    ] = None,
    precision: Annotated[
        Literal["int8", "fp32"],
        typer.Option(help="int8: a quarter of fp32's size, and twice as fast. fp32: reads the same texts as torch."),
    ] = "int8",
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            help="For int8: LMDB or folder with crops like those to be read; repeatable. Default: render them, "
            "which needs the extra `synth` and fonts."
        ),
    ] = None,
    calibration_crops: Annotated[int, typer.Option(min=1, help="Number of crops to calibrate on.")] = 512,
    fonts: options.Fonts = None,
    val: Annotated[
        list[Path] | None,
        typer.Option(
            help="LMDB or folder of labelled crops: fit the temperature of confidences to them, and store the accuracy "
            "on them; repeatable. Default: keep the checkpoint's temperature and accuracy."
        ),
    ] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Also write greedy.onnx: the whole of greedy decoding in one graph.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace graphs that exist.")] = False,
) -> None:
    """Write a model as ONNX graphs, which read without PyTorch, faster, and take less space.

    The folder can be given as --model to every command that reads, evaluates or serves.

    Example: str-app export runs/mine/best.safetensors --calibration data/val
    """
    from str_app.datasets.opening import open_source
    from str_app.engines.graph_folder import folder_bytes, graph_folder
    from str_app.engines.load import checkpoint_file
    from str_app.export import export_model

    if precision == "fp32":
        of_int8 = ("calibration", "calibration_crops", "fonts")
        options.refuse(context, of_int8, "has no effect with --precision fp32: only int8 is calibrated")
    elif calibration:
        options.refuse(context, ("fonts",), "has no effect with --calibration: no crop is drawn")
    checkpoint = checkpoint_file(model)
    validation = [open_source(path) for path in val or []]
    crops: Iterable[npt.NDArray[np.uint8]] = ()
    if precision == "int8":
        crops = _read(calibration, calibration_crops) if calibration else _draw(fonts, calibration_crops)
    engine = export_model(
        checkpoint,
        out or graph_folder(checkpoint),
        precision=precision,
        calibration=crops,
        validation=validation,
        single_file=single_file,
        overwrite=overwrite,
    )
    size, temperature = folder_bytes(engine.folder) / 1e6, engine.info.get("temperature", 1.0)
    about = f"{engine.name} in {engine.precision}, {size:.1f} MB, temperature {temperature:.3f}"
    write_line(f"{engine.folder}: {about}")


def _read(paths: list[Path], count: int) -> Iterator[npt.NDArray[np.uint8]]:
    """About `count` crops, as many of each data set. These are opened at once, the crops read one by one."""
    from str_app.datasets.opening import open_source
    from str_app.datasets.sample import UnreadableSample
    from str_app.evaluation.sources import evenly_spaced

    sources = [open_source(path) for path in paths]

    def crops() -> Iterator[npt.NDArray[np.uint8]]:
        readable = False
        for source in sources:
            for index in evenly_spaced(len(source), -(-count // len(sources))):
                try:
                    yield source[index].image
                    readable = True
                except UnreadableSample as error:
                    note(f"skipped: {error}")
        if not readable:
            raise StrAppError(f"no readable crop in {', '.join(map(str, paths))}: give others by --calibration")

    return crops()


def _draw(fonts: Path | None, count: int) -> Iterator[npt.NDArray[np.uint8]]:
    """`count` crops. Fonts, whose search takes seconds, are found when the first one is taken."""
    from str_app.datasets.renderer.fonts import find_fonts
    from str_app.datasets.renderer.render import Renderer
    from str_app.datasets.renderer.words import frequent_words

    renderer = Renderer(find_fonts(fonts), frequent_words(), CALIBRATION_SEED)
    with ProgressBar("drawing crops for calibration", count) as progress:
        for index in range(count):
            yield renderer.render(index).image
            progress.advance(1)
