"""Reading, evaluating and serving need no torch: here it is hidden, as if it were not installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from str_app.client import Client
from str_app.reading import Reading

ROOT = Path(__file__).parents[2]

SITECUSTOMIZE = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "onnx", "onnxscript", "scipy", "tensorboard"):
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Hiding, sys.meta_path)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a process, and of all that it starts, in which torch cannot be imported."""
    folder = tmp_path_factory.mktemp("hiding")
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def run(environment: dict[str, str], *command: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_it_is_hidden(environment: dict[str, str]) -> None:
    assert "No module named 'torch'" in run(environment, "-c", "import torch", code=1)


def test_reader(environment: dict[str, str]) -> None:
    shown = run(
        environment,
        "-c",
        "from str_app import Reader; print([r.text for r in Reader.load('small').recognize('samples/images/01.jpg')])",
    )
    assert "['BREAKFAST']" in shown


def test_public_names(environment: dict[str, str]) -> None:
    shown = run(environment, "-c", "import str_app; from str_app import *; print(Reader, dir(str_app))")
    assert "<class 'str_app.reader.Reader'>" in shown
    assert "RefinedLSTM" not in shown
    code = "try: from str_app import RefinedLSTM\nexcept ModuleNotFoundError as error: print(error, error.name)"
    assert run(environment, "-c", code) == "RefinedLSTM needs torch: pip install 'str-app[torch]' torch\n"


@pytest.mark.parametrize(
    ("verb", "shown"),
    [
        ("recognize samples/images/01.jpg --characters A-Z --rotate", r"01.jpg\tBREAKFAST\t"),
        ("evaluate --data samples", r"\| samples +\| 10 \|"),
        ("models", r"\| small +\| 8.12M \|"),
        ("doctor", r"problems:\n  none"),
        ("--help", "export"),
    ],
)
def test_verbs(environment: dict[str, str], verb: str, shown: str) -> None:
    assert re.search(shown, run(environment, "-m", "str_app", *verb.split()))


@pytest.mark.parametrize(
    "verb",
    [
        "recognize samples/images/01.jpg --engine torch",
        "recognize samples/images/01.jpg --precision fp32",
        "export small --out /tmp/never.onnx",
        "train --train samples --out /tmp/never --preset small",
    ],
)
def test_what_needs_torch_says_how_to_get_it(environment: dict[str, str], verb: str) -> None:
    shown = run(environment, "-m", "str_app", *verb.split(), code=1)
    assert re.search(r"pip install 'str-app\[(torch|export|train)\]'", shown), shown
    assert "Traceback" not in shown


def test_server(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "str_app", "serve", "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            messages = (json.loads(line)["message"] for line in server.stderr)
            url = next(message for message in messages if message.startswith("listening on ")).split()[-1]
            (reading,) = Client(url).recognize([ROOT / "samples/images/01.jpg"])  # waits until it is ready
            assert isinstance(reading, Reading)
            assert reading.text == "BREAKFAST"
        finally:
            server.terminate()
