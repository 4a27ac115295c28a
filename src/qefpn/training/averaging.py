"""Averages of the weights over the steps, which validation, best.ckpt and the end of a run take in their place."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


def ema(decay: float) -> Any:
    """Exponential moving average for torch's ``AveragedModel``.

    After n steps the average keeps ``min(decay, (1 + n) / (10 + n))`` of itself, so that the first steps, far from
    where training leads, are soon forgotten. Counters are copied.
    """

    def averaged(average: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        kept = min(decay, (1 + int(steps)) / (10 + int(steps)))
        return torch.lerp(current, average, kept)

    return averaged


class AveragedWeights(WeightAveraging):
    """Lightning's weight averaging, saved whole at any moment of a run.

    Validation swaps the average in; what is saved meanwhile is put into its places all the same. The network has the
    average for good when training is over and its last checkpoint is written. In a checkpoint ``state_dict`` is the
    average, and ``current_model_state`` what training goes on with.

    Args:
        decay: what the average keeps of itself a step, in [0, 1), see :func:`ema`.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), not {decay!r}")
        super().__init__(avg_fn=ema(decay))
        self._swapped = False

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._swapped = self._average_model is not None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self._swapped = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self._swapped:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)
            return
        average = checkpoint["state_dict"]
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        checkpoint["current_model_state"] = checkpoint["state_dict"]
        checkpoint["state_dict"] = average

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing yet: the last checkpoint is being written."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
