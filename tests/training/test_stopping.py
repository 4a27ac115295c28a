"""What ends a run early: one line that says what and how to go on; nothing lost."""

from __future__ import annotations

import csv
import inspect
import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands.runs import log, train, words
from tests.training.breaking import assert_same_run, run_once

from qefpn import load_model
from qefpn.cli import main
from qefpn.experiments.run import process_rank
from qefpn.training.checkpoint import AtomicCheckpointIO
from qefpn.training.last_checkpoint import LastCheckpoint
from qefpn.training.module import SaliencyModule

RUN = ["evaluate=false", "warmup.steps=2", "data.batch_size=4", "data.val_fraction=0.2"]


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qefpn ")]
    return line


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return content


# ---------------------------------------------------------------------- whose directory


def test_a_directory_that_holds_a_run_is_refused(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path / "run", data_root, *RUN, "trainer.max_steps=1")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for more in ([], [f"resume={shutil.copyfile(run / 'checkpoints/last.ckpt', tmp_path / 'elsewhere.ckpt')}"]):
        assert main(words(run, data_root, *RUN, *more)) == 2
        line = one_line(capsys)
        assert "holds a run already" in line
        assert f"resume={run}/checkpoints/last.ckpt" in line
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_that_goes_on_elsewhere_takes_the_best_along(
    kept: bool, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation finds its best in the first run, at its first end of an epoch."""

    def on_validation_epoch_end(self: SaliencyModule) -> None:
        self.val_metrics.reset()
        self.validated_at = self.global_step
        self.log("val_weighted_f", 1.0 / self.global_step)

    monkeypatch.setattr(SaliencyModule, "on_validation_epoch_end", on_validation_epoch_end)
    first = train(tmp_path / "first", data_root, *RUN, "trainer.max_steps=4")
    assert checkpoint(first, "best")["global_step"] == 2
    if not kept:
        (first / "checkpoints" / "best.ckpt").unlink()
    more = ["trainer.max_steps=8", f"resume={first}/checkpoints/last.ckpt"]
    second = train(tmp_path / "second", data_root, *RUN, *more)
    assert checkpoint(second, "best")["global_step"] == (2 if kept else 6)


# ---------------------------------------------------------------------- when


@pytest.mark.parametrize(("seconds", "steps"), [(3600.0, [4]), (0.0, [1, 2, 3, 4])])
def test_last_checkpoint_waits_its_time(
    seconds: float, steps: list[int], tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    save = AtomicCheckpointIO.save_checkpoint

    def save_checkpoint(self: Any, content: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        written.append(content["global_step"])
        save(self, content, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save_checkpoint)
    monkeypatch.setattr(LastCheckpoint.__init__, "__defaults__", (seconds,))
    train(tmp_path / "run", data_root, *RUN, "trainer.max_steps=4", "data.val_fraction=0")
    assert sorted(set(written)) == steps


def test_a_second_ctrl_c_stops_at_once_and_saves_nothing(
    tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where the process is meanwhile does not matter: here in a step that would never end."""

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(100)

    given = words(tmp_path / "run", data_root, *RUN, "trainer.max_steps=99")
    assert run_once(given, moment=6, strike=twice, save_every=3600.0) == 130
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert "Ctrl-C again: at once" in capfd.readouterr().err


# ---------------------------------------------------------------------- the same run


@pytest.mark.parametrize(
    ("option", "named"),
    [("data.batch_size=2", "data.batch_size=4"), ("seed=7", "seed=0"), ("data.synthetic.train=16", "pictures")],
)
def test_another_run_s_checkpoint_is_refused(
    option: str, named: str, tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path / "run", data_root, *RUN, "trainer.max_steps=1")
    own = [word for word in RUN if word.partition("=")[0] != option.partition("=")[0]]
    root = tmp_path / "other" if "synthetic" in option else data_root
    given = words(tmp_path / "second", root, *own, option, f"resume={run}/checkpoints/last.ckpt")
    assert main(given) == 2
    line = one_line(capsys)
    assert named in line
    assert "init=" in line


def test_a_checkpoint_is_enough(tmp_path: Path, data_root: Path) -> None:
    run = train(tmp_path / "run", data_root, *RUN, "trainer.max_steps=2")
    own = checkpoint(run)["qefpn"]
    assert own["config"]["data"]["batch_size"] == 4
    assert own["config"]["optimizer"]["_target_"] == "qefpn.training.optimizers.adamw"
    assert own["place"] == [1, 0]  # two batches an epoch
    assert len(checkpoint(run)["SaliencyDataModule"]["fingerprint"]) == 16
    alone = shutil.copyfile(run / "checkpoints" / "best.ckpt", tmp_path / "net.ckpt")
    assert load_model(alone)(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_a_finished_run_resumed_elsewhere_is_finished(tmp_path: Path, data_root: Path) -> None:
    run = train(tmp_path / "run", data_root, *RUN, "trainer.max_steps=4")
    again = train(tmp_path / "again", data_root, *RUN, "trainer.max_steps=4", f"resume={run}/checkpoints/last.ckpt")
    assert (again / "checkpoints/last.ckpt").read_bytes() == (run / "checkpoints/last.ckpt").read_bytes()
    assert (again / "checkpoints/best.ckpt").read_bytes() == (run / "checkpoints/best.ckpt").read_bytes()


# ---------------------------------------------------------------------- numbers


@pytest.fixture
def spoils(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Puts a NaN into the first picture at the optimizer steps ``at``; keeps the weights before each step."""
    plan: dict[str, Any] = {"at": set(), "before": {}}
    step = SaliencyModule.training_step

    def training_step(self: SaliencyModule, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        state = {key: value.clone() for key, value in self.state_dict().items()}
        plan["before"].setdefault(self.global_step, state)
        if self.global_step in plan["at"]:
            batch["image"] = batch["image"] / 255
            batch["image"][0, 0, 3, 3] = float("nan")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SaliencyModule, "training_step", training_step)
    return plan


@pytest.mark.parametrize("more", [[], ["trainer.accumulate_grad_batches=2", "data.batch_size=2"]], ids=["one", "two"])
def test_a_step_that_is_not_finite_is_skipped(
    more: list[str], tmp_path: Path, data_root: Path, spoils: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    spoils["at"] = {1, 3}
    own = [word for word in RUN if not more or not word.startswith("data.batch_size")]
    run = train(tmp_path / "run", data_root, *own, *more, "trainer.max_steps=6", "trainer.gradient_clip_val=1.0")
    for spoilt in (1, 3):
        before, after = spoils["before"][spoilt], spoils["before"][spoilt + 1]
        assert all(torch.equal(before[key], after[key]) for key in before)  # batch norm's statistics, too
    moved = [key for key, value in spoils["before"][2].items() if not torch.equal(value, spoils["before"][3][key])]
    assert len(moved) > 50
    assert all(torch.isfinite(value).all() for value in checkpoint(run)["state_dict"].values())
    assert checkpoint(run)["qefpn"]["skipped_steps"] == 2
    with (run / "log.csv").open(newline="") as file:
        counts = [row["skipped_steps"] for row in csv.DictReader(file) if row.get("loss")]
    assert [count for count in counts if count] == ["1", "1", "2", "2"] or more
    said = [record.getMessage() for record in caplog.records if "is skipped" in record.getMessage()]
    assert len(said) == 2
    assert "train_" in said[0]  # the pictures by name


def test_too_many_in_a_row_end_the_run(
    tmp_path: Path, data_root: Path, spoils: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    spoils["at"] = {1, 3, 4, 5, 6}  # step 2 is good
    assert main(words(tmp_path / "run", data_root, *RUN, "trainer.max_steps=9", "max_skipped_steps=3")) == 2
    line = one_line(capsys)
    assert "3 steps in a row" in line
    assert "optimizer.lr" in line
    last = checkpoint(tmp_path / "run")
    assert last["global_step"] == 5
    assert all(torch.equal(value, spoils["before"][3][key]) for key, value in last["state_dict"].items())


def test_deterministic_runs_repeat(tmp_path: Path, data_root: Path) -> None:
    try:
        runs = [
            train(tmp_path / name, data_root, *RUN, "trainer.deterministic=true", f"data.num_workers={count}")
            for name, count in (("one", 0), ("two", 1))
        ]
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_run(*runs)


def test_one_picture_of_one_deepest_pixel_is_told(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batch norm has no variance to go by: torch says so in a traceback."""
    small = ["data.batch_size=1", "data.image_size=32", "data.scales=[32]"]
    assert main(words(tmp_path / "run", data_root, "evaluate=false", *small)) == 2
    line = one_line(capsys)
    assert "data.batch_size" in line and "data.image_size" in line


# ---------------------------------------------------------------------- loaders and disks


@pytest.mark.slow
def test_a_loading_process_that_dies_is_told(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = SaliencyModule.training_step

    def training_step(self: SaliencyModule, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        if self.global_step == 3:
            for child in multiprocessing.active_children():
                if type(child).__module__.startswith("multiprocessing."):  # not those that joblib keeps for later
                    child.kill()
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SaliencyModule, "training_step", training_step)
    given = words(
        tmp_path / "run", data_root, *RUN, "trainer.max_steps=99", "data.num_workers=1", "data.val_fraction=0"
    )
    assert main(given) == 2
    assert "data.num_workers=0" in one_line(capsys)
    assert checkpoint(tmp_path / "run")["global_step"] >= 3


def test_a_dead_loading_process_is_told_whatever_line_it_struck() -> None:
    """torch raises from a signal handler; inspect, for one, makes a TypeError of whatever strikes it."""
    from qefpn.errors import UserError
    from qefpn.training.failures import raise_loader_error

    class Struck:
        @property
        def __signature__(self) -> None:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

        def __call__(self) -> None: ...

    with pytest.raises(TypeError) as wrapped:
        inspect.getfullargspec(Struck())
    with pytest.raises(UserError, match="data.num_workers=0"):
        raise_loader_error(wrapped.value)
    raise_loader_error(TypeError("unsupported callable"))


def test_too_little_shared_memory_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from qefpn.data import workers
    from qefpn.errors import UserError

    usage = shutil.disk_usage("/")._replace(free=4 * 2**20)
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: usage)
    options: dict[str, Any] = {"cached": False, "world_size": 1, "batch_bytes": 2**21}
    with pytest.raises(UserError, match=r"data.num_workers=2 needs 12 MiB .* has 4 MiB free: give data.num_workers=0"):
        workers.worker_count(2, **options)
    assert workers.worker_count(None, **options) == 0
    assert workers.worker_count(2, **options | {"batch_bytes": 2**19}) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_checkpoint(
    tmp_path: Path, small_disk: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Room for one checkpoint, not for two; afterwards there is more, and the run goes on."""
    given = [*RUN, "trainer.max_steps=5", "data.val_fraction=0"]
    assert run_once(words(tmp_path / "whole", data_root, *given)) == 0
    size = (tmp_path / "whole" / "checkpoints" / "last.ckpt").stat().st_size
    subprocess.run(["mount", "-o", f"remount,size={int(1.5 * size)}", str(small_disk)], check=True)
    run = small_disk / "run"
    capfd.readouterr()
    assert run_once(words(run, data_root, *given)) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line]
    assert "no space is left on the disk" in line
    assert str(run) in line
    assert checkpoint(run)["global_step"] == 1
    assert {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} == {
        *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")),
        "config.yaml",
        "data.json",
        "log.csv",
        "checkpoints/last.ckpt",
    }
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert run_once(words(run, data_root, *given, f"resume={run}/checkpoints/last.ckpt")) == 0
    assert_same_run(tmp_path / "whole", run)


# ---------------------------------------------------------------------- several processes


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        ({"SLURM_PROCID": "3"}, 3),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, 1),  # started by a task of `srun --pty`
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1", "RANK": "5"}, 5),
    ],
)
def test_ranks_are_read_in_lightning_s_order(
    environment: dict[str, str], rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_fabric.utilities.rank_zero import _get_rank

    for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert process_rank() == rank == (_get_rank() or 0)


def test_the_log_loses_half_a_row_and_what_is_done_again(tmp_path: Path, data_root: Path) -> None:
    run = train(tmp_path / "run", data_root, *RUN, "trainer.max_steps=3", "data.val_fraction=0")
    with (run / "log.csv").open("a") as file:
        file.write((run / "log.csv").read_text().splitlines()[-1].replace("2,", "3,", 1) + "\n1")
    train(run, data_root, *RUN, "trainer.max_steps=5", "data.val_fraction=0", f"resume={run}/checkpoints/last.ckpt")
    assert [int(row["step"]) for row in log(run)] == list(range(5))
    assert not os.path.exists(run / "log.csv.part")
