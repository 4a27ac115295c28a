"""Callbacks: last.ckpt kept fresh, the progress shown in a terminal or as lines in a log."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme
from pytorch_lightning.utilities.exceptions import SIGTERMException


class LastCheckpoint(Callback):
    """Writes ``last.ckpt`` at least every ``seconds`` of training, at the end, and when it breaks off (SIGTERM too).

    The file is written beside its place and then renamed, so that a kill leaves the former one whole.
    """

    def __init__(self, directory: Path, seconds: float = 60.0) -> None:
        self.path = Path(directory) / "last.ckpt"
        self.seconds = seconds
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._terminated = False
        self._stops = False

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.fast_dev_run or trainer.global_step == self._saved_step:  # type: ignore[attr-defined]
            return
        part = self.path.with_suffix(".part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, self.path)
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_at = time.monotonic()
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            # Lightning's own handler communicates at once, in the midst of whatever the ranks are doing. Ours takes
            # note, and the ranks agree after the step. Lightning puts the former handler back at the end.
            signal.signal(signal.SIGTERM, self._note_sigterm)

    def _note_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Where a limit ends training inside an epoch, Lightning then counts that epoch as done: saved here, a
        # resumed run goes on with the batch that follows.
        ends = trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step
        sigterm = self._terminated or trainer.received_sigterm
        due = ends or sigterm or time.monotonic() - self._saved_at > self.seconds
        if trainer.world_size > 1:  # all ranks must agree: saving is collective
            due, sigterm = trainer.strategy.broadcast((due, sigterm))
        if due:
            self._save(trainer)
        self._stops = sigterm and trainer.world_size > 1  # with one process, Lightning stops

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._stops:  # here, when the step before is in the log
            raise SIGTERMException

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if time.monotonic() - self._saved_at > self.seconds / 2:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._saved_step = -1  # what validation after the last step found is in this one too
        self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if trainer.world_size == 1 and trainer.global_step > 0:
            self._save(trainer)


class ProgressLines(Callback):
    """One line every ``seconds``, for output that is not a terminal."""

    def __init__(self, seconds: float = 15.0) -> None:
        self.seconds = seconds
        self._at = float("-inf")
        self._start = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._at < self.seconds or not trainer.is_global_zero:
            return
        self._at = now
        shown = {k: v for k, v in trainer.progress_bar_metrics.items() if k != "v_num"}
        text = "  ".join(f"{key} {float(value):.4g}" for key, value in shown.items())
        share = getattr(pl_module, "progress", lambda: 0.0)()
        print(
            f"[{now - self._start:6.0f} s] {100 * share:5.1f} %  epoch {trainer.current_epoch}"
            f"  step {trainer.global_step}  {text}",
            flush=True,
        )


def progress_callback(enabled: bool) -> list[Callback]:
    """A rich progress bar in a terminal, lines elsewhere, nothing if not enabled."""
    if not enabled:
        return []
    if sys.stdout.isatty():
        return [RichProgressBar(leave=True, theme=RichProgressBarTheme(metrics_format=".3g"))]
    return [ProgressLines()]
