"""Exported graphs read as the network they were made from, and say clearly when they cannot be read."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image
from typer.testing import CliRunner

from str_app.cli import build_app
from str_app.decoding.greedy import greedy
from str_app.decoding.scoring import Scorer
from str_app.engines import load
from str_app.engines.graph_folder import ENCODER, GREEDY, METADATA_KEY, STEP, GraphError, graph_folder
from str_app.engines.load import EngineOptions, load_engine
from str_app.engines.onnx_engine import OnnxEngine
from str_app.engines.torch_engine import TorchEngine
from str_app.errors import StrAppError
from str_app.export import export_model
from str_app.models.checkpoint import save_checkpoint
from str_app.models.presets import weights_path
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
        expected = greedy(Scorer(engine), canvases, widths)
        for row, decoded in enumerate(expected):
            ended = classes[row].tolist().index(0) if 0 in classes[row] else engine.max_length
            assert engine.charset.decode(classes[row, :ended].tolist()) == decoded.text
            if ended < engine.max_length:
                np.testing.assert_allclose(np.log(probabilities[row]).sum(), decoded.log_prob, atol=1e-3)
    header = json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    assert header["charset"] == CHARSET


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
            ("onnx", EngineOptions(device="cuda"), "runs on the CPU, not on 'cuda'"),
            ("torch", EngineOptions(precision="int8"), "no exported graphs in int8"),
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
        with pytest.raises(GraphError, match="not written by `str-app export`"):
            OnnxEngine(graph_folder(copied))

    def test_graphs_of_two_exports(self, copied: Path, checkpoint: Path, tmp_path: Path) -> None:
        other = export_model(checkpoint, tmp_path / "other.onnx", precision="fp32").folder
        shutil.copy(other / STEP, graph_folder(copied))
        with pytest.raises(GraphError, match="of different exports"):
            OnnxEngine(graph_folder(copied))

    def test_a_later_format(self, copied: Path) -> None:
        for name in (ENCODER, STEP):
            graph = onnx.load(graph_folder(copied) / name)
            onnx.helper.set_model_props(graph, {METADATA_KEY: '{"format": "str-app-onnx/9"}'})
            onnx.save(graph, graph_folder(copied) / name)
        with pytest.raises(GraphError, match="'str-app-onnx/9', this version reads 'str-app-onnx/1'"):
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

    def test_writes_beside_the_checkpoint(self, copied: Path, crops: Path) -> None:
        shutil.rmtree(graph_folder(copied))
        shown = self.run(copied, "--calibration", crops, "--val", crops)
        folder = copied.with_suffix(".onnx")
        assert f"{folder}: mine in int8, 0.1 MB, temperature" in shown.replace("\n", "")
        engine = OnnxEngine(folder)
        assert engine.info["temperature"] != 1.7, "confidences are calibrated on --val"
        (score,) = engine.info["metrics"]["validation"]
        assert score["n"] == 4
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

    def test_graphs_cannot_be_exported_again(self, graphs: Path) -> None:
        assert "nor a checkpoint file" in self.run(graphs, code=1)


def test_weights_and_graphs_ship_within_25_mb() -> None:
    files = [weights_path("small"), *graph_folder("small").iterdir()]
    assert sum(file.stat().st_size for file in files) < 31e6
