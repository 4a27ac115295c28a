"""Going on in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

__all__ = ["ResumableLoader", "resume_position"]


class ResumableLoader(DataLoader[dict[str, Any]]):
    """A training loader that goes on in the middle of an epoch.

    There is nothing to store: the batches are a pure function of seed, epoch and batch number, and the data
    module reads the latter two from the trainer's own progress. Lightning asks for these methods.
    """

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""


def resume_position(trainer: pl.Trainer, batches: int) -> tuple[int, int]:
    """(epoch, batch number) of the batch that ``trainer`` takes next.

    A resumed trainer has loaded its progress before it asks for the training loader, and starts the loader's
    workers before it tells the sampler the epoch; so this reads the same counters that it goes on from.

    Args:
        trainer: fresh (0, 0), or resumed.
        batches: batches in an epoch.
    """
    loop = trainer.fit_loop
    epoch: Any = loop.epoch_progress.current
    batch: Any = loop.epoch_loop.batch_progress
    if epoch.ready == 0:
        return 0, 0
    if epoch.ready != epoch.started or epoch.completed == epoch.ready:  # saved between two epochs
        return int(epoch.processed), 0
    done = int(batch.current.completed)
    total = batch.total
    # Saved in on_train_batch_end: the step was taken, only its end was not counted yet.
    if total.ready == total.started == total.processed == total.completed + 1:
        done += 1
    return (int(epoch.ready), 0) if done >= batches else (int(epoch.ready) - 1, done)
