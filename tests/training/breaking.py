"""Runs that are broken on purpose: killed, signalled or starved at a chosen moment, in a process of their own."""

from __future__ import annotations

import csv
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tests.commands.runs import words

from qefpn.cli import main
from qefpn.training.checkpoint import AtomicCheckpointIO
from qefpn.training.last_checkpoint import LastCheckpoint
from qefpn.training.module import SaliencyModule

TIMES = ("seconds", "memory_mb")
"""Columns of the log that no two runs share."""


def forked(work: Callable[[], int], seconds: float = 240) -> int:
    """Exit code of ``work`` in a fork of this process, negative where a signal ended it."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"the run hung for {seconds} s")


def at_moment(number: int, strike: Callable[[], None], save_every: float) -> None:
    """In this process, let ``strike`` come at the ``number``-th moment; last.ckpt is written every so many seconds.

    Moments: before a step, after its gradients are there, within validation, while a checkpoint is half written and
    when it is written but not yet in its place.
    """
    left = number

    def moment() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            strike()

    def before(owner: Any, name: str) -> None:
        own = getattr(owner, name)

        def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
            moment()
            return own(self, *args, **kwargs)

        setattr(owner, name, wrapped)

    for name in ("training_step", "on_after_backward", "validation_step", "on_validation_epoch_end"):
        before(SaliencyModule, name)
    save = AtomicCheckpointIO.save_checkpoint

    def slowly(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        beside = Path(path).with_name(".half.part")
        beside.write_bytes(b"PK half a checkpoint")
        moment()
        beside.unlink()
        save(self, checkpoint, path, storage_options)

    AtomicCheckpointIO.save_checkpoint = slowly  # type: ignore[method-assign]
    replace = os.replace

    def late(source: Any, target: Any) -> None:
        if str(target).endswith(".ckpt"):
            moment()
        replace(source, target)

    os.replace = late  # type: ignore[assignment]
    LastCheckpoint.__init__.__defaults__ = (save_every,)  # type: ignore[misc]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def signalled(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def run_once(given: list[str], moment: int = 0, strike: Callable[[], None] = kill, save_every: float = 0.0) -> int:
    """`qefpn train` in a fork, struck at ``moment`` (0: not at all)."""

    def work() -> int:
        at_moment(moment, strike, save_every)
        return main(given)

    return forked(work)


Strike = tuple[Callable[[], None], int]
"""What happens to a process, and the exit code that it then ends with."""

KILL: Strike = (kill, -signal.SIGKILL)
SIGNALS: list[Strike] = [(signalled(n), 128 + n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]


def broken_run(directory: Path, data: Path, options: list[str], strikes: Iterator[tuple[int, Strike]]) -> int:
    """A run into ``directory`` that ``strikes`` stop, one after the other, to its end; how often it was stopped."""
    last = directory / "checkpoints" / "last.ckpt"
    stopped = 0
    for moment, (strike, expected) in strikes:
        resume = [f"resume={last}"] if last.exists() else []
        code = run_once(words(directory, data, *options, *resume), moment, strike)
        if code == 0:
            break
        assert code == expected, code
        stopped += 1
    else:
        assert run_once(words(directory, data, *options, f"resume={last}")) == 0
    return stopped


def at_random(seed: int, count: int, strikes: list[Strike], most: int) -> Iterator[tuple[int, Strike]]:
    """So many moments, each within the first ``most`` of a process."""
    draw = random.Random(seed)
    for number in range(count):
        yield draw.randint(1, most), strikes[number % len(strikes)]


def log_rows(directory: Path) -> list[dict[str, str]]:
    """All rows of log.csv, validations too, without what is empty or a matter of time."""
    with (directory / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v and k not in TIMES} for row in csv.DictReader(file)]


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, averages, buffers, optimizer, schedule, place and log of two runs are equal to the bit; best.ckpt's."""
    for name in ("last", "best"):
        paths = [run / "checkpoints" / f"{name}.ckpt" for run in (one, other)]
        assert paths[0].exists() == paths[1].exists(), name
        if not paths[0].exists():
            continue
        first, second = (torch.load(path, weights_only=True) for path in paths)
        assert first.keys() == second.keys()
        assert len(first["state_dict"]) > 50
        for part in ("state_dict", "current_model_state", "averaging_state"):
            assert (part in first) == (part == "state_dict" or "current_model_state" in first)
            mine, theirs = first.get(part, {}), second.get(part, {})
            assert mine.keys() == theirs.keys()
            unequal = [key for key, value in mine.items() if not torch.equal(value, theirs[key])]
            assert not unequal, (part, unequal[:5])
        for key in ("global_step", "epoch", "SaliencyDataModule", "lr_schedulers"):
            assert first[key] == second[key], (name, key)
        for key in ("place", "validated", "skipped_steps", "version"):
            assert first["qefpn"][key] == second["qefpn"][key], (name, key)
        for key in ("epoch_progress", "epoch_loop.batch_progress"):
            counters = [state["loops"]["fit_loop"][key] for state in (first, second)]
            assert counters[0] == counters[1], (name, key)
        moments = [state["optimizer_states"][0]["state"] for state in (first, second)]
        assert moments[0].keys() == moments[1].keys()
        for index, state in moments[0].items():
            for key, value in state.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(moments[1][index][key])), (index, key)
    rows = [log_rows(run) for run in (one, other)]
    assert len(rows[0]) == len(rows[1]), [[row["step"] for row in run] for run in rows]
    for first, second in zip(*rows, strict=True):
        assert first == second
    assert not list(one.rglob("*.part")) + list(other.rglob("*.part"))
