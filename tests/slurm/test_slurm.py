"""Sweeps on a real Slurm: jobs pushed out, timed out, cancelled and refused; sweeps that are left and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands.runs import data_root, log, words
from tests.slurm.cluster import Cluster, missing, started

from qefpn.cli import main

__all__ = ["data_root"]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.val_fraction=0.3"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:  # munged's user may not enter pytest's own
        Path(name).chmod(0o755)
        with started(Path(name)) as running:
            yield running


@pytest.fixture(autouse=True)
def _reached(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])


def sweep(folder: Path, data: Path, *more: str) -> list[str]:
    """A sweep whose jobs take a node each."""
    own = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=2", "hydra.launcher.poll_s=1", "evaluate=false"]
    gone = ("hydra.run.dir", *(["trainer=cpu"] if "trainer=ddp" in more else []))
    given = [word for word in words(folder, data, *own, *more) if not word.startswith(gone)]
    return [*given, "-m", f"hydra.sweep.dir={folder}"]


def start(*argv: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "qefpn.cli", *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def job(directory: Path) -> dict[str, Any]:
    try:
        found = json.loads((directory / "job.json").read_text())
    except OSError:
        return {"state": "", "slurm": None}
    assert isinstance(found, dict)
    return found


def steps(directory: Path) -> list[int]:
    return [int(row["step"]) for row in log(directory)] if (directory / "log.csv").exists() else []


def wait_for(there: Callable[[], bool], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not there() and time.monotonic() < until:
        time.sleep(0.2)
    assert there()


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert isinstance(state, dict)
    return state


def test_pushed_out_and_cancelled(cluster: Cluster, tmp_path: Path, data_root: Path) -> None:
    """Of three jobs on two nodes the first is pushed out, the second cancelled; the first ends as if undisturbed."""
    folder = tmp_path / "it's a sweep, 100%"
    long = ["trainer.max_steps=60", "warmup.steps=30"]
    process = start(*sweep(folder, data_root, *long, "hydra.launcher.partition=low", "seed=0,1,2"))
    first, second, third = (folder / str(number) for number in range(3))
    try:
        wait_for(lambda: len(steps(first)) > 3 and len(steps(second)) > 0)
        node = cluster.run("squeue", "--noheader", f"--jobs={job(first)['slurm']}", "--format=%N")
        cluster.run("sbatch", "--partition=high", f"--nodelist={node}", "--cpus-per-task=2", "--wrap=sleep 5")
        cluster.run("scancel", str(job(second)["slurm"]))
        said, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 1
    assert said.splitlines()[-1] == "qefpn train: failed: job 1; the other jobs are done"
    assert [job(one)["state"] for one in (first, second, third)] == ["done", "failed", "done"]
    assert [job(one)["attempts"] for one in (first, second, third)] == [2, 1, 1]
    assert "scancel" in (second / "error.txt").read_text()
    assert 0 < len(steps(second)) < 60
    assert steps(first) == steps(third) == list(range(60))
    assert "goes on from" in (first / "slurm.log").read_text()
    assert main(words(tmp_path / "alone", data_root, *long, "seed=0", "evaluate=false")) == 0
    alone = weights(tmp_path / "alone")
    assert alone.keys() == weights(first).keys()
    for name, value in weights(first).items():
        assert torch.equal(value, alone[name]), name


def test_time_is_up_for_two_tasks(cluster: Cluster, tmp_path: Path, data_root: Path) -> None:
    """Near the time limit Slurm sends the signal that is sent here: the job goes back into the queue, and goes on."""
    run = tmp_path / "0"
    own = ["hydra.launcher.cpus_per_task=1", "trainer.max_steps=40", "warmup.steps=40", "seed=0"]
    process = start(*sweep(tmp_path, data_root, *DDP, *own))
    try:
        wait_for(lambda: len(steps(run)) > 3)
        number = str(job(run)["slurm"])
        assert "Tasks=2 " in cluster.run("scontrol", "--oneliner", "show", "step", f"{number}.0")
        cluster.run("scancel", "--batch", "--signal=USR1", number)
        process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0
    found = job(run)
    assert (found["state"], found["attempts"], found["timeouts"], found["slurm"]) == ("done", 2, 1, number)
    assert (run / "slurm.log").read_text().count("goes on from") == 1
    assert steps(run) == list(range(40))


def test_left_looked_at_and_gone_on_with(
    cluster: Cluster, tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = sweep(tmp_path, data_root, "trainer.max_steps=40", "warmup.steps=20", "seed=0,1")
    assert main([*given, "sweep.wait=false"]) == 0
    assert "failed" not in capfd.readouterr().err
    assert all(job(tmp_path / number)["state"] in ("queued", "running") for number in "01")
    assert main(["report", f"runs={tmp_path}", f"output={tmp_path}/early"]) == 0
    wait_for(lambda: len(steps(tmp_path / "0")) > 0)
    assert main(["report", f"runs={tmp_path}", f"output={tmp_path}/later"]) == 0
    capfd.readouterr()
    number = job(tmp_path / "0")["slurm"]
    assert main([*given, "sweep.resume=true"]) == 0
    out = capfd.readouterr().out
    assert out.count("in the queue as") == 2
    assert [job(tmp_path / one)["state"] for one in "01"] == ["done", "done"]
    assert job(tmp_path / "0")["slurm"] == number
    assert steps(tmp_path / "0") == list(range(40))
    assert main([*given, "sweep.resume=true"]) == 0
    assert capfd.readouterr().out.count("done before") == 2


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("hydra.launcher.gpus_per_node=1", "hydra.launcher.gpus_per_node=null"),
        ("hydra.launcher.partition=gpu", "hydra.launcher.partition"),
        ("hydra.launcher.mem_gb=900", "hydra.launcher.mem_gb"),
        ("hydra.launcher.constraint=a100", "hydra.launcher.constraint"),
        ("hydra.launcher.additional_parameters={colour:blue}", "hydra.launcher.additional_parameters"),
    ],
)
def test_a_refused_request_is_one_line(
    option: str, said: str, tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(sweep(tmp_path, data_root, option, "seed=0,1")) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "Slurm refused job 0: " in line
    assert said in line
    assert not (tmp_path / "sweep.json").exists()  # the corrected command starts it
    assert not (tmp_path / "0" / "job.json").exists()


def test_cancelled_before_it_began(cluster: Cluster, tmp_path: Path, data_root: Path) -> None:
    held = ["hydra.launcher.additional_parameters={hold:null}", "seed=0"]
    process = start(*sweep(tmp_path, data_root, *held))
    try:
        wait_for(lambda: job(tmp_path / "0")["state"] == "queued")
        cluster.run("scancel", str(job(tmp_path / "0")["slurm"]))
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert job(tmp_path / "0")["state"] == "failed"
    assert "scancel" in (tmp_path / "0" / "error.txt").read_text()


def test_nothing_is_left_running(cluster: Cluster) -> None:
    wait_for(lambda: not cluster.states(), seconds=60)
    ranks = [
        entry.name
        for entry in Path("/proc").glob("[0-9]*")
        if _names(entry / "cmdline", "qefpn.commands.sweep_") and _names(entry / "environ", str(cluster.directory))
    ]
    assert not ranks


def _names(path: Path, text: str) -> bool:
    try:
        return os.fsencode(text) in path.read_bytes()
    except OSError:
        return False
