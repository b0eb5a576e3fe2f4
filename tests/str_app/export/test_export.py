"""Exported graphs read as the network they were made from, and say clearly when they cannot be read."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image
from typer.testing import CliRunner

from str_app.cli import build_app
from str_app.decoding import Scorer, beam_search
from str_app.decoding.word_prior import WordPrior
from str_app.engines import load
from str_app.engines.graph_folder import ENCODER, GREEDY, METADATA_KEY, STEP, GraphError, graph_folder
from str_app.engines.load import EngineOptions, load_engine
from str_app.engines.onnx_engine import OnnxEngine
from str_app.engines.torch_engine import TorchEngine
from str_app.errors import StrAppError
from str_app.export import export_model, exporting
from str_app.export.greedy_graph import make_greedy_graph
from str_app.models.checkpoint import save_checkpoint
from str_app.models.presets import weights_path
from str_app.policy import SearchPolicy
from str_app.reader import Reader
from tests.str_app.engines.test_contract import batch
from tests.str_app.engines.test_torch_engine import recognizer
from tests.tiny_recognizer import tiny_recognizer

CHARSET = "aäöüßあ9-"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another charset than the presets'."""
    path = tmp_path_factory.mktemp("export") / "mine.safetensors"
    save_checkpoint(path, tiny_recognizer(CHARSET, max_length=6, context_size=4), {"temperature": 1.7})
    return path


@pytest.fixture(scope="module")
def graphs(checkpoint: Path) -> Path:
    """Beside the checkpoint, in 8 bits, with the single graph."""
    crops = list(batch(6)[0])
    return export_model(checkpoint, graph_folder(checkpoint), calibration=crops, single_file=True).folder


@pytest.fixture
def copied(graphs: Path, checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of both, to be damaged; the checkpoint's path."""
    shutil.copytree(graphs, tmp_path / graphs.name)
    return Path(shutil.copy(checkpoint, tmp_path))


def store(folder: Path, metadata: str | Callable[[dict[str, Any]], object]) -> None:
    """Give both graphs other metadata, or change what they have."""
    for name in (ENCODER, STEP):
        graph = onnx.load(folder / name)
        if not isinstance(metadata, str):
            header = json.loads(graph.metadata_props[0].value)
            metadata(header)
        text = metadata if isinstance(metadata, str) else json.dumps(header)
        onnx.helper.set_model_props(graph, {METADATA_KEY: text})
        onnx.save(graph, folder / name)


def test_shipped_graphs_were_exported_from_the_shipped_weights() -> None:
    engine = load_engine("small")
    assert isinstance(engine, OnnxEngine)
    assert engine.precision == "int8"
    assert load._is_export_of(engine, "small")
    by_torch = load_engine("small", "torch")
    assert engine.name == by_torch.name
    assert engine.charset.characters == by_torch.charset.characters
    assert engine.preprocessing == by_torch.preprocessing
    assert engine.max_length == by_torch.max_length


def test_a_checkpoint_of_any_charset_reads_the_same(checkpoint: Path, tmp_path: Path) -> None:
    export_model(checkpoint, tmp_path / "fp32.onnx", precision="fp32")
    crops = list(batch(12, seed=5)[0])
    by_torch = Reader.load(checkpoint, engine="torch", precision="fp32", prior=False).read_crops(crops)
    by_graphs = Reader.load(tmp_path / "fp32.onnx", prior=False).read_crops(crops)
    assert [reading.text for reading in by_graphs] == [reading.text for reading in by_torch]
    np.testing.assert_allclose(
        [reading.confidence for reading in by_graphs], [reading.confidence for reading in by_torch], atol=1e-4
    )


@pytest.mark.parametrize(
    "choices",
    [
        {"refine": "none", "attention": "1d"},
        {"refine": "add", "attention": "2d"},
        {"refine": "mul", "fpn": True, "positional_glimpse": True},
    ],
)
def test_every_architecture_reads_the_same(choices: dict[str, object], tmp_path: Path) -> None:
    model = recognizer(0, **choices)
    save_checkpoint(tmp_path / "tiny.safetensors", model)
    by_graphs = export_model(tmp_path / "tiny.safetensors", tmp_path / "tiny.onnx", precision="fp32")
    by_torch = TorchEngine(model)
    for size, width in ((1, 48), (4, 128)):
        given = batch(size, width, seed=width)
        expected = by_torch.decode_greedy(*by_torch.encode(*given)).logits
        np.testing.assert_allclose(by_graphs.decode_greedy(*by_graphs.encode(*given)).logits, expected, atol=1e-4)


def test_one_graph_decodes_greedily(graphs: Path) -> None:
    engine = OnnxEngine(graphs, 1)
    session = ort.InferenceSession(graphs / GREEDY, providers=["CPUExecutionProvider"])
    for size, width in ((1, 48), (5, 96)):
        canvases, widths = batch(size, width, seed=width)
        classes, probabilities = session.run(None, {"canvases": canvases, "widths": widths})
        expected = beam_search(Scorer(engine), canvases, widths, policy=SearchPolicy(beam=1))
        for row, decoded in enumerate(expected):
            ended = classes[row].tolist().index(0) if 0 in classes[row] else engine.max_length
            assert engine.charset.decode(classes[row, :ended].tolist()) == decoded.text
            if ended < engine.max_length:
                np.testing.assert_allclose(np.log(probabilities[row]).sum(), decoded.log_prob, atol=1e-3)
    header = json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    assert header["charset"] == CHARSET


def test_the_single_graph_takes_one_step_more_than_its_longest_text(graphs: Path) -> None:
    encoder, step = (onnx.load(graphs / name) for name in (ENCODER, STEP))
    header = json.loads(encoder.metadata_props[0].value)
    canvases, widths = batch(5)
    found = []
    for most in (2, 6):
        graph = make_greedy_graph(encoder, step, header | {"max_length": most})
        session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        found.append(session.run(None, {"canvases": canvases, "widths": widths}))
    (short, _), (long, _) = found
    assert long.shape[1] > 3
    np.testing.assert_array_equal(short, long[:, :3])


def test_it_pickles_by_its_path(graphs: Path) -> None:
    engine = OnnxEngine(graphs, 1)
    copy = pickle.loads(pickle.dumps(engine))
    given = batch(3)
    np.testing.assert_array_equal(
        copy.decode_greedy(*copy.encode(*given)).logits, engine.decode_greedy(*engine.encode(*given)).logits
    )
    assert len(pickle.dumps(engine)) < 1000


def test_readings_are_the_same_to_the_bit_in_any_batch_and_with_any_threads(graphs: Path) -> None:
    engine = OnnxEngine(graphs, 1)
    canvases, widths = batch(9)
    together = engine.decode_greedy(*engine.encode(canvases, widths)).logits
    engine.use_threads(2)
    for size in (1, 2, 5):
        part = engine.decode_greedy(*engine.encode(canvases[:size], widths[:size])).logits
        np.testing.assert_array_equal(part, together[:size, : part.shape[1]])


class TestChoice:
    """Of the engine for a model."""

    def test_auto_takes_graphs_that_lie_beside_their_weights(self, checkpoint: Path, graphs: Path) -> None:
        assert isinstance(load_engine(checkpoint), OnnxEngine)
        assert isinstance(load_engine(graphs), OnnxEngine)
        assert isinstance(load_engine(checkpoint, options=EngineOptions(precision="int8")), OnnxEngine)
        assert load_engine(checkpoint).name == "mine"

    def test_another_precision_means_torch(self, checkpoint: Path, graphs: Path) -> None:
        assert isinstance(load_engine(checkpoint, options=EngineOptions(precision="fp32")), TorchEngine)

    def test_graphs_of_other_weights_are_ignored(self, copied: Path, caplog: pytest.LogCaptureFixture) -> None:
        save_checkpoint(copied, tiny_recognizer(CHARSET, max_length=6), {"name": "changed"})
        assert isinstance(load_engine(copied), TorchEngine)
        assert "exported from other weights" in caplog.text
        assert f"str-app export {copied} --overwrite" in caplog.text

    def test_graphs_alone_suffice(self, copied: Path) -> None:
        copied.unlink()
        assert isinstance(load_engine(copied), OnnxEngine)

    def test_torch_where_there_are_no_graphs(self, copied: Path) -> None:
        shutil.rmtree(graph_folder(copied))
        assert isinstance(load_engine(copied), TorchEngine)

    @pytest.mark.parametrize(
        ("engine", "options", "message"),
        [
            ("onnx", EngineOptions(precision="bf16"), "is in int8, not in bf16"),
            ("onnx", EngineOptions(device="cuda"), "exported graphs run on the CPU, not on 'cuda': use --device cpu"),
            ("auto", EngineOptions(precision="int8", device="cuda"), "which run on the CPU, not on 'cuda'"),
            ("torch", EngineOptions(precision="int8"), "torch cannot run int8.*use auto, bf16 or fp32"),
        ],
    )
    def test_what_an_engine_cannot_do(
        self, graphs: Path, checkpoint: Path, engine: str, options: EngineOptions, message: str
    ) -> None:
        with pytest.raises(StrAppError, match=message):
            load_engine(checkpoint, engine, options)

    def test_no_graphs(self, copied: Path) -> None:
        shutil.rmtree(graph_folder(copied))
        with pytest.raises(StrAppError, match=r"mine.onnx: no exported graphs; make them with `str-app export"):
            load_engine(copied, "onnx")
        with pytest.raises(StrAppError, match=r"no exported graphs in int8; make them with `str-app export"):
            load_engine(copied, "auto", EngineOptions(precision="int8"))

    @pytest.mark.parametrize("engine", ["auto", "onnx", "torch"])
    def test_what_is_no_model(self, copied: Path, tmp_path: Path, engine: str) -> None:
        """Whichever engine is asked, the message says what it is, and what to give instead."""
        folder, run = graph_folder(copied), tmp_path / "run"
        run.mkdir()
        with pytest.raises(StrAppError, match=f"single graph.*: give its folder, {folder}$"):
            load_engine(folder / ENCODER, engine)
        with pytest.raises(StrAppError, match=f"{run} is a folder without exported graphs: give a checkpoint or"):
            load_engine(run, engine)
        (run / "best.safetensors").touch()
        with pytest.raises(StrAppError, match=f"give a file in it, such as {run}/best.safetensors$"):
            load_engine(run, engine)

    def test_a_checkpoint_is_needed(self, copied: Path, tmp_path: Path) -> None:
        folder = graph_folder(copied)
        commands = (
            ["export", folder],
            ["select", "nowhere.lmdb", "--model", folder, "--out", tmp_path / "out"],
            ["average", folder, folder, "--out", tmp_path / "mean"],
            ["train", "--from", folder, "--train", tmp_path, "--out", tmp_path / "run"],
            ["recognize", "x.png", "--engine", "torch", "--model", folder],
        )
        message = f"{folder} has exported graphs, and here a checkpoint is needed: give {copied}"
        for command in commands:
            result = CliRunner().invoke(build_app(), list(map(str, command)))
            assert result.exit_code == 1
            assert message in result.output, command
        copied.unlink()
        with pytest.raises(StrAppError, match=r"give the \.safetensors file that they were exported from"):
            load_engine(folder, "torch")

    def test_damaged_graphs_beside_good_weights(self, copied: Path) -> None:
        (graph_folder(copied) / STEP).unlink()
        for model in (copied, graph_folder(copied)):
            with pytest.raises(GraphError, match=f"export the model again, or read {copied} with --engine torch"):
                load_engine(model)
        copied.unlink()
        with pytest.raises(GraphError, match=r"export the model again$"):
            load_engine(copied)


class TestReplacedWhileInUse:
    """One engine runs one model."""

    @pytest.fixture
    def other(self, graphs: Path, tmp_path: Path) -> Path:
        """As the graphs, with another temperature."""
        folder = Path(shutil.copytree(graphs, tmp_path / "other.onnx"))
        store(folder, lambda header: header["info"].update(temperature=2.5))
        return folder

    def test_another_thread_count(self, copied: Path, other: Path) -> None:
        engine = OnnxEngine(graph_folder(copied), 1)
        shutil.rmtree(engine.folder)
        other.rename(engine.folder)
        given = batch(2)
        assert len(engine.decode_greedy(*engine.encode(*given)).logits) == 2, "what is loaded goes on"
        engine.use_threads(2)
        with pytest.raises(GraphError, match=f"{engine.folder} was replaced while it was in use: load"):
            engine.encode(*given)
        assert OnnxEngine(engine.folder).info["temperature"] == 2.5

    def test_a_pickled_copy(self, copied: Path, other: Path) -> None:
        pickled = pickle.dumps(OnnxEngine(graph_folder(copied), 1))
        shutil.rmtree(graph_folder(copied))
        other.rename(graph_folder(copied))
        with pytest.raises(GraphError, match="was replaced while it was in use"):
            pickle.loads(pickled)


class TestDamage:
    """Every message names the folder and the way out."""

    @pytest.mark.parametrize("name", [ENCODER, STEP])
    @pytest.mark.parametrize("content", [b"", b"no graph", None])
    def test_a_graph_that_cannot_be_loaded(self, copied: Path, name: str, content: bytes | None) -> None:
        graph = graph_folder(copied) / name
        graph.write_bytes(graph.read_bytes()[:-1000] if content is None else content)
        with pytest.raises(GraphError, match=rf"{name}: not a graph that ONNX Runtime can run.*export it again"):
            OnnxEngine(graph_folder(copied))

    def test_one_is_missing(self, copied: Path) -> None:
        (graph_folder(copied) / STEP).unlink()
        with pytest.raises(GraphError, match=r"step.onnx: no such file; export the model again"):
            OnnxEngine(graph_folder(copied))

    def test_graphs_of_others(self, copied: Path) -> None:
        for name in (ENCODER, STEP):
            graph = onnx.load(graph_folder(copied) / name)
            del graph.metadata_props[:]
            onnx.save(graph, graph_folder(copied) / name)
        with pytest.raises(GraphError, match="`str-app export` did not write"):
            OnnxEngine(graph_folder(copied))

    def test_graphs_of_two_exports(self, copied: Path, checkpoint: Path, tmp_path: Path) -> None:
        other = export_model(checkpoint, tmp_path / "other.onnx", precision="fp32").folder
        shutil.copy(other / STEP, graph_folder(copied))
        with pytest.raises(GraphError, match="of different exports"):
            OnnxEngine(graph_folder(copied))

    @pytest.mark.parametrize(
        ("metadata", "message"),
        [
            ("no JSON", "its metadata is not JSON"),
            ("[]", "its metadata is not a JSON object"),
            ('{"format": "str-app-onnx/9"}', "format 'str-app-onnx/9', this version reads 'str-app-onnx/1'"),
        ],
    )
    def test_metadata_that_is_none(self, copied: Path, metadata: str, message: str) -> None:
        store(graph_folder(copied), metadata)
        with pytest.raises(GraphError, match=rf"{ENCODER}: {message}.*; export the model again"):
            OnnxEngine(graph_folder(copied))

    @pytest.mark.parametrize(
        "field", ["charset", "preprocessing", "max_length", "map_rows", "precision", "source", "info"]
    )
    def test_a_field_that_is_missing(self, copied: Path, field: str) -> None:
        store(graph_folder(copied), lambda header: header.pop(field))
        with pytest.raises(GraphError, match=rf"{ENCODER}: its metadata lacks '{field}'; export the model again"):
            OnnxEngine(graph_folder(copied))

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            *[("charset", value) for value in (None, 5, "", "aa", ["a"])],
            *[("preprocessing", value) for value in (None, [], {"height": "32"}, {"new": 1}, {"widths": []})],
            *[("preprocessing", value) for value in ({"std": 0}, {"widths": [96, 48]}, {"fit": "crop"})],
            *[("max_length", value) for value in (None, 0, -1, 2.5, True, "6")],
            *[("map_rows", value) for value in (None, 0, "4")],
            *[("precision", value) for value in (None, "int4")],
            *[("source", value) for value in (None, "mine.safetensors", {})],
            *[("info", value) for value in (None, [], {"name": 5})],
            *[("info", {"temperature": value}) for value in ("x", None, True, 0, -1.0, float("nan"), float("inf"))],
        ],
    )
    def test_a_field_that_is_wrong(self, copied: Path, field: str, value: object) -> None:
        store(graph_folder(copied), lambda header: header.update({field: value}))
        with pytest.raises(GraphError, match=rf"{ENCODER}: '{field}' in its metadata: .*; export the model again"):
            OnnxEngine(graph_folder(copied))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"charset": CHARSET[:-1]}, rf"{STEP}: output 'logits' is .* 9\], but charset .* need float \(any, 8\)"),
            ({"preprocessing": {"height": 64}}, rf"{ENCODER}: input 'canvases' is .* need uint8 \(any, 64, any, 3\)"),
            ({"map_rows": 97}, "do not run on a canvas of 32 × 48 with map_rows 97"),
        ],
    )
    def test_metadata_of_another_model(self, copied: Path, changes: dict[str, object], message: str) -> None:
        store(graph_folder(copied), lambda header: header.update(changes))
        with pytest.raises(GraphError, match=message):
            OnnxEngine(graph_folder(copied))

    def test_an_input_of_another_name(self, copied: Path) -> None:
        path = graph_folder(copied) / STEP
        graph = onnx.load(path)
        for node in graph.graph.node:
            node.input[:] = ["last" if name == "tokens" else name for name in node.input]
        graph.graph.input[-1].name = "last"
        onnx.save(graph, path)
        with pytest.raises(GraphError, match=rf"{STEP}: inputs are .*cell, last, not .*cell, tokens; export the model"):
            OnnxEngine(graph_folder(copied))


class TestCommand:
    """`str-app export`."""

    def run(self, *arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(build_app(), ["export", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result.output

    @pytest.fixture
    def crops(self, tmp_path: Path) -> Path:
        folder = tmp_path / "crops"
        (folder / "images").mkdir(parents=True)
        rows = []
        for index, canvas in enumerate(batch(4)[0]):
            Image.fromarray(canvas).save(folder / "images" / f"{index}.png")
            rows.append(f"images/{index}.png\ta")
        (folder / "labels.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        return folder

    def test_writes_beside_the_checkpoint(self, copied: Path, crops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.rmtree(graph_folder(copied))
        readers: list[Reader] = []
        evaluate = exporting.evaluate_source
        monkeypatch.setattr(
            exporting, "evaluate_source", lambda reader, source: readers.append(reader) or evaluate(reader, source)
        )
        shown = self.run(copied, "--calibration", crops, "--val", crops)
        folder = copied.with_suffix(".onnx")
        assert f"{folder}: mine in int8, 0.1 MB, temperature" in shown.replace("\n", "")
        engine = OnnxEngine(folder)
        assert engine.info["temperature"] != 1.7, "confidences are calibrated on --val"
        (score,) = engine.info["metrics"]["validation"]
        assert score["n"] == 4
        (reader,) = readers  # scores are those of the graphs as they will be read
        assert reader.engine.info["temperature"] == engine.info["temperature"]
        assert reader.prior is WordPrior.released()
        assert sorted(path.name for path in folder.iterdir()) == [ENCODER, STEP]
        assert not list(folder.parent.glob(".*")), "no temporary folder is left"

    def test_never_overwrites_unasked(self, copied: Path) -> None:
        before = (graph_folder(copied) / STEP).read_bytes()
        assert "exists already: pass --overwrite" in self.run(copied, "--precision", "fp32", code=1)
        assert (graph_folder(copied) / STEP).read_bytes() == before
        self.run(copied, "--precision", "fp32", "--overwrite")
        assert (graph_folder(copied) / STEP).read_bytes() != before

    def test_never_replaces_what_is_no_export(self, copied: Path, tmp_path: Path) -> None:
        (tmp_path / "notes").mkdir()
        shown = self.run(copied, "--precision", "fp32", "--out", tmp_path / "notes", "--overwrite", code=1)
        assert "exists already: choose another --out" in shown

    def test_never_replaces_a_folder_with_other_files(self, copied: Path) -> None:
        (graph_folder(copied) / "notes.txt").write_text("precious")
        shown = self.run(copied, "--precision", "fp32", "--overwrite", code=1)
        assert "exists already: choose another --out" in shown
        assert (graph_folder(copied) / "notes.txt").read_text() == "precious"

    def test_replaces_the_folder_it_stands_in_or_is_linked_to(
        self, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = graph_folder(copied)
        monkeypatch.chdir(folder)
        self.run(copied, "--precision", "fp32", "--out", ".", "--overwrite")
        assert OnnxEngine(folder).precision == "fp32"
        (tmp_path / "link").symlink_to(folder)
        self.run(copied, "--precision", "fp32", "--out", tmp_path / "link", "--overwrite")
        assert (tmp_path / "link").is_symlink()
        assert sorted(path.name for path in folder.iterdir()) == [ENCODER, STEP]

    def test_crops_that_cannot_be_read(self, copied: Path, crops: Path) -> None:
        for image in (crops / "images").iterdir():
            image.write_bytes(b"no image")
        shown = self.run(copied, "--overwrite", "--calibration", crops, code=1)
        assert "no readable crop in" in shown

    @pytest.fixture
    def nothing_is_drawn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def render(*_: object) -> None:
            raise AssertionError("fonts are searched, or a crop drawn, before all else is checked")

        for name in ("render.Renderer.render", "fonts.find_fonts"):
            monkeypatch.setattr(f"str_app.datasets.renderer.{name}", render)

    @pytest.mark.usefixtures("nothing_is_drawn")
    def test_what_is_cheap_is_checked_before_crops_are_drawn(self, copied: Path, tmp_path: Path) -> None:
        assert "exists already: pass --overwrite" in self.run(copied, code=1)
        (tmp_path / "file").touch()
        shown = self.run(copied, "--out", tmp_path / "file/x", code=1)
        assert f"{tmp_path}/file/x: cannot be written: " in shown
        assert "choose another --out" in shown
        assert "nowhere: no such file" in self.run(copied, "--out", tmp_path / "x", "--val", "nowhere", code=1)
        (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
        assert "not a whole safetensors file" in self.run(tmp_path / "damaged.safetensors", code=1)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "damaged.safetensors",
            "file",
            "mine.onnx",
            "mine.safetensors",
        ]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    @pytest.mark.usefixtures("nothing_is_drawn")
    def test_a_folder_that_cannot_be_written(self, checkpoint: Path, tmp_path: Path) -> None:
        (tmp_path / "locked").mkdir(0o500)
        assert "cannot be written: Permission denied" in self.run(
            checkpoint, "--out", tmp_path / "locked/x.onnx", code=1
        )

    @pytest.mark.usefixtures("nothing_is_drawn")
    def test_a_disk_that_cannot_be_written(
        self, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr("tempfile.mkdtemp", refuse)
        shown = self.run(checkpoint, "--out", tmp_path / "x.onnx", code=1)
        assert "x.onnx: cannot be written: Read-only file system; choose another --out" in shown

    @pytest.mark.parametrize("option", ["--calibration", "--calibration-crops", "--fonts"])
    def test_options_without_effect(self, checkpoint: Path, tmp_path: Path, option: str) -> None:
        value = "7" if option == "--calibration-crops" else "nowhere"
        shown = self.run(checkpoint, "--out", tmp_path / "x", "--precision", "fp32", option, value, code=2)
        assert f"{option} has no effect with --precision fp32" in " ".join(shown.replace("│", "").split())

    @pytest.mark.parametrize("at", ["out", "folder"])
    def test_an_interruption_between_the_renames(
        self, copied: Path, at: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The old export survives, and nothing else is left."""
        folder, before = graph_folder(copied), sorted(tmp_path.iterdir())
        content = (folder / STEP).read_bytes()
        rename = Path.replace

        def interrupted(source: Path, target: Path) -> Path:
            if at == "out" or source != folder:
                monkeypatch.setattr(Path, "replace", rename)
                if at == "out":
                    rename(source, target)
                raise KeyboardInterrupt
            return rename(source, target)

        monkeypatch.setattr(Path, "replace", interrupted)
        self.run(copied, "--precision", "fp32", "--overwrite", code=130)
        assert (folder / STEP).read_bytes() == content
        assert sorted(tmp_path.iterdir()) == before

    @pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_stopped_half_way(self, copied: Path, tmp_path: Path, signum: int, code: int) -> None:
        """The process ends soon; the old export survives, and nothing else is left."""
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        stopped = (
            "import signal; from str_app.cli import main; import str_app.export.exporting as exporting\n"
            # In this thread: a signal of the process may reach another one first.
            f"exporting.make_graphs = lambda model: signal.raise_signal({int(signum)})\n"
            # The tests may run under nohup, or in a script's background.
            "signal.signal(signal.SIGHUP, signal.SIG_DFL); signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "main()"
        )
        arguments = ["export", copied, "--precision", "fp32", "--overwrite", "--out", graph_folder(copied)]
        done = subprocess.run([sys.executable, "-c", stopped, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.onnx", "mine.safetensors"]


def test_weights_and_graphs_ship_within_25_mb() -> None:
    files = [weights_path("small"), *graph_folder("small").iterdir()]
    assert sum(file.stat().st_size for file in files) < 25e6
