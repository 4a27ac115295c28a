"""Steps whose loss or gradient is not finite: left out, counted, and the end of training when there are too many."""

from __future__ import annotations

import logging

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from qefpn.errors import UserError

log = logging.getLogger(__name__)


class SkippedSteps:
    """Keeps watch over the optimizer steps of a module.

    A step that is skipped leaves weights, the optimizer's moments and the statistics of batch norms as they were, and
    counts as a step otherwise.

    Args:
        limit: so many in a row end training.

    Attributes:
        total: steps skipped so far.
        losses: of the batches of the step at hand, means over all processes.
        pictures: names of its pictures, in this process.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self.losses: list[Tensor] = []
        self.pictures: list[str] = []
        self._in_a_row = 0
        self._buffers: list[Tensor] = []

    def begin(self, module: nn.Module) -> None:
        """A step begins."""
        self.losses, self.pictures = [], []
        self._buffers = [buffer.clone() for buffer in module.buffers()]

    def undo(self, module: nn.Module) -> None:
        """Put the buffers back to where they were when the step began."""
        for buffer, former in zip(module.buffers(), self._buffers, strict=bool(self._buffers)):
            buffer.copy_(former)

    def finite(self, module: nn.Module, *, check_gradients: bool) -> bool:
        """Whether the losses and gradients of the step at hand are. All processes of a run find the same: both are
        means over all of them."""
        values = [loss.float() for loss in self.losses]
        gradients = [p.grad for p in module.parameters() if p.grad is not None] if check_gradients else []
        if gradients:
            values.append(torch.nn.utils.get_total_norm(gradients, norm_type=float("inf")).float())
        if not values or bool(torch.isfinite(torch.stack(values)).all()):
            self._in_a_row = 0
            return True
        return False

    def skip(self, module: pl.LightningModule, optimizer: torch.optim.Optimizer) -> None:
        """Leave the step at hand out.

        Raises:
            UserError: it is one too many in a row.
        """
        self.total += 1
        self._in_a_row += 1
        log.warning(
            "step %d is skipped: its loss or gradient is not finite (pictures: %s)",
            module.global_step,
            ", ".join(self.pictures),
        )
        if self._in_a_row >= self.limit:
            raise UserError(
                f"{self._in_a_row} steps in a row had a loss or gradient that is not finite; the last good weights are "
                "in checkpoints/last.ckpt. Lower optimizer.lr, set trainer.gradient_clip_val, or look at the pictures "
                "named above (max_skipped_steps sets how many are borne)"
            )
        optimizer.zero_grad(set_to_none=True)  # without gradients the optimizer's step changes nothing
        self.undo(module)
