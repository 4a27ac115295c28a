"""The command in processes of its own: Ctrl-C, and two devices."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.commands.runs import log, words

pytestmark = pytest.mark.slow


def command(*argv: str) -> list[str]:
    return [sys.executable, "-m", "qefpn.cli", *argv]


def test_ctrl_c_leaves_a_checkpoint_and_one_line(tmp_path: Path, data_root: Path) -> None:
    argv = words(tmp_path / "run", data_root, "trainer.max_steps=100000", "warmup.steps=100000")
    process = subprocess.Popen(command(*argv), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (tmp_path / "run" / "log.csv").exists() and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines() == ["qefpn train: interrupted"]
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == int(log(tmp_path / "run")[-1]["step"]) + 1


def test_two_processes(tmp_path: Path, data_root: Path) -> None:
    run = tmp_path / "it's [two]"
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.val_fraction=0.3"]
    argv = [word for word in words(run, data_root, *ddp, "report=false") if word != "trainer=cpu"]
    done = subprocess.run(command(*argv), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [int(row["step"]) for row in log(run)] == [0, 1, 2]
    assert json.loads((run / "metrics.json").read_text())["SYN-TE"]["images"] == 3  # not a share of them
    assert done.stdout.count("training on") == 1


def test_a_sweep_does_not_start_processes_of_its_own(tmp_path: Path, data_root: Path) -> None:
    """They would be started with the whole sweep."""
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    argv = [w for w in words(tmp_path / "run", data_root, *ddp) if w != "trainer=cpu" and "run.dir" not in w]
    sweep = ["-m", "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep"]
    done = subprocess.run(command(*argv, *sweep), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.count("a multirun takes one device a job") == 2
    assert "Traceback" not in done.stderr
