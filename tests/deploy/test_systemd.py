"""The unit: what systemd says of it, and whether it fits the server."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.shipped import DEPLOY, LONGEST_STOP_S, VARIABLES

UNIT = DEPLOY / "systemd/str-app.service"
TEXT = UNIT.read_text()
SETTINGS = dict(re.findall(r"^([A-Za-z]+)=(.*)$", TEXT, re.MULTILINE))


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze") or pytest.skip("needs systemd-analyze")
    return subprocess.run([tool, *arguments], capture_output=True, text=True)


def test_systemd_takes_it(tmp_path: Path) -> None:
    # The environment of /opt/str-app is not on this machine.
    unit = tmp_path / UNIT.name
    unit.write_text(TEXT.replace("/opt/str-app/bin/str-app", sys.executable))
    done = analyze("verify", str(unit))
    assert done.returncode == 0, done.stderr
    assert UNIT.name not in done.stderr, done.stderr


def test_it_is_hardened() -> None:
    done = analyze("security", "--offline=true", "--threshold=15", str(UNIT))  # tenths, of 10.0 for no protection
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_it_fits_the_server() -> None:
    assert set(re.findall(r"STR_APP_[A-Z_]+", TEXT)) <= VARIABLES
    assert SETTINGS["ExecStart"].endswith("/str-app serve")
    assert SETTINGS["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert SETTINGS["KillSignal"] == "SIGTERM"
    assert int(SETTINGS["TimeoutStopSec"]) > LONGEST_STOP_S
    assert SETTINGS["OOMPolicy"] == "continue"  # the server replaces a model process that is killed
    assert int(SETTINGS["SuccessExitStatus"]) == 128 + signal.SIGTERM  # of a second SIGTERM
