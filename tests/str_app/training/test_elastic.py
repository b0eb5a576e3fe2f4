"""torchrun starts processes again when one is killed; the run continues from its last state, exactly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.datasets.shards import shard_path
from tests.str_app.training.tiny_run import encoded, weights

ROOT = Path(__file__).resolve().parents[3]
# The command line, in which the second process of the first attempt is killed after three steps.
KILLED = """
import os, signal
from str_app.cli import main
from str_app.training import loop
update = loop._Run._update
def dying(run, *arguments):
    if run.step == 3 and run.world.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return update(run, *arguments)
loop._Run._update = dying
main()
"""


def torchrun(program, arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2"]
    command += ["--monitor-interval=0.1", *program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.slow  # two runs of torchrun: minutes on a busy machine
def test_a_process_is_killed_and_the_run_ends_as_if_it_were_not(tiny_checkpoint, tmp_path):
    data = tmp_path / "data"
    for number in range(3):
        with LmdbWriter(shard_path(data, number)) as writer:
            for k in range(6):
                writer.add(encoded(40 * number + 5 * k), "ab"[k % 2])
    arguments = ["train", "--auto-resume", "--train", data, "--val", data, "--from", tiny_checkpoint]
    for setting in ("steps=6", "batch_size=8", "group=2", "workers=1", "validate_every=2", "precision=fp32"):
        arguments += ["--set", setting]
    (tmp_path / "killed.py").write_text(KILLED)
    torchrun(["-m", "str_app"], [*arguments, "--out", tmp_path / "whole"])
    log = torchrun([tmp_path / "killed.py"], [*arguments, "--out", tmp_path / "parts"])
    assert "18 samples in 1 sets, step 0 of 6" in log
    assert "18 samples in 1 sets, step 2 of 6" in log
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name in whole:
        assert torch.equal(whole[name], parts[name]), name
