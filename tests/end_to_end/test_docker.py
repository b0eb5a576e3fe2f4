"""The image, built and run locked up; `make docker-test` runs the same script."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/docker_test.sh"


def engine_reached() -> bool:
    return bool(shutil.which("docker")) and subprocess.run(["docker", "info"], capture_output=True).returncode == 0


@pytest.mark.slow
def test_images_start_locked_up_read_and_stop() -> None:
    if not engine_reached():
        pytest.skip("no Docker Engine reached; set DOCKER_HOST")
    done = subprocess.run([SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for target in ("onnx", "torch"):
        assert f"{target}: stopped with exit code 0" in done.stdout
