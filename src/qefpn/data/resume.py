"""Where training is: read from a trainer when a checkpoint is written, gone on from when one is read."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset

from qefpn.data.files import file_key
from qefpn.data.layouts import Pair
from qefpn.data.sampler import ShardSampler
from qefpn.errors import UserError

__all__ = ["Place", "ResumableLoader", "check_identity", "fingerprint", "is_due", "place_of"]


class Place(NamedTuple):
    """Between two optimizer steps.

    Attributes:
        epoch: number of the epoch, from 0.
        batch: batches of it that were trained on. All of them: validation, or the end of the epoch, comes next.
    """

    epoch: int
    batch: int


def place_of(trainer: pl.Trainer) -> Place:
    """The place of the last optimizer step that ``trainer`` finished.

    Right whenever it is asked for: between two steps, within one (a step that broke counts as not begun, its
    accumulated batches neither), before, in and after validation, at the end of an epoch, and where a limit ended
    training inside an epoch, which Lightning counts as done.
    """
    loop = trainer.fit_loop
    epoch: Any = loop.epoch_progress.current
    progress: Any = loop.epoch_loop.batch_progress
    if epoch.ready != epoch.started or epoch.ready == 0:  # nothing of the next epoch was begun
        return Place(epoch.processed, 0)
    number, done = epoch.ready - 1, progress.current.processed
    whole = done > 0 and done >= trainer.num_training_batches
    if not whole:
        done -= done % trainer.accumulate_grad_batches
    if epoch.processed < epoch.ready:  # within the epoch
        return Place(number + 1, 0) if whole and _is_validated(trainer) else Place(number, done)
    return Place(number, done) if done > 0 and not whole else Place(epoch.processed, 0)


def _is_validated(trainer: pl.Trainer) -> bool:
    """Whether the epoch at hand has been validated; its total is set to 0 when an epoch begins.

    Within an epoch there may have been validations too: a module that knows says whether one came after the last step.
    """
    progress: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    ran = progress.total.completed > 0 and progress.current.completed == progress.current.ready
    at = getattr(trainer.lightning_module, "validated_at", trainer.global_step)
    return bool(ran and progress.is_last_batch and at == trainer.global_step)


def is_due(trainer: pl.Trainer, place: Place, trained: int) -> bool:
    """Whether a validation belongs to a place within an epoch.

    Args:
        trainer: that trains.
        place: between two steps.
        trained: batches of all epochs that were trained on.
    """
    interval, every = trainer.val_check_batch, trainer.check_val_every_n_epoch
    if not interval or interval == float("inf") or place.batch == 0:
        return False
    if every is None:
        return trained % interval == 0
    return (place.epoch + 1) % every == 0 and place.batch % interval == 0


@functools.lru_cache(maxsize=2)  # asked for with every checkpoint
def fingerprint(pairs: tuple[Pair, ...]) -> str:
    """16 hexadecimal digits out of the names, order and file sizes of pictures and masks.

    The same on every machine, wherever the files lie and whenever they were copied; nothing is read.
    """
    digest = hashlib.sha256()
    for pair in pairs:
        sizes = file_key(pair.image)[0], file_key(pair.mask)[0]
        digest.update(f"{pair.dataset}\0{pair.name}\0{sizes[0]}\0{sizes[1]}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]


def check_identity(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Whether a run can go on as if it had never stopped.

    Args:
        then: ``batch_size``, ``seed``, ``pictures`` and ``fingerprint`` of a checkpoint.
        now: of this run.

    Raises:
        UserError: the batches that follow would be others.
    """
    fresh = "start a fresh run from its weights (init= in place of resume=)"
    for key, name in (("batch_size", "data.batch_size"), ("seed", "seed")):
        if then[key] != now[key]:
            raise UserError(
                f"the checkpoint to resume was written with {name}={then[key]}, not {now[key]}: give that, or {fresh}"
            )
    if then["fingerprint"] != now["fingerprint"]:
        raise UserError(
            f"the training pictures are not those of the checkpoint to resume ({then['pictures']} then, "
            f"{now['pictures']} now): give the same data, or {fresh}"
        )


class ResumableLoader(DataLoader[dict[str, Any]]):
    """A training loader that goes on in the middle of an epoch.

    There is nothing to store: the batches are a pure function of seed, epoch and batch number, and the data module
    keeps the latter two. Lightning asks for these methods.

    The batches are shared out already: its sampler, which is not used, says so, lest Lightning put its own in place.
    """

    def __init__(self, dataset: Dataset[dict[str, Any]], **options: Any) -> None:
        super().__init__(dataset, **options)
        object.__setattr__(self, "sampler", ShardSampler(len(dataset)))  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""
