"""What is asked of Slurm, and what becomes of a job that was stopped, without a Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from tests.commands.test_sweeps import sweep

from qefpn.cli import main
from qefpn.errors import UserError
from qefpn.sweeps import node as sweep_node
from qefpn.sweeps.jobs import JobRecord, read_job
from qefpn.sweeps.plan import waits
from qefpn.sweeps.ranks import adopt_task
from qefpn.sweeps.slurm import sbatch_options

CONF = Path(__file__).parents[2] / "conf" / "hydra" / "launcher" / "slurm.yaml"


def options(trainer: dict[str, Any], **given: Any) -> list[str]:
    launcher = {**OmegaConf.to_container(OmegaConf.load(CONF)), **given}  # type: ignore[dict-item]
    return sbatch_options(launcher, OmegaConf.create({"trainer": trainer}), Path("/sweep/100%"))


@pytest.mark.parametrize(
    ("trainer", "given", "tasks", "gpus"),
    [
        ({"accelerator": "cpu", "devices": 1}, {}, 1, None),
        ({"accelerator": "cpu", "devices": 2, "strategy": "ddp"}, {}, 2, None),
        ({"accelerator": "gpu", "devices": 4, "strategy": "ddp"}, {}, 4, "4"),
        ({"accelerator": "gpu", "devices": [0, 3], "strategy": "ddp"}, {}, 2, "2"),
        ({"accelerator": "auto", "devices": "auto", "strategy": "auto"}, {}, 1, "1"),
        ({"accelerator": "auto", "devices": "auto", "strategy": "auto"}, {"gpus_per_node": None}, 1, None),
        ({"accelerator": "gpu", "devices": "auto", "strategy": "ddp"}, {"gpus_per_node": "a100:8"}, 8, "a100:8"),
    ],
)
def test_a_task_and_a_gpu_for_each_device(
    trainer: dict[str, Any], given: dict[str, Any], tasks: int, gpus: str | None
) -> None:
    said = options(trainer, **given)
    assert f"--ntasks-per-node={tasks}" in said
    assert [word for word in said if word.startswith("--gpus")] == ([f"--gpus-per-node={gpus}"] if gpus else [])
    assert "--requeue" in said
    assert "--signal=B:USR1@120" in said
    assert "--time=1440" in said
    assert "--output=/sweep/100%%/slurm.log" in said


def test_further_options_win() -> None:
    said = options(
        {"accelerator": "cpu", "devices": 1}, mem_gb=4, partition="low", additional_parameters={"hold": None, "time": 5}
    )
    assert {"--mem=4G", "--partition=low", "--hold", "--time=5"} <= set(said)
    assert "--time=1440" not in said


def test_a_task_of_srun_is_a_rank_to_lightning() -> None:
    """And no job of Slurm's, which Lightning would put back into the queue, too."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment

    slurm = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}
    environment = {**slurm, "SLURM_JOB_ID": "7", "PATH": "/bin"}
    assert adopt_task(environment)
    assert environment == {
        "PATH": "/bin",
        "RANK": "3",
        "LOCAL_RANK": "1",
        "GROUP_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "slurm-7",
    }
    assert not adopt_task(environment)
    assert not SLURMEnvironment.detect()


class Ended:
    """An allocation as Slurm would show it."""

    def __init__(self, *, timed_out: bool = False, pushed_out: bool = False, cancelled: bool = False) -> None:
        self.timed_out, self._pushed_out, self._cancelled, self.requeued = timed_out, pushed_out, cancelled, 0

    def pushed_out(self) -> bool:
        return self._pushed_out

    def cancelled(self) -> bool:
        return self._cancelled

    def requeue(self) -> str:
        self.requeued += 1
        return ""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Commands of Slurm's that show a job as told and note what they are asked for."""
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    asked = tmp_path / "asked"

    def show(job: str) -> Path:
        for name in ("scontrol", "scancel"):
            command = tmp_path / "bin" / name
            command.parent.mkdir(exist_ok=True)
            command.write_text(f'#!/bin/sh\necho {name} "$@" >> {asked}\necho "{job}"\n')
            command.chmod(0o755)
        return asked

    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(sweep_node, "AGAIN", 0.1)
    yield show
    for number, handler in former.items():
        signal.signal(number, handler)


def until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not there() and time.monotonic() < end:
        time.sleep(0.05)
    assert there()


@pytest.mark.parametrize("has_ranks", [False, True])
def test_time_is_up_though_no_signal_came(has_ranks: bool, fake: Callable[[str], Path]) -> None:
    """Tasks are told until they end: one that is just being started hears nothing."""
    end = datetime.now() + timedelta(seconds=62)
    asked = fake(f"JobState=RUNNING EndTime={end.isoformat(timespec='seconds')} PreemptTime=None")
    allocation = sweep_node.Allocation(60.0)
    allocation.has_ranks = has_ranks
    begun = time.monotonic()
    try:
        if has_ranks:
            allocation.listen()
            until(lambda: asked.exists() and asked.read_text().count("scancel --signal=TERM 7") > 2)
        else:
            with pytest.raises(SystemExit):
                allocation.listen()
                time.sleep(30)
        assert 0.5 < time.monotonic() - begun < 25
        assert allocation.timed_out
    finally:
        allocation.stopping = True


def test_more_time_was_granted(fake: Callable[[str], Path]) -> None:
    """Between the start and the end of the time that there was then."""
    fake(f"EndTime={(datetime.now() + timedelta(seconds=62)).isoformat(timespec='seconds')}")
    allocation = sweep_node.Allocation(60.0)
    allocation.has_ranks = True
    allocation.listen()
    try:
        time.sleep(0.5)
        asked = fake(f"EndTime={(datetime.now() + timedelta(hours=1)).isoformat(timespec='seconds')}")
        until(lambda: asked.read_text().count("show job") == 2)
        time.sleep(1)
        assert not allocation.timed_out
    finally:
        allocation.stopping = allocation.timed_out = True


@pytest.mark.parametrize(
    ("shown", "timeouts"),
    [
        ("JobState=RUNNING Reason=None PreemptTime=2026-01-01T00:00:00 EndTime=Unknown", 0),
        ("JobState=RUNNING Reason=None PreemptTime=None EndTime=2026-01-01T00:00:00", 1),
        ("JobState=COMPLETING Reason=TimeLimit PreemptTime=None EndTime=Unknown", 1),
    ],
)
def test_told_to_end_before_it_listened(shown: str, timeouts: int, fake: Callable[[str], Path], tmp_path: Path) -> None:
    asked = fake(shown)
    record = JobRecord(0, state="queued", slurm="7")
    record.write(tmp_path)  # which names no configuration: whoever began the job would fail
    assert sweep_node.main([str(tmp_path), str(tmp_path), "2", "60"]) == 143
    found = read_job(tmp_path)
    assert found is not None
    assert (found.state, found.timeouts) == ("queued", timeouts)
    assert "scontrol requeue 7" in asked.read_text()


def test_a_signal_before_it_listens_ends_no_script(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bash, which runs the lines of ``setup``, would end by it, and the job with it."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(f"#!/bin/sh\ncat > {tmp_path}/script\necho 7\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    own = ["hydra/launcher=slurm", "sweep.wait=false", "seed=0,1"]
    own += ["hydra.launcher.setup=['kill -USR1 $$; kill -TERM $$; echo set up; exit']"]
    assert main(sweep(tmp_path / "s", data_root, *own)) == 0
    done = subprocess.run(["bash", str(tmp_path / "script")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "set up\n")


@pytest.mark.parametrize(
    ("how", "before", "state", "requeued"),
    [
        ({"timed_out": True}, 0, "queued", 1),
        ({"timed_out": True}, 2, "failed", 0),
        ({"pushed_out": True}, 2, "queued", 1),
        ({"cancelled": True}, 0, "failed", 0),
        ({}, 0, "interrupted", 0),  # put back by somebody else: Slurm starts it again
    ],
)
def test_what_becomes_of_a_stopped_job(
    how: dict[str, bool], before: int, state: str, requeued: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_node, "PATIENCE", 0.0)
    record, ended = JobRecord(0, state="interrupted", slurm="7", timeouts=before), Ended(**how)
    record.write(tmp_path)
    code = sweep_node.stopped(record, tmp_path, ended, most=2)  # type: ignore[arg-type]
    found = read_job(tmp_path)
    assert found is not None
    assert (found.state, ended.requeued) == (state, requeued)
    assert code == (1 if state == "failed" else 143)
    assert (tmp_path / "error.txt").exists() == (state == "failed")


def test_only_a_cluster_can_be_left() -> None:
    assert waits(["hydra/launcher=slurm"])
    assert not waits(["hydra/launcher=slurm", "sweep.wait=false"])
    for words, said in (
        (["sweep.wait=false"], "hydra/launcher=basic"),
        (["sweep.wait=false", "hydra/launcher=joblib"], "hydra/launcher=joblib"),
        (["sweep.wait=false", "hydra/launcher=slurm", "hydra/sweeper=optuna"], "hydra/sweeper=optuna"),
        (["sweep.wait=perhaps", "hydra/launcher=slurm"], "sweep.wait"),
    ):
        with pytest.raises(UserError, match=said):
            waits(words)


def test_where_there_is_no_slurm(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is claimed, so that the corrected command runs in the same directory."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # as in a process that ran nothing before
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(sweep(tmp_path / "s", data_root, "hydra/launcher=slurm", "seed=0,1")) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "no sbatch here" in line
    assert not (tmp_path / "s" / "sweep.json").exists()
    assert not HydraConfig.initialized()


@pytest.mark.parametrize(
    "option", ["hydra.sweeper.n_trials=0", "hydra.sweeper.sampler=nsga", "hydra.sweeper.storage=postgre://x"]
)
def test_a_search_that_cannot_be_is_one_line(
    option: str, tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    assert main(sweep(tmp_path, data_root, "hydra/sweeper=optuna", "seed=0,1", option)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert option.partition("=")[0] in line
    assert not (tmp_path / "sweep.json").exists()
