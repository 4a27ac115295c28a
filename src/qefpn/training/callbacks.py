"""Callbacks and profilers as a configuration names them, and the progress shown in a terminal or as lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme
from pytorch_lightning.profilers import Profiler

from qefpn.errors import UserError
from qefpn.parts import build_part
from qefpn.training.hardware import fp32_precision
from qefpn.training.module import VALIDATED


def build_callbacks(parts: Mapping[str, Any]) -> list[Callback]:
    """The callbacks that the group ``callbacks`` names, in its order.

    Args:
        parts: name → ``_target_``, a class of Lightning's callbacks, and its options; None for one that is left out.

    Raises:
        UserError: no such callback, or options that it refuses.
    """
    return [build_part(part, Callback, f"callbacks.{name}") for name, part in parts.items() if part is not None]


def build_profiler(part: Mapping[str, Any]) -> Profiler | None:
    """The profiler that the group ``profiler`` names; None for ``profiler=none``.

    Raises:
        UserError: as :func:`build_callbacks`.
    """
    return build_part(part, Profiler, "profiler") if part else None  # type: ignore[type-abstract]


class EarlyStopping(pl.callbacks.EarlyStopping):
    """Lightning's, after each validation; a resumed run stops where an unbroken one would.

    Args:
        monitor: ``val_...``.
        mode: ``max`` or ``min``; None: ``max`` of scores, ``min`` of the mean absolute error and of losses.
        options: Lightning's; ``patience`` counts validations.
    """

    def __init__(self, monitor: str, mode: str | None = None, **options: Any) -> None:
        options = {"check_on_train_epoch_end": False, **options}
        scores = [f"val_{name}" for name in VALIDATED]
        if not options["check_on_train_epoch_end"] and monitor not in scores:
            raise ValueError(f"monitor is one of {', '.join(scores)}, not {monitor!r}")
        mode = mode or ("max" if monitor in scores and monitor != "val_mae" else "min")
        super().__init__(monitor=monitor, mode=mode, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was seen; the patience is this run's."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go no further where the run had ended already.

        Raises:
            UserError: nothing is validated that could be waited for.
        """
        unvalidated = trainer.limit_val_batches == 0 or not getattr(trainer.datamodule, "val_pairs", True)  # type: ignore[attr-defined]
        if unvalidated and not self._check_on_train_epoch_end:
            raise UserError("callbacks=early_stopping waits for validations: give data.val_fraction above 0")
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class Float32Precision(Callback):
    """What float32 convolutions and products are in training, validation and test alike (:func:`fp32_precision`).

    It is set when a stage is set up, after Lightning has looked at the process's own settings, and undone at its end.

    Args:
        name: ``ieee``, ``tf32``, ``bf16``, or None for the process's own.
    """

    def __init__(self, name: str | None) -> None:
        self.name = name
        self._set = contextlib.ExitStack()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._set.close()
        self._set.enter_context(fp32_precision(self.name))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._set.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._set.close()


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
