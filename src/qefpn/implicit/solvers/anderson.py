"""Anderson acceleration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qefpn.implicit.checks import check_count, check_number
from qefpn.implicit.driver import norms
from qefpn.implicit.solvers.base import SOLVERS, Solver
from qefpn.implicit.torch_private import accumulation_dtype, bmm


@SOLVERS.register("anderson")
@dataclass(frozen=True)
class Anderson(Solver):
    """Anderson acceleration: the next iterate combines the last ``memory`` ones so that the same combination
    of their residuals is smallest (Walker and Ni, SIAM J. Numer. Anal. 49, 2011).

    The weights α minimise ‖Σ αᵢgᵢ‖² + r·Σ αᵢ²‖gᵢ‖² with Σ αᵢ = 1: the regularisation is relative to each
    residual's own size, so it means the same at any scale of the state and late in a solve as early. Where a
    sample's system is singular or its weights are not finite, that sample takes a plain step.

    Args:
        max_steps, rtol, atol: as of every :class:`Solver`; ``steps + 1`` evaluations.
        memory: iterates combined (≥ 1); each costs two states.
        damping: in (0, 1]; 1 takes the combined F(z), less mixes in the combined z.
        regularization: r ≥ 0.
    """

    memory: int = 6
    damping: float = 1.0
    regularization: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("Anderson", "memory", self.memory)
        check_number("Anderson", "damping", self.damping, low=0.0, high=1.0, open_low=True)
        check_number("Anderson", "regularization", self.regularization, low=0.0)

    def init(self, z: Tensor) -> _History:
        return _History(z, min(self.memory, self.max_steps))

    def measure(self, state: _History, z: Tensor, value: Tensor, final: bool) -> Tensor:
        return norms(value - z) if final else state.enter(z, value)

    def step(self, state: _History, z: Tensor, value: Tensor, settled: Tensor) -> Tensor:
        weights = self._weights(state)[:, None].to(z.dtype)
        combined = bmm(weights, state.values[:, : state.filled])
        if self.damping < 1.0:
            mixed = bmm(weights, state.residuals[:, : state.filled])
            combined = torch.add(combined, mixed, alpha=self.damping - 1.0)
        return combined[:, 0]

    def _weights(self, state: _History) -> Tensor:
        """The weights (B, n) of the stored iterates, from the residuals' Gram matrix (B, n, n)."""
        gram = state.gram[:, : state.filled, : state.filled]
        if state.filled == 1:
            return torch.ones_like(gram[:, 0])
        size = gram.diagonal(dim1=1, dim2=2).sqrt()
        inverse = torch.where(size > 0, 1.0 / size, 1.0)
        scaled = gram * inverse[:, :, None] * inverse[:, None, :]
        scaled.diagonal(dim1=1, dim2=2).add_(self.regularization)
        solved, info = torch.linalg.solve_ex(scaled, inverse[:, :, None])
        weights = solved[:, :, 0] * inverse
        weights = weights / weights.sum(dim=1, keepdim=True)
        usable = (info == 0)[:, None] & torch.isfinite(weights).all(dim=1, keepdim=True)
        plain = torch.zeros_like(weights)
        plain[:, state.slot] = 1.0
        return torch.where(usable, weights, plain)


class _History:
    """The last iterates of a batch: their residuals g, their values F and the products of the residuals."""

    def __init__(self, z: Tensor, slots: int) -> None:
        batch, size = z.shape
        # an iterate of the whole batch in one piece: what is written at a time
        self.residuals = z.new_empty(slots, batch, size).transpose(0, 1)
        self.values = z.new_empty(slots, batch, size).transpose(0, 1)
        self.gram = torch.zeros(batch, slots, slots, dtype=accumulation_dtype(z.device), device=z.device)
        self.slots, self.slot, self.filled = slots, -1, 0

    def enter(self, z: Tensor, value: Tensor) -> Tensor:
        """Store an iterate in place of the oldest; ‖g‖ (B,)."""
        self.slot, self.filled = (self.slot + 1) % self.slots, min(self.filled + 1, self.slots)
        slot, filled = self.slot, self.filled
        newest = self.residuals[:, slot : slot + 1]
        torch.sub(value, z, out=newest[:, 0])
        self.values[:, slot].copy_(value)
        row = bmm(newest, self.residuals[:, :filled].transpose(1, 2)).to(self.gram.dtype)[:, 0]
        self.gram[:, slot, :filled] = row
        self.gram[:, :filled, slot] = row
        return row[:, slot].clamp_min(0.0).sqrt()
