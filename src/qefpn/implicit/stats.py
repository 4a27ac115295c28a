"""What a solve reports."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from qefpn.implicit.layout import State


@dataclass(frozen=True)
class SolveStats:
    """Statistics of one solve, one entry a sample.

    With g(z) = F(z) − z, where F is the residual's map (f itself for ``equilibrium``):

    Attributes:
        steps: (B,) int64, updates of the iterate until the sample stopped.
        evaluations: (B,) int64, evaluations of F that these steps took. Broyden, Anderson and the damped
            iteration evaluate the starting point and every new iterate, so ``steps + 1`` (more under a line
            search); ``Unroll`` takes exactly ``steps``; a backward solve knows its first value without
            an evaluation, so ``steps`` vector-Jacobian products.
        residual: (B,) ‖g(z*)‖₂ at the returned iterate (``Unroll``: at the last one it evaluated).
        relative_residual: (B,) ‖g(z*)‖ / ‖F(z*)‖, where 0/0 is 0. Infinite when no evaluation was finite.
        converged: (B,) bool, residual ≤ atol + rtol·‖F(z*)‖.
        finite: (B,) bool, False where F gave a NaN or an infinity during the solve.
        norm: (B,) ‖z*‖₂ of the returned iterate.
        trace: (steps + 1, B) relative residual of every iterate (``Unroll``: (steps, B)). A sample that has
            stopped repeats the value it stopped with. None where a solver keeps none.
    """

    steps: Tensor
    evaluations: Tensor
    residual: Tensor
    relative_residual: Tensor
    converged: Tensor
    finite: Tensor
    norm: Tensor
    trace: Tensor | None = None

    def summary(self) -> dict[str, float]:
        """Means over the batch as plain numbers, for a log line. Reading them waits for the device."""
        columns = torch.stack(
            [
                self.steps.double(),
                self.evaluations.double(),
                self.residual.double(),
                self.relative_residual.double(),
                self.converged.double(),
                self.norm.double(),
            ]
        )
        names = ("steps", "evaluations", "residual", "relative_residual", "converged", "norm")
        return dict(zip(names, columns.mean(dim=1).tolist(), strict=True))


@dataclass
class BackwardRecord:
    """Where a backward pass leaves its statistics."""

    stats: SolveStats | None = None
    fallbacks: Tensor | None = None


@dataclass(frozen=True)
class Solution:
    """The answer of :func:`qefpn.implicit.fixed_point`.

    Attributes:
        value: z*, shaped like z0: the best iterate itself, the same with and without grad.
        stats: statistics of the forward solve, a sample.
        intermediate: f at the iterates that were asked for and reached, first to last, each with the gradient of that
            one evaluation.
    """

    value: State
    stats: SolveStats
    record: BackwardRecord = field(repr=False)
    intermediate: tuple[State, ...] = ()

    @property
    def backward_stats(self) -> SolveStats | None:
        """Statistics of the last backward solve; None until a backward pass has run, and for adjoints
        that solve nothing."""
        return self.record.stats

    @property
    def fallbacks(self) -> Tensor | None:
        """(B,) bool: the samples to which the last backward pass gave the Jacobian-free gradient, since it found no
        solution (``ImplicitAdjoint``) or no estimate of proportion (``ShineAdjoint``). None until a backward pass has
        run, and for the other adjoints."""
        return self.record.fallbacks
