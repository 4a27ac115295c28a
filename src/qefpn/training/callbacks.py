"""Callbacks and profilers as a configuration names them, and the progress shown in a terminal or as lines in a log."""

from __future__ import annotations

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


def build_callbacks(parts: Mapping[str, Any]) -> list[Callback]:
    """The callbacks that the group ``callbacks`` names, in its order.

    Args:
        parts: name → ``_target_``, a class of Lightning's callbacks, and its options; None for one that is left out.

    Raises:
        UserError: no such callback, or options that it refuses.
    """
    return [
        build_part(_part(part, f"callbacks.{name}"), Callback, f"callbacks.{name}")
        for name, part in parts.items()
        if part is not None
    ]


def build_profiler(part: Mapping[str, Any]) -> Profiler | None:
    """The profiler that the group ``profiler`` names; None for ``profiler=none``.

    Raises:
        UserError: as :func:`build_callbacks`.
    """
    return build_part(_part(part, "profiler"), Profiler, "profiler") if part else None  # type: ignore[type-abstract]


def _part(node: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise UserError(f"{where}: has no _target_, the class that it stands for")
    return node


class EarlyStopping(pl.callbacks.EarlyStopping):
    """Lightning's, after each validation; a resumed run stops where an unbroken one would.

    Args:
        monitor: ``val_...``.
        mode: ``max`` or ``min``; None: ``min`` of the mean absolute error, ``max`` of all other scores.
        options: Lightning's; ``patience`` counts validations.
    """

    def __init__(self, monitor: str, mode: str | None = None, **options: Any) -> None:
        mode = mode or ("min" if monitor.endswith("mae") else "max")
        super().__init__(monitor=monitor, mode=mode, **{"check_on_train_epoch_end": False, **options})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was seen; the patience is this run's."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go no further where the run had ended already."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


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
