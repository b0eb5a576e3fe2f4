"""Every command and example of the README runs, in the order it is printed, at a size of seconds."""

import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from str_app.datasets.folder import FolderSource
from tests.datasets.renderer_fonts import write_font
from tests.datasets.test_converters import write_iiit5k

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

NOT_RUN = {
    "pip install": "test_wheel.py installs the package",
    "make demo": "a stage of .ci/run",
    "make test": "runs this test",
    "make docs": "a stage of .ci/run",
    "docker build": "needs a Docker engine: make docker-test",
    "bash scripts/install_fonts.sh": "installs packages, as root",
}
# What makes a command small: (what the README says, what is run). Data comes from files of the README's names.
FEW_STEPS = "--set steps=2 --set batch_size=8 --set group=1 --set workers=0 --set device=cpu --set threads=1"
SMALLER = [
    ("str-app synth", "str-app synth --fonts fonts"),  # else thousands of fonts may be scanned, or none be there
    ("--count 100000", "--count 24"),
    ("--preset small --train data/synth-0.lmdb", f"--preset small {FEW_STEPS} --train data/synth-0.lmdb"),
    ("--out runs/first --resume", "--out runs/first --resume --set steps=3"),  # two steps are done
    ("--set steps=2000", FEW_STEPS),
    ("study adding --quick", "study adding --quick --length 5 --seeds 1 --unit MGU --gates mul"),
]
SECTIONS = ("str-app", "Set up", "Read", "Serve", "Evaluate", "Train", "Refined gates elsewhere")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(section):
    """Shell commands of the section with that heading, without comments."""
    text = re.split(rf"^##? {section}\n", README, flags=re.MULTILINE)[1].split("\n## ")[0]
    lines = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    return [line.split("  #")[0].strip() for line in lines]


def is_run(command):
    return not any(command.startswith(beginning) for beginning in NOT_RUN)


def smaller(command):
    for said, run in SMALLER:
        command = command.replace(said, run)
    return command


def environment(home):
    """The shell's: `str-app` of this environment and this checkout, caches below `home`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "OMP_NUM_THREADS": "1",
    }


def shell(command, folder):
    """Standard output of a command of the README, run in `folder`."""
    completed = subprocess.run(
        ["bash", "-c", smaller(command)],
        cwd=folder,
        env=environment(folder / "home"),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert completed.returncode == 0, f"{smaller(command)}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with small data under the names that the README uses."""
    folder = tmp_path_factory.mktemp("readme")
    samples = ROOT / "samples"
    shutil.copytree(samples, folder / "samples")
    shutil.copytree(samples, folder / "my_words")
    for number, name in enumerate(("word.jpg", "photo.jpg", "meter.jpg", "a.jpg"), 1):
        shutil.copy(samples / "images" / f"{number:02}.jpg", folder / name)
    shutil.copy(samples / "images" / "04.jpg", folder / "b.png")  # the content tells the format
    shutil.copy(ROOT / "tests/end_to_end/golden/photo.jpg", folder / "street.jpg")
    (folder / "words.txt").write_text("BREAKFAST\nDINNER\n")
    (folder / "boxes.txt").write_text("0,0,30,20\n5,0,35,0,35,20,5,20\n")
    (folder / "data").mkdir()
    shutil.copytree(samples, folder / "data" / "mine-val.lmdb")  # a folder of images goes wherever an LMDB goes
    archive = folder / "downloads" / "IIIT5K"
    (archive / "test").mkdir(parents=True)
    labels = [FolderSource(samples).label(index) for index in range(2)]
    for number in (1, 2):
        shutil.copy(samples / "images" / f"{number:02}.jpg", archive / "test" / f"{number}_1.png")
    rows = [{"name": f"test/{n}_1.png", "text": labels[n - 1], "words": [labels[n - 1]]} for n in (1, 2)]
    write_iiit5k(archive, "test", rows)
    write_font(folder / "fonts" / "font.ttf")
    return folder


def test_every_command_is_run_or_its_reason_told():
    lines = [line.split("  #")[0].strip() for line in "".join(blocks("sh")).splitlines()]
    assert lines == [line for heading in SECTIONS for line in commands(heading)]
    assert all(any(line.startswith(beginning) for line in lines) for beginning in NOT_RUN)
    assert all(any(said in line for line in lines) for said, _ in SMALLER)


def test_read(folder):
    outputs = [shell(command, folder) for command in commands("Read")]
    lines, photograph, word, known, meter, regions, table, listed, found = outputs
    assert len(lines.splitlines()) == 10
    assert all(len(line.split("\t")) == 3 for line in lines.splitlines())
    assert photograph.startswith("street.jpg\t")
    assert (folder / "found.png").is_file()
    assert '"characters"' in word
    assert known.split("\t")[1] in ("BREAKFAST", "DINNER")
    assert meter.split("\t")[1].isdigit()
    assert len(regions.splitlines()) == 2
    assert table.startswith("readings: 10 rows in 1 shards, 0 with errors")
    assert "| small |" in listed
    assert "problems:\n  none\n" in found


def test_read_in_python(folder, monkeypatch, capsys):
    (example,) = (block for block in blocks("python") if "Reader.load" in block)
    printed, _ = blocks("text")
    monkeypatch.chdir(folder)
    exec(example, {})
    assert capsys.readouterr().out == printed


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_serve(folder):
    start, *requests = [command for command in commands("str-app") + commands("Serve") if is_run(command)]
    _, answer = blocks("text")
    assert "--port 8000" in start
    command, home = start.replace("8000", "0").split(), environment(folder / "home")
    with subprocess.Popen(command, cwd=folder, env=home, stderr=subprocess.PIPE, text=True) as server:
        try:
            log = ""
            while not (address := re.search(r"listening on http://[\d.]+:(\d+)", log)):
                line = server.stderr.readline()
                assert line, f"the server ended: {log}"
                log += line
            port = address[1]
            shell(f"curl -sS --fail --retry 120 --retry-delay 1 --retry-all-errors localhost:{port}/readyz", folder)
            answers = [shell(command.replace(":8000", f":{port}"), folder) for command in requests]
        finally:
            server.terminate()
            log += server.communicate()[1]
    assert server.returncode == 0, log
    assert answers[0].startswith(answer.split("[…]")[0])
    assert all('"results"' in answer and '"error"' not in answer for answer in answers)


def test_evaluate(folder):
    convert, evaluate = commands("Evaluate")
    shell(convert, folder)
    assert "| IIIT5K " in shell(evaluate, folder)
    assert (folder / "scores.json").is_file()
    assert (folder / "report.html").is_file()


@pytest.fixture(scope="module")
def training_data(folder):
    """What the first half of the section makes."""
    run = [command for command in commands("Train") if is_run(command) and not is_training(command)]
    return [shell(command, folder) for command in run]


def is_training(command):
    return "train" in command.split() or "runs/" in command


def test_data_for_training(training_data, folder):
    assert len(training_data) == 4
    assert (folder / "sheet.png").is_file()
    assert all((folder / "data" / name).is_dir() for name in ("synth-0.lmdb", "hard-0.lmdb", "mine.lmdb"))


def test_train(training_data, folder):
    start, resume, fine_tune, export, evaluate = [command for command in commands("Train") if is_training(command)]
    for command in (start, resume, fine_tune, export):
        shell(command, folder)
    assert (folder / "runs/first/metrics.jsonl").is_file()
    assert (folder / "runs/fine/best.onnx/step.onnx").is_file()
    assert "| mine-val" in shell(evaluate, folder)


@pytest.mark.parametrize("kind", ["refined", "torch"])
def test_refined_lstm_trains_and_is_one_line_from_torchs(kind):
    (example,) = (block for block in blocks("python") if "RefinedLSTM" in block)
    if kind == "torch":
        (line,) = (line for line in example.splitlines() if "# was: " in line)
        example = example.replace(line, "layer = " + line.split("# was: ")[1])
    torch.manual_seed(0)
    names = {}
    exec(example, names)
    first, last = statistics.fmean(names["losses"][:10]), statistics.fmean(names["losses"][-10:])
    assert last < 0.5 * first


def test_study(folder):
    listed, report = [shell(command, folder) for command in commands("Refined gates elsewhere")]
    assert "adding" in listed
    assert "MGU-mul" in report
