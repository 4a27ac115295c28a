"""last.ckpt kept fresh, and the signals that end a run between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import SIGTERMException

from qefpn.data.progress import SharedTimer
from qefpn.data.resume import place_of
from qefpn.errors import UserError
from qefpn.training.module import SaliencyModule

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
"""What ends a run between two steps, with last.ckpt written. SIGUSR1 is what Slurm is asked to send before a limit."""


class Stopped(SIGTERMException):
    """A signal ended the run; last.ckpt says where to go on. ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class LastCheckpoint(Callback):
    """Writes ``last.ckpt`` at least every ``seconds`` of training, at the end, and when training breaks off.

    All is decided between two optimizer steps, when the row of the former is in the log: the processes of a run
    exchange one vector (is it time to save, which signal came, how much of the time limit is used), so that all save
    and all stop at the same step, whichever of them was told to. A signal that comes during validation ends that. A
    second Ctrl-C ends the process at once, and saves nothing.

    Args:
        directory: where ``last.ckpt`` is to lie.
        seconds: the most that may pass before it is written anew.
    """

    def __init__(self, directory: Path, seconds: float = 60.0) -> None:
        self.path = Path(directory) / "last.ckpt"
        self.seconds = seconds
        self._saved_at = time.monotonic()
        self._saved: tuple[int, ...] = ()  # step and place
        self._signal = 0
        self._common_batches = 0  # of validation: those that every process has
        self._versions = -1  # of the parameters, while a step is taken

    # ------------------------------------------------------------------ between two steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_at = time.monotonic()
        self._saved = (trainer.global_step, *place_of(trainer))
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:  # Lightning puts the former handlers back at the end
                if number != signal.SIGINT or signal.getsignal(number) is signal.default_int_handler:
                    signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number
        if number == signal.SIGINT:  # print may be in use
            os.write(2, b"\nstopping after this step (Ctrl-C again: at once, without saving)\n")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:  # gradients on the way are in no checkpoint
            self._between_steps(trainer, self.seconds)
            self._versions = _versions(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if place_of(trainer).batch in (0, batch_idx + 1):
            self._versions = -1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._between_steps(trainer, self.seconds)
        own = sum(trainer.num_val_batches)
        (fewest,) = _largest(trainer, [-own])
        self._common_batches = -int(fewest)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING and batch_idx < self._common_batches:
            self._between_steps(trainer, float("inf"))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._between_steps(trainer, self.seconds / 2)  # validation, if any, is in it: better than soon afterwards

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._between_steps(trainer, 0.0)

    def _between_steps(self, trainer: pl.Trainer, seconds: float) -> None:
        """Save where ``seconds`` have passed, or a signal came; that ends the run."""
        timer = next((c for c in trainer.callbacks if isinstance(c, SharedTimer)), None)  # type: ignore[attr-defined]
        share = 0.0 if timer is None or not trainer.is_global_zero else timer.now()
        due = time.monotonic() - self._saved_at >= seconds
        due_somewhere, number, share = _largest(trainer, [float(due), float(self._signal), share])
        if timer is not None:
            timer.share = share
        if due_somewhere or number:
            self._save(trainer, always=number > 0)
        if number:
            raise Stopped(int(number))

    # ------------------------------------------------------------------ writing

    def _save(self, trainer: pl.Trainer, always: bool = False) -> None:
        now = (trainer.global_step, *place_of(trainer))
        # Where nothing was done yet, a signal still leaves something to go on from.
        if trainer.fast_dev_run or (now == self._saved and not always):  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            logger.save()  # a log that lacks steps of the checkpoint could not be gone on with
        trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()
        self._saved = now

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Keep the last whole step. With several processes the others may be anywhere: what was saved last stays."""
        if trainer.world_size > 1 or trainer.global_step == 0 or isinstance(exception, Stopped):
            return
        twice = isinstance(exception, KeyboardInterrupt) and self._signal == signal.SIGINT
        if trainer.state.fn != TrainerFn.FITTING or twice:
            return
        if self._versions != -1:  # within a step
            if _versions(pl_module) != self._versions:
                return  # the optimizer had begun to write
            if isinstance(pl_module, SaliencyModule):
                pl_module.undo_step()
        with contextlib.suppress(UserError):  # a full disk: the reason is being told already
            self._save(trainer)


def _versions(module: pl.LightningModule) -> int:
    """Changes whenever a parameter is written to."""
    return sum(parameter._version for parameter in module.parameters())


def _largest(trainer: pl.Trainer, values: Sequence[float]) -> list[float]:
    """The largest of each value over all processes: one exchange, which all must take part in."""
    if trainer.world_size == 1:
        return list(values)
    own = torch.tensor(values, dtype=torch.float64, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(own, op=torch.distributed.ReduceOp.MAX)
    return [float(value) for value in own.tolist()]
