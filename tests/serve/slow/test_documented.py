"""What docs/how-to/serving.md tells people to type works, and a server reads as this machine does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.slow.real_server import RealServer

pytestmark = pytest.mark.slow
PAGE = Path("docs/how-to/serving.md").read_text()


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with RealServer() as server:
        yield server


def blocks(kind: str, needle: str) -> list[str]:
    return [block for block in re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.DOTALL) if needle in block]


@pytest.mark.parametrize("block", [b for b in blocks("sh", "curl") if "openssl" not in b])
def test_curl(server: RealServer, block: str) -> None:
    script = "set -e\n" + block.replace("localhost:8000", server.url).replace("curl ", "curl -sSf ")
    outcome = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in outcome.stdout.replace("}{", "}\n{").splitlines()]
    assert len(answers) == block.count("curl ")
    assert all("text" in result for answer in answers for result in answer.get("results") or answer["words"])


@pytest.mark.parametrize("block", blocks("python", "localhost:8000"))
def test_python(server: RealServer, block: str) -> None:
    if "tritonclient" in block:
        pytest.importorskip("tritonclient.http")
    host = server.url.removeprefix("http://")
    outcome = subprocess.run(
        [sys.executable, "-c", block.replace("localhost:8000", host)], capture_output=True, text=True, check=True
    )
    assert outcome.stdout.strip()


def test_command_line_reads_there_as_here(server: RealServer) -> None:
    def lines(*arguments: str) -> list[dict]:
        command = [sys.executable, "-m", "str_app", "recognize", "samples/images", "--json", *arguments]
        outcome = subprocess.run(command, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in outcome.stdout.splitlines()]

    for here, there in zip(lines(), lines("--server", server.url), strict=True):
        assert (here["image"], here["text"]) == (there["image"], there["text"])
        assert here["confidence"] == pytest.approx(there["confidence"], abs=2e-4)
