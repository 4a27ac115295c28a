"""What a checkpoint holds beside weights: how it is written, the place to go on from, a trained network out of it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO

from qefpn.atomic import atomic_file
from qefpn.data.resume import Place, is_due

OWN = "qefpn"
"""Key of a checkpoint under which lie ``version``, ``place`` (epoch, batch), ``validated`` and, from a run of
``qefpn train``, ``config``, the content of its config.yaml."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to the disk, and renames it: whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            UserError: the disk is full; what lay at ``path`` is as it was.
        """
        content = io.BytesIO()  # torch's own writer tells of a full disk in words of its own
        torch.save(checkpoint, content)
        with atomic_file(Path(path), flush=True) as part:
            part.write_bytes(content.getbuffer())


class ConfigInCheckpoint(pl.Callback):
    """Keeps the resolved configuration of a run in all of its checkpoints, so that the file alone is enough.

    Args:
        config: plain values, what config.yaml holds.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[OWN] = checkpoint.get(OWN, {}) | {"config": self.config}


def checkpoints_of(directory: Path) -> list[Path]:
    """What the run in ``directory`` can be gone on with: last.ckpt and best.ckpt, those that are there."""
    paths = (directory / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    return [path for path in paths if path.is_file()]


def is_validated(checkpoint: Mapping[str, Any]) -> bool:
    """Whether the weights of a checkpoint were validated before it was written."""
    return bool(checkpoint.get(OWN, {}).get("validated"))


def settle_loops(checkpoint: dict[str, Any], place: Place, trainer: pl.Trainer, *, validated: bool) -> None:
    """Rewrite Lightning's counters in ``checkpoint``, in place, to stand exactly at ``place``.

    As Lightning saves them they tell in which hook that was, and some hooks it goes on from wrongly: a batch is trained
    on twice after the end of an epoch, a validation left out, an epoch that a limit cut short counted as whole.

    Args:
        checkpoint: as ``Trainer.save_checkpoint`` dumps it.
        place: where to go on.
        trainer: that trains.
        validated: whether the weights at that place were validated.
    """
    batches = trainer.num_training_batches
    checkpoint["epoch"] = place.epoch
    fit = checkpoint["loops"]["fit_loop"]
    begun = place.epoch + (place.batch > 0)
    epoch = {"ready": begun, "started": begun, "processed": place.epoch, "completed": place.epoch}
    fit["epoch_progress"] = {"total": dict(epoch), "current": dict(epoch)}

    progress = fit["epoch_loop.batch_progress"]
    done = progress["current"]["processed"]
    of_former = place.batch == 0 and done >= batches  # counted in an epoch that is over
    total = progress["total"]["processed"] + (0 if of_former else place.batch - done)
    progress["total"] = dict.fromkeys(progress["total"], total)
    progress["current"] = dict.fromkeys(progress["current"], place.batch)
    progress["is_last_batch"] = at_end = 0 < place.batch >= batches

    # «In the midst of validation» is what makes Lightning begin it, after the last batch of an epoch and where it comes
    # within one; where none is due after the last one it finds that no batch is left, and ends the epoch.
    begun = int(at_end or (not validated and is_due(trainer, place, total)))
    validation = {"ready": begun, "started": begun, "processed": 0, "completed": 0}
    for part in ("total", "current"):
        fit["epoch_loop.val_loop.batch_progress"][part] = dict(validation)
    fit["epoch_loop.val_loop.batch_progress"]["is_last_batch"] = False

    for part in fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"].values():
        for tracker in part.values():  # of a step that broke
            tracker.update({key: tracker["completed"] for key in tracker if key != "completed"})
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]
