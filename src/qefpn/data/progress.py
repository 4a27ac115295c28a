"""How much of training is done, for what changes in its course: rates and picture sizes."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer

__all__ = ["training_share"]


def training_share(trainer: pl.Trainer, step: float) -> float:
    """Share of training done, in [0, 1]: of its steps, or of its time where that ends it sooner.

    Args:
        trainer: training, with a limit of epochs, steps or time.
        step: optimizer steps taken.
    """
    share = 0.0
    total = trainer.estimated_stepping_batches
    if 0 < total < float("inf"):
        # +1: neither the first step nor the last is at an end of a schedule, where its rate is 0.
        share = (step + 1) / (total + 1)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and callback._duration:
            share = max(share, callback.time_elapsed() / callback._duration)
    return min(max(share, 1e-3), 1.0)  # by the clock the first step would have rate 0
