"""The command in processes of its own: Ctrl-C, kills, two devices, and sweeps of all that."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.commands.runs import log, words

from qefpn.cli import main

pytestmark = pytest.mark.slow


def command(*argv: str) -> list[str]:
    return [sys.executable, "-m", "qefpn.cli", *argv]


def test_ctrl_c_leaves_a_checkpoint_and_one_line(tmp_path: Path, data_root: Path) -> None:
    argv = words(tmp_path / "run", data_root, "trainer.max_steps=100000", "warmup.steps=100000")
    process = subprocess.Popen(
        command(*argv),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    try:
        wait_for((tmp_path / "run" / "log.csv").exists, seconds=120)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    *note, last_line = [line for line in err.splitlines() if line]
    assert last_line == "qefpn train: interrupted"
    stopping = "stopping after this step (Ctrl-C again: at once, without saving)"
    assert note in ([stopping], [])  # nothing is said between steps, as in validation
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


SPY = """
import json, os, pathlib, sys

if "RANK" in os.environ and "LOCAL_WORLD_SIZE" in os.environ and "qefpn.sweeps.ranks" in sys.orig_argv:
    directory = pathlib.Path(sys.orig_argv[-1])
    rank = os.environ["RANK"]
    from qefpn.training.module import SaliencyModule

    step = SaliencyModule.training_step

    def training_step(self, batch, batch_idx):
        if os.environ.get("FAIL") == directory.name + "/" + rank:
            raise RuntimeError("out of memory in rank " + rank)
        seen = {"rank": self.global_rank, "world": self.trainer.world_size, "seed": self._seed}
        lr = self.optimizer.keywords["lr"]
        seen |= {"lr": lr, "root": self.trainer.default_root_dir, "pictures": len(batch["index"])}
        (directory / ("rank" + rank + ".json")).write_text(json.dumps(seen))
        return step(self, batch, batch_idx)

    SaliencyModule.training_step = training_step
    if "SAVE_EVERY" in os.environ:
        from qefpn.training.last_checkpoint import LastCheckpoint

        LastCheckpoint.__init__.__defaults__ = (float(os.environ["SAVE_EVERY"]),)
"""
"""What each rank sees, told from within it; and last.ckpt more often, so that a kill soon finds one."""

SIZES = ["synthetic.train=12", "synthetic.test=3", "synthetic.size=64"]
DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.val_fraction=0.3", "report=false"]


def sweep_words(folder: Path, data: Path, *more: str) -> list[str]:
    gone = ("hydra.run.dir",) if "trainer=ddp" not in more else ("hydra.run.dir", "trainer=cpu")
    kept = [word for word in words(folder, data, *more) if not word.startswith(gone)]
    return [*kept, "-m", f"hydra.sweep.dir={folder}"]


def test_a_sweep_of_two_processes_a_job(tmp_path: Path, data_root: Path) -> None:
    """Every rank has its own job's options and directory; rank 1 of the first job fails, alone, and is resumed."""
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "sitecustomize.py").write_text(SPY)
    folder = tmp_path / "it's a sweep"
    argv = sweep_words(folder, data_root, *DDP, "seed=0,1", "optimizer.lr=0.0625")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "spy")}
    done = subprocess.run(
        command(*argv), capture_output=True, text=True, timeout=400, env={**environment, "FAIL": "0/1"}
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == "qefpn train: failed: job 0; the other jobs are done"
    error = (folder / "0" / "error.txt").read_text()
    assert "rank 1:" in error
    assert "RuntimeError: out of memory in rank 1" in error
    assert not (folder / "0" / "metrics.json").exists()
    written = (folder / "1" / "metrics.json").stat().st_mtime_ns
    again = subprocess.run(
        command(*argv, "sweep.resume=true"), capture_output=True, text=True, timeout=200, env=environment
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == 1
    assert not (folder / "0" / "error.txt").exists()
    assert (folder / "1" / "metrics.json").stat().st_mtime_ns == written
    for job in (0, 1):
        seen = [json.loads((folder / str(job) / f"rank{rank}.json").read_text()) for rank in (0, 1)]
        assert [one["rank"] for one in seen] == [0, 1]
        for one in seen:
            assert one["root"] == str(folder / str(job))
            assert (one["world"], one["seed"], one["lr"], one["pictures"]) == (2, job, 0.0625, 2)  # of a batch of 4
        assert json.loads((folder / str(job) / "metrics.json").read_text())["SYN-TE"]["images"] == 3
        assert [int(row["step"]) for row in log(folder / str(job))] == [0, 1, 2]


def wait_for(there: Callable[[], bool], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not there() and time.monotonic() < until:
        time.sleep(0.2)
    assert there()


def kept_steps(job: Path) -> int:
    return int(torch.load(job / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])


@pytest.mark.parametrize("devices", [1, 2])
def test_a_killed_sweep_goes_on(devices: int, tmp_path: Path, data_root: Path) -> None:
    """After SIGTERM, and, where one process trains, after `kill -9` of it once more."""
    folder = tmp_path / "sweep"
    long = ["trainer.max_steps=60", "warmup.steps=60", "data.image_size=96", "data.scales=[96]"]
    argv = sweep_words(folder, data_root, *(DDP if devices == 2 else ()), *long, "seed=0,1", "evaluate=false")
    second = folder / "1"
    signals = [signal.SIGTERM] if devices == 2 else [signal.SIGTERM, signal.SIGKILL]
    before = 0
    for number in signals:
        process = subprocess.Popen(
            command(*argv), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        wait_for(lambda: (second / "log.csv").exists() and len(log(second)) > before + 3)  # noqa: B023
        process.send_signal(number) if number == signal.SIGTERM else kill_all(process.pid)
        _, err = process.communicate(timeout=90)
        state = json.loads((second / "job.json").read_text())["state"]
        if number == signal.SIGTERM:
            assert process.returncode == 143
            assert "interrupted: job 1" in err
            assert state == "interrupted"
            before = kept_steps(second)
            assert 3 < before < 60
            argv.append("sweep.resume=true")
        else:
            assert process.returncode == -signal.SIGKILL
            assert state == "running"
            assert before <= kept_steps(second) < 60
    again = subprocess.run(command(*argv), capture_output=True, text=True, timeout=200)
    assert again.returncode == 0, again.stderr
    assert "job 0: seed=0: done before" in again.stdout
    assert "goes on from" in again.stdout
    assert kept_steps(second) == 60
    steps = [int(row["step"]) for row in log(second)]
    assert steps == list(range(60))  # none twice, none left out
    assert json.loads((second / "job.json").read_text())["attempts"] == 1 + len(signals)


def test_a_killed_sweep_of_two_processes_a_job_goes_on(tmp_path: Path, data_root: Path) -> None:
    """`kill -9` of the sweep's process group, in which its ranks are not; then of all, as when a machine goes down."""
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "sitecustomize.py").write_text(SPY)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "spy"), "SAVE_EVERY": "0.2"}
    folder = tmp_path / "sweep"
    argv = sweep_words(folder, data_root, *DDP, "trainer.max_steps=40", "warmup.steps=40", "seed=0,1,2")
    jobs = [folder / str(number) for number in range(3)]
    finished = None
    for begun, kill in ((1, kill_group), (2, kill_all)):
        process = subprocess.Popen(
            command(*argv),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
        job = jobs[begun]
        try:
            wait_for((job / "checkpoints" / "last.ckpt").exists)
            assert len(rank_processes(job)) >= 2
        finally:
            kill(process.pid)
        assert process.wait(timeout=60) == -signal.SIGKILL
        wait_for(lambda: not rank_processes(job), seconds=30)  # noqa: B023 (nobody trains on beside a resumed sweep)
        states = [json.loads((one / "job.json").read_text())["state"] for one in jobs[: begun + 1]]
        assert states == [*["done"] * begun, "running"]
        assert not any(one.exists() for one in jobs[begun + 1 :])
        assert 0 < kept_steps(job) < 40
        finished = finished or (jobs[0] / "metrics.json").stat().st_mtime_ns
        if begun == 1:
            argv.append("sweep.resume=true")
    again = subprocess.run(command(*argv), capture_output=True, text=True, timeout=400, env=environment)
    assert again.returncode == 0, again.stderr
    assert "job 0: seed=0: done before" in again.stdout
    assert again.stdout.count("goes on from") == 1
    assert (jobs[0] / "metrics.json").stat().st_mtime_ns == finished
    for job, attempts in zip(jobs, (1, 2, 2), strict=True):
        found = json.loads((job / "job.json").read_text())
        assert (found["state"], found["attempts"]) == ("done", attempts)
        assert kept_steps(job) == 40
        assert (job / "metrics.json").is_file()


def test_a_killed_search_goes_on(tmp_path: Path, data_root: Path) -> None:
    """The trial that was begun is gone on with, with its values; none is asked for twice."""
    pytest.importorskip("optuna")
    folder = tmp_path / "a search"
    own = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "trainer.max_steps=20", "warmup.steps=20"]
    argv = sweep_words(folder, data_root, *own, "optimizer.lr=tag(log,interval(1e-4,1e-2))", "evaluate=false")
    process = subprocess.Popen(
        command(*argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for(lambda: (folder / "1" / "log.csv").exists())
    finally:
        kill_all(process.pid)
    process.wait(timeout=60)
    before = [json.loads((folder / number / "job.json").read_text()) for number in "01"]
    assert [job["state"] for job in before] == ["done", "running"]
    again = subprocess.run(command(*argv, "sweep.resume=true"), capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stderr
    after = [json.loads((folder / number / "job.json").read_text()) for number in "012"]
    assert [(job["state"], job["attempts"]) for job in after] == [("done", 1), ("done", 2), ("done", 1)]
    assert [job["words"] for job in after[:2]] == [job["words"] for job in before]
    rates = {word for job in after for word in job["words"] if word.startswith("optimizer.lr=")}
    assert len(rates) == 3
    assert not (folder / "3").exists()


def test_jobs_side_by_side_end_with_their_sweep(tmp_path: Path, data_root: Path) -> None:
    """joblib's processes, too, leave a resumed sweep alone."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    folder = tmp_path / "sweep"
    own = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1", "trainer.max_steps=100000", "warmup.steps=9"]
    argv = sweep_words(folder, data_root, *own, "evaluate=false")
    process = subprocess.Popen(
        command(*argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for(lambda: all((folder / job / "log.csv").exists() for job in "01"))
        workers = [pid for pid, parent in children() if parent == process.pid and is_worker(pid)]
        assert len(workers) == 2
        process.kill()
        wait_for(lambda: not any(map(is_worker, workers)), seconds=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def is_worker(pid: int) -> bool:
    """Whether a process is one of joblib's, and runs."""
    return any(word.startswith("LokyProcess") for word in proc(pid, "cmdline"))


def children() -> list[tuple[int, int]]:
    """(process, its parent) of all processes."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [(int(pid), int(parent)) for pid, parent in map(str.split, listed.splitlines())]


def kill_group(pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)


def kill_all(pid: int) -> None:
    """SIGKILL for a process and what it started, as when a machine goes down."""
    parents = dict(children())
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    for one in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def proc(pid: int, name: str) -> list[str]:
    """`environ` or `cmdline` of a process, nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def rank_processes(job: Path) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    own = [(pid, proc(pid, "cmdline")) for pid in pids]
    return [pid for pid, line in own if "qefpn.sweeps.ranks" in line and str(job) in line]


def test_a_rank_that_is_killed_ends_its_job_alone(tmp_path: Path, data_root: Path) -> None:
    folder = tmp_path / "sweep"
    long = ["trainer.max_steps=3,100000", "warmup.steps=60", "evaluate=false"]
    process = subprocess.Popen(
        command(*sweep_words(folder, data_root, *DDP, *long)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        wait_for(lambda: (folder / "1" / "log.csv").exists())
        (rank,) = (pid for pid in rank_processes(folder / "1") if "RANK=1" in proc(pid, "environ"))
        os.kill(rank, signal.SIGKILL)
        assert process.wait(timeout=120) == 1
    finally:
        if process.poll() is None:
            kill_all(process.pid)
    states = [json.loads((folder / str(job) / "job.json").read_text())["state"] for job in (0, 1)]
    assert states == ["done", "failed"]
    assert "SIGKILL" in (folder / "1" / "error.txt").read_text()


def test_two_machines_by_torchrun_s_variables(tmp_path: Path, data_root: Path) -> None:
    """Two machines of one device each, here both this one."""
    assert main(["data", "synthesize", f"data.root={tmp_path}/data", *SIZES]) == 0
    run = tmp_path / "run"
    one = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1", "data.val_fraction=0.3", "report=false"]
    argv = [word for word in words(run, tmp_path / "data", *one) if word != "trainer=cpu"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    start += ["--master_addr=127.0.0.1", f"--master_port={port}"]
    machines = [
        subprocess.Popen(
            [*start, f"--node_rank={rank}", "-m", "qefpn.cli", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [machine.communicate(timeout=200)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(said)
    assert [int(row["step"]) for row in log(run)] == [0, 1, 2]
    assert json.loads((run / "metrics.json").read_text())["SYN-TE"]["images"] == 3
    assert "".join(said).count("training on") == 1
