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
from tests.slurm.cluster import Cluster, missing, processes, started

from qefpn.cli import main
from qefpn.sweeps import slurm as sweep_slurm

__all__ = ["data_root"]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.val_fraction=0.3"]
UNTIL_TOLD = """
import json, os, sys, time
from pathlib import Path

if "qefpn.sweeps.ranks" in sys.orig_argv and "HELD" in os.environ:
    from qefpn.training.last_checkpoint import LastCheckpoint

    run, attempt = Path(sys.orig_argv[-1]), int(os.environ.get("SLURM_RESTART_COUNT", 0))
    held = dict(enumerate(json.loads(os.environ["HELD"]).get(run.name, [])))
    ended = LastCheckpoint.on_train_batch_end

    def wait(callback, trainer, *given):
        ended(callback, trainer, *given)
        if trainer.global_step == held.get(attempt):
            (run / "held").touch()
            until = time.monotonic() + 200
            while not callback._signal and not (run / "go").exists() and time.monotonic() < until:
                time.sleep(0.1)

    LastCheckpoint.on_train_batch_end = wait
"""
"""A rank that waits to be told to stop, or to go on, after the step that ``HELD`` names for its job's attempt."""
HOLDER = """
import sys, time
from pathlib import Path
from tests.slurm.cluster import started

with started(Path(sys.argv[1])) as cluster:
    print(cluster.run("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 987"), flush=True)
    while cluster.states() != {"wrap": "RUNNING"}:
        time.sleep(0.1)
    print("running", flush=True)
    time.sleep(987)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:  # munged's user may not enter pytest's own
        Path(name).chmod(0o755)
        with started(Path(name)) as running:
            yield running


@pytest.fixture(autouse=True)
def _reached(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    own = tmp_path_factory.mktemp("site")
    (own / "sitecustomize.py").write_text(UNTIL_TOLD)
    monkeypatch.setenv("PYTHONPATH", str(own), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])


def hold(monkeypatch: pytest.MonkeyPatch, **held: list[int]) -> None:
    """Let the first attempts of jobs wait after the steps given: ``_0=[4, 8]``."""
    monkeypatch.setenv("HELD", json.dumps({name[1:]: at for name, at in held.items()}))


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


def equal_to_undisturbed(run: Path, alone: Path, data: Path, *more: str) -> None:
    assert main(words(alone, data, *more, "seed=0", "evaluate=false")) == 0
    found, expected = weights(run), weights(alone)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def test_pushed_out_and_cancelled(
    cluster: Cluster, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three jobs on two nodes the first is pushed out, the second cancelled; the first ends as if undisturbed."""
    folder = tmp_path / "it's a sweep, 100%"
    long = ["trainer.max_steps=12", "warmup.steps=6"]
    hold(monkeypatch, _0=[4], _1=[4])
    process = start(*sweep(folder, data_root, *long, "hydra.launcher.partition=low", "seed=0,1,2"))
    first, second, third = (folder / str(number) for number in range(3))
    try:
        wait_for(lambda: (first / "held").exists() and (second / "held").exists())
        node = cluster.run("squeue", "--noheader", f"--jobs={job(first)['slurm']}", "--format=%N")
        cluster.run(
            "sbatch",
            "--partition=high",
            f"--nodelist={node}",
            "--cpus-per-task=2",
            "--output=/dev/null",
            "--wrap=sleep 5",
        )
        cluster.run("scancel", str(job(second)["slurm"]))
        said, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 1
    assert said.splitlines()[-1] == "qefpn train: failed: job 1; the other jobs are done"
    assert [job(one)["state"] for one in (first, second, third)] == ["done", "failed", "done"]
    assert [job(one)["attempts"] for one in (first, second, third)] == [2, 1, 1]
    assert "scancel" in (second / "error.txt").read_text()
    assert 0 < len(steps(second)) < 12
    assert steps(first) == steps(third) == list(range(12))
    assert "goes on from" in (first / "slurm.log").read_text()
    equal_to_undisturbed(first, tmp_path / "alone", data_root, *long)


def test_time_is_up_for_two_tasks(
    cluster: Cluster, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near the time limit Slurm sends the signal that is sent here: the job goes back into the queue, and goes on."""
    run = tmp_path / "0"
    own = ["hydra.launcher.cpus_per_task=1", "trainer.max_steps=12", "warmup.steps=12", "seed=0"]
    hold(monkeypatch, _0=[4])
    process = start(*sweep(tmp_path, data_root, *DDP, *own))
    try:
        wait_for(lambda: (run / "held").exists())
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
    assert steps(run) == list(range(12))


def test_time_is_up_again_and_again(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute is too short twice: Slurm kills nothing, and the weights are those of an undisturbed run."""
    long = ["trainer.max_steps=14", "warmup.steps=3"]
    limit = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=5", "seed=0"]
    hold(monkeypatch, _0=[4, 8])
    folder = tmp_path / "sweep"
    run = folder / "0"
    process = start(*sweep(folder, data_root, *long, *limit))
    try:
        said, _ = process.communicate(timeout=540)
    finally:
        process.kill()
    assert process.returncode == 0, said
    found, told = job(run), (run / "slurm.log").read_text()
    assert found["state"] == "done"
    assert found["timeouts"] >= 2
    assert found["attempts"] == found["timeouts"] + 1
    assert "TIME LIMIT" not in told
    assert steps(run) == list(range(14))
    equal_to_undisturbed(run, tmp_path / "alone", data_root, *long)


def test_left_looked_at_and_gone_on_with(
    tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = sweep(tmp_path, data_root, "trainer.max_steps=8", "warmup.steps=4", "seed=0,1")
    hold(monkeypatch, _0=[3], _1=[3])
    watch = sweep_slurm.wait_for

    def let_go(*words: Any) -> None:
        for number in "01":
            (tmp_path / number / "go").touch()
        watch(*words)

    monkeypatch.setattr(sweep_slurm, "wait_for", let_go)
    assert main([*given, "sweep.wait=false"]) == 0
    assert "failed" not in capfd.readouterr().err
    assert all(job(tmp_path / number)["state"] in ("queued", "running") for number in "01")
    assert main(["report", f"runs={tmp_path}", f"output={tmp_path}/early"]) == 0
    wait_for(lambda: len(steps(tmp_path / "0")) > 0 and (tmp_path / "0" / "held").exists())
    assert main(["report", f"runs={tmp_path}", f"output={tmp_path}/later"]) == 0
    capfd.readouterr()
    number = job(tmp_path / "0")["slurm"]
    assert main([*given, "sweep.resume=true"]) == 0
    out = capfd.readouterr().out
    assert out.count("in the queue as") == 2
    assert [job(tmp_path / one)["state"] for one in "01"] == ["done", "done"]
    assert job(tmp_path / "0")["slurm"] == number
    assert steps(tmp_path / "0") == list(range(8))
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


def test_a_killed_holder_leaves_no_daemon() -> None:
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        Path(name).chmod(0o755)
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, name], stdout=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None
            assert holder.stdout.read(1)
            assert "running" in (holder.stdout.readline() + holder.stdout.readline())
            commands = {(Path("/proc") / str(n) / "comm").read_text().strip() for n in processes(Path(name))}
            assert {"munged", "slurmctld", "slurmd", "slurmstepd", "sleep"} <= commands
        finally:
            holder.kill()
            holder.wait()
        wait_for(lambda: not processes(Path(name)), seconds=20)


def test_nothing_is_left_running(cluster: Cluster) -> None:
    wait_for(lambda: not cluster.states(), seconds=60)
    ranks = [
        entry.name
        for entry in Path("/proc").glob("[0-9]*")
        if _names(entry / "cmdline", "qefpn.sweeps.") and _names(entry / "environ", str(cluster.directory))
    ]
    assert not ranks


def _names(path: Path, text: str) -> bool:
    try:
        return os.fsencode(text) in path.read_bytes()
    except OSError:
        return False
