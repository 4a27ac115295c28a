"""Anderson acceleration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qefpn.implicit.checks import check_count, check_number
from qefpn.implicit.problem import FlatMap
from qefpn.implicit.solvers.base import SOLVERS, Solver, SolveResult, Tracker, accumulation_dtype, norms


@SOLVERS.register("anderson")
@dataclass(frozen=True)
class Anderson(Solver):
    """Anderson acceleration: the next iterate combines the last ``memory`` ones so that the same combination
    of their residuals is smallest (Walker and Ni, SIAM J. Numer. Anal. 49, 2011).

    The weights α minimise ‖Σ αᵢgᵢ‖² + r·Σ αᵢ²‖gᵢ‖² with Σ αᵢ = 1: the regularisation is relative to each
    residual's own size, so it means the same at any scale of the state and late in a solve as early. Where a
    sample's system is singular or its weights are not finite, that sample takes a plain step.

    Args:
        max_steps: updates of the iterate, at most (≥ 1); ``steps + 1`` evaluations.
        rtol: a sample stops where ‖g(z)‖ ≤ atol + rtol·‖F(z)‖.
        atol: see ``rtol``. With both 0 every step is taken.
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

    def solve(
        self,
        f: FlatMap,
        z: Tensor,
        *,
        fz: Tensor | None = None,
        final: FlatMap | None = None,
        keep_inverse: bool = False,
    ) -> SolveResult:
        batch, size = z.shape
        known = fz is not None
        tracker = Tracker(self, z, candidate=not known)
        slots = min(self.memory, self.max_steps)
        # an iterate of the whole batch in one piece: what is written at a time
        residuals = z.new_empty(slots, batch, size).transpose(0, 1)
        values = z.new_empty(slots, batch, size).transpose(0, 1)
        gram = torch.zeros(batch, slots, slots, dtype=accumulation_dtype(z.device), device=z.device)
        if fz is None:
            fz = f(z)
        for step in range(self.max_steps + 1):
            f_norm = norms(fz)
            if step == self.max_steps:
                tracker.update(z, norms(fz - z), f_norm)
                break
            slot, filled = step % slots, min(step + 1, slots)
            newest = residuals[:, slot : slot + 1]
            torch.sub(fz, z, out=newest[:, 0])
            values[:, slot].copy_(fz)
            row = torch.bmm(newest, residuals[:, :filled].transpose(1, 2)).to(gram.dtype)[:, 0]
            if tracker.update(z, row[:, slot].clamp_min(0.0).sqrt(), f_norm):
                break
            gram[:, slot, :filled] = row
            gram[:, :filled, slot] = row
            weights = self._weights(gram[:, :filled, :filled], slot)[:, None].to(z.dtype)
            z = torch.bmm(weights, values[:, :filled])
            if self.damping < 1.0:
                z = torch.baddbmm(z, weights, residuals[:, :filled], alpha=self.damping - 1.0)
            z = tracker.freeze(z[:, 0])
            fz = f(z) if final is None or step + 1 < self.max_steps else final(z)
        return SolveResult(tracker.best, tracker.finish(tracker.best, free=int(known)))

    def _weights(self, gram: Tensor, slot: int) -> Tensor:
        """The weights (B, n) of the stored iterates, from the residuals' Gram matrix (B, n, n)."""
        count = gram.shape[1]
        if count == 1:
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
        plain[:, slot] = 1.0
        return torch.where(usable, weights, plain)
