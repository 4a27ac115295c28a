"""Whatever stops a run, `resume=` ends with the weights and the log of a run that nothing stopped, to the bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.commands.runs import words
from tests.training.breaking import KILL, SIGNALS, assert_same_run, at_random, broken_run, run_once

pytestmark = pytest.mark.slow

# 12 pictures, two held out: five batches of two an epoch; stochastic depth draws random numbers.
COMMON = ["evaluate=false", "warmup.steps=3", "data.batch_size=2", "data.val_fraction=0.2", "trainer.max_time=null"]
RANDOM = "backbone.options={channels:[8,8,16,16],stem_width:8,drop_path_rate:0.5}"
STEPS = ["trainer.max_steps=13"]
EPOCHS = ["trainer.max_epochs=3", "trainer.max_steps=-1"]
RUNS = {
    "steps": STEPS,
    "epochs": EPOCHS,
    "epochs, 1 worker": [*EPOCHS, "data.num_workers=1"],
    "steps, 4 workers": [*STEPS, "data.num_workers=4"],
    "epochs, accumulation of 2": [*EPOCHS, "trainer.accumulate_grad_batches=2"],
    "steps, accumulation of 2": ["trainer.max_steps=8", "trainer.accumulate_grad_batches=2"],
    "steps, no validation": [*STEPS, "data.val_fraction=0"],
    "epochs, validation each second": [*EPOCHS, "trainer.check_val_every_n_epoch=2"],
    "epochs, averaged weights": [*EPOCHS, "callbacks=ema", "data.num_workers=1"],
    "epochs, growing sizes": [*EPOCHS, "data.progressive=0.75", "data.scales=[32,48,64]", "data.num_workers=1"],
}


def options(name: str) -> list[str]:
    own = RUNS[name]
    keys = {word.partition("=")[0] for word in own}
    return [word for word in COMMON if word.partition("=")[0] not in keys] + [RANDOM, *own]


@pytest.mark.parametrize("name", RUNS)
def test_killed_at_random_moments(name: str, tmp_path: Path, data_root: Path) -> None:
    """kill -9 between steps, within one, while a checkpoint is written, while validating."""
    given = options(name)
    assert run_once(words(tmp_path / "whole", data_root, *given), save_every=60.0) == 0
    count = 20 if name in ("steps", "epochs") else 5
    stopped = broken_run(tmp_path / "broken", data_root, given, at_random(len(name), count, [KILL], most=280 // count))
    assert stopped >= count // 4
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("name", ["steps", "epochs, 1 worker", "epochs, accumulation of 2", "epochs, averaged weights"])
def test_ended_by_signals_at_random_moments(name: str, tmp_path: Path, data_root: Path) -> None:
    """SIGTERM, Ctrl-C and SIGUSR1 in turn; nothing of what was done is done again."""
    given = options(name)
    assert run_once(words(tmp_path / "whole", data_root, *given), save_every=60.0) == 0
    stopped = broken_run(tmp_path / "broken", data_root, given, at_random(len(name), 3, SIGNALS, most=14))
    assert stopped >= 2
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


TWO = [
    *("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=4", "adjoint=shine"),
    *("evaluate=false", "warmup.steps=2", "data.val_fraction=0.3", "trainer.max_epochs=4", "trainer.max_steps=-1"),
]


def two_processes(directory: Path, data: Path, rank: int = 0, moment: int = 0, number: int = 9) -> int:
    """A run of two processes (gloo; batch norm, SHINE); signal ``number`` strikes one of them at a moment."""
    last = directory / "checkpoints" / "last.ckpt"
    given = [word for word in words(directory, data, *TWO, RANDOM) if word != "trainer=cpu"]
    given += [f"resume={last}"] if last.exists() else []
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    start += ["-m", "tests.training.struck_rank", str(rank), str(moment), str(int(number)), str(directory), *given]
    return subprocess.run(start, timeout=300, cwd=Path(__file__).parents[2]).returncode


def test_two_processes_stop_together_and_go_on(tmp_path: Path, data_root: Path) -> None:
    """A signal to either of them stops both at the same step; a kill of one ends both. The data are looked at once."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert two_processes(whole, data_root) == 0
    assert (whole / "looked.txt").read_text().split() == ["0", "0"]  # training and test set, by the first process
    steps = [0]
    for rank, moment, number in ((1, 6, signal.SIGTERM), (0, 5, signal.SIGKILL), (1, 9, signal.SIGUSR1)):
        assert two_processes(broken, data_root, rank, moment, number) != 0
        steps.append(torch.load(broken / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])
    assert steps == sorted(steps)
    assert 0 < steps[1] < steps[-1] < 8
    assert two_processes(broken, data_root) == 0
    assert_same_run(whole, broken)
