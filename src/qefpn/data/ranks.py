"""What the processes of a run have to do with each other before there is anything to train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from qefpn.errors import UserError

__all__ = ["first_finds", "ranks"]


def ranks(trainer: pl.Trainer | None) -> tuple[int, int]:
    """(this process, how many there are), from the trainer where there is one."""
    if trainer is not None:
        return trainer.global_rank, trainer.world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def first_finds(trainer: pl.Trainer | None, find: Callable[[], None], holder: Any, names: Sequence[str]) -> None:
    """Let the first process find something, and the others be told.

    Args:
        trainer: whose processes they are; None, or one of one process, finds by itself.
        find: sets attributes of ``holder``.
        holder: what has them, in every process.
        names: of the attributes.

    Raises:
        UserError: as ``find`` raised it, in every process.
    """
    if trainer is None or trainer.world_size == 1:
        find()
        return
    error = None
    if trainer.is_global_zero:
        try:
            find()
        except UserError as found:
            error = str(found)
    error, values = trainer.strategy.broadcast((error, [getattr(holder, name) for name in names]), src=0)
    if error is not None:
        raise UserError(error)
    for name, value in zip(names, values, strict=True):
        setattr(holder, name, value)
