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

    The file is written beside its place and then renamed, so that a kill leaves the former one whole. Ctrl-C lets the
    step in progress end first, so that log, weights and place agree; a second one stops at once and saves nothing.
    """

    def __init__(self, directory: Path, seconds: float = 60.0) -> None:
        self.path = Path(directory) / "last.ckpt"
        self.seconds = seconds
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._terminated = False
        self._stops = False
        self._interrupted = False
        self._in_step = False  # from the first moment of a step until its row is in the log
        self._sigint: Any = None

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
        if threading.current_thread() is not threading.main_thread():
            return
        if trainer.world_size > 1:
            # Lightning's own handler communicates at once, in the midst of whatever the ranks are doing. Ours takes
            # note, and the ranks agree after the step. Lightning puts the former handler back at the end.
            signal.signal(signal.SIGTERM, self._note_sigterm)
        elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._sigint = signal.signal(signal.SIGINT, self._note_sigint)

    def _note_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True

    def _note_sigint(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted or not self._in_step:
            raise KeyboardInterrupt
        self._interrupted = True
        os.write(2, b"\nstopping after this step (Ctrl-C again: at once, without saving)\n")  # print may be in use

    def _restore_sigint(self) -> None:
        if self._sigint is not None:
            signal.signal(signal.SIGINT, self._sigint)
            self._sigint = None

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
        self._stop_if_interrupted()
        self._in_step = True

    def _stop_if_interrupted(self) -> None:
        self._in_step = False
        if self._interrupted:
            raise KeyboardInterrupt

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_interrupted()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if time.monotonic() - self._saved_at > self.seconds / 2:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._saved_step = -1  # what validation after the last step found is in this one too
        self._save(trainer)
        self._stop_if_interrupted()
        self._restore_sigint()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        interrupted = isinstance(exception, KeyboardInterrupt)
        twice = interrupted and self._interrupted and self._in_step  # perhaps in the midst of the optimizer's step
        if trainer.world_size == 1 and trainer.global_step > 0 and not twice:
            self._save(trainer)
        if not interrupted:  # Lightning ignores further ones while it shuts down
            self._restore_sigint()


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
