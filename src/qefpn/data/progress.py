"""How much of training is done, for what changes in its course: rates and picture sizes."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer

__all__ = ["SharedTimer", "total_steps", "training_share"]


class SharedTimer(Timer):
    """Ends training after a time. All processes go by the clock of the first.

    What depends on the share of time must be the same everywhere: with learning rates of their own, the weights of
    the processes would drift apart.
    """

    _share: float | None = None
    _alone = True

    @property
    def share(self) -> float:
        """Share of the time used; with several processes, as they agreed before the step in progress."""
        return self.now() if self._share is None else self._share

    @share.setter
    def share(self, agreed: float) -> None:
        self._share = None if self._alone else agreed

    def now(self) -> float:
        """Share of the time used by this process's own clock."""
        return self.time_elapsed() / self._duration if self._duration else 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._alone = trainer.world_size == 1
        self.share = self._offset / self._duration if self._duration else 0.0  # of a run that goes on

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop training when the time is over."""
        trainer.should_stop = trainer.should_stop or self.share >= 1.0


def total_steps(trainer: pl.Trainer) -> float:
    """Optimizer steps of a whole run by its limits of steps and epochs; infinite where there is neither.

    Lightning's ``estimated_stepping_batches`` where the data are not ours. To know it, Lightning makes the training
    loader, which begins to load: before it is known where a resumed run goes on, and from within the loader's own
    sampler, which may ask here for the size of its pictures.
    """
    batches = getattr(getattr(trainer, "datamodule", None), "batches_per_epoch", None)
    if batches is None:
        return float(trainer.estimated_stepping_batches)
    limit = trainer.limit_train_batches
    batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    epochs, steps = trainer.max_epochs, trainer.max_steps
    by_epochs = (
        float("inf") if epochs in (None, -1) else max(1, epochs) * math.ceil(batches / trainer.accumulate_grad_batches)
    )
    return min(by_epochs, float("inf") if steps == -1 else steps)


def training_share(trainer: pl.Trainer, step: float) -> float:
    """Share of training done, in [0, 1]: of its steps, or of its time where that ends it sooner.

    Args:
        trainer: training, with a limit of epochs, steps or time.
        step: optimizer steps taken.
    """
    share = 0.0
    total = total_steps(trainer)
    if 0 < total < float("inf"):
        # +1: neither the first step nor the last is at an end of a schedule, where its rate is 0.
        share = (step + 1) / (total + 1)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SharedTimer):
            share = max(share, callback.share)
        elif isinstance(callback, Timer) and callback._duration:  # of a trainer that is not ours
            share = max(share, callback.time_elapsed() / callback._duration)
    return min(max(share, 1e-3), 1.0)  # by the clock the first step would have rate 0
