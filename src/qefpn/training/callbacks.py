"""Callbacks: those that the group ``callbacks`` names, and the progress shown in a terminal or as lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme

from qefpn.training.averaging import AveragedWeights


def _ema(decay: float = 0.999) -> list[Callback]:
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), not {decay!r}")
    return [AveragedWeights(decay)]


CALLBACKS: dict[str, Callable[..., list[Callback]]] = {"none": lambda: [], "ema": _ema}


def build_callbacks(name: str = "none", **options: Any) -> list[Callback]:
    """The callbacks of the group ``callbacks``: a name of :data:`CALLBACKS` and its options.

    Raises:
        ValueError: an unknown name, or an impossible value.
        TypeError: an option that the callback does not have.
    """
    if name not in CALLBACKS:
        raise ValueError(f"there are {', '.join(CALLBACKS)}, not {name!r}")
    return CALLBACKS[name](**options)


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
