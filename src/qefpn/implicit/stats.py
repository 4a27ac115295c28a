"""What a solve reports."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qefpn.implicit.layout import State


class Code(enum.IntEnum):
    """How a sample's solve ended."""

    CONVERGED = 0
    LIMIT = 1
    """After the last step, above the tolerance."""
    NOT_FINITE = 2
    """F gave a NaN or an infinity: the best iterate before that is the answer."""


@dataclass(frozen=True)
class SolveStats:
    """Statistics of one solve, one entry a sample.

    With g(z) = F(z) − z, where F is the residual's map (f itself for ``equilibrium``):

    Attributes:
        steps: (B,) int64, updates of the iterate until the sample stopped.
        evaluations: (B,) int64, evaluations of F that these steps took. Broyden, Anderson and the damped
            iteration evaluate the starting point and every new iterate, so ``steps + 1``; ``Unroll`` takes exactly
            ``steps``; a backward solve knows its first value without an evaluation, so ``steps``
            vector-Jacobian products.
        residual: (B,) ‖g(z*)‖₂ at the returned iterate (``Unroll``: at the last one it evaluated).
        relative_residual: (B,) ‖g(z*)‖ / ‖F(z*)‖, where 0/0 is 0. Infinite when no evaluation was finite.
        code: (B,) int64, a :class:`Code`: ``converged`` is residual ≤ atol + rtol·‖F(z*)‖.
        norm: (B,) ‖z*‖₂ of the returned iterate.
        trace: (steps + 1, B) relative residual of every iterate (``Unroll``: (steps, B)). A sample that has
            stopped repeats the value it stopped with.
    """

    steps: Tensor
    evaluations: Tensor
    residual: Tensor
    relative_residual: Tensor
    code: Tensor
    norm: Tensor
    trace: Tensor

    @property
    def converged(self) -> Tensor:
        """(B,) bool."""
        return self.code == int(Code.CONVERGED)

    @property
    def finite(self) -> Tensor:
        """(B,) bool, False where F gave a NaN or an infinity during the solve."""
        return self.code != int(Code.NOT_FINITE)

    def summary(self) -> dict[str, float]:
        """Means over the batch as plain numbers, for a log line. Reading them waits for the device."""
        names = ("steps", "evaluations", "residual", "relative_residual", "converged", "norm")
        columns = torch.stack([getattr(self, name).to(self.norm.dtype) for name in names])
        return dict(zip(names, columns.mean(dim=1).tolist(), strict=True))


@dataclass
class BackwardRecord:
    """Where a backward pass leaves its statistics. A compiled one leaves none."""

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
