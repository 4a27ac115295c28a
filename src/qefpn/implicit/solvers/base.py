"""What every solver shares: its settings, the bookkeeping of a batch, and the record it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qefpn.implicit.checks import check_count, check_number
from qefpn.implicit.problem import FlatMap
from qefpn.implicit.stats import SolveStats
from qefpn.registry import Registry

SOLVERS: Registry[type[Solver]] = Registry("solver")


@dataclass(frozen=True)
class SolveResult:
    """What a solver hands to an adjoint.

    Attributes:
        value: (B, N), the best iterate of each sample.
        stats: statistics of the solve.
        apply_transposed: v ↦ (the solver's estimate of (I − J_F)⁻¹ at its last iterate)ᵀ v, where the solver
            has one and was asked to keep it.
    """

    value: Tensor
    stats: SolveStats
    apply_transposed: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Solver(ABC):
    """Settings of a root solver: a plain record, without state of its own.

    Args:
        max_steps: updates of the iterate, at most (≥ 1).
        rtol: a sample stops where ‖g(z)‖ ≤ atol + rtol·‖F(z)‖.
        atol: see ``rtol``. With both 0 every step is taken.
    """

    max_steps: int = 27
    rtol: float = 1e-3
    atol: float = 0.0

    unrolls: ClassVar[bool] = False
    """Whether autograd may run through ``solve``, for :class:`qefpn.implicit.UnrolledAdjoint`."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_count(name, "max_steps", self.max_steps)
        check_number(name, "rtol", self.rtol, low=0.0)
        check_number(name, "atol", self.atol, low=0.0)

    @abstractmethod
    def solve(
        self,
        f: FlatMap,
        z: Tensor,
        *,
        fz: Tensor | None = None,
        final: FlatMap | None = None,
        keep_inverse: bool = False,
    ) -> SolveResult:
        """Solve f(z) = z for a batch.

        Args:
            f: the map, (B, N) to (B, N). Samples must not depend on each other.
            z: (B, N), the starting point. It is not written to.
            fz: f(z) where it is known already; it then costs no evaluation, and the starting point is no
                candidate for the best iterate.
            final: stands in for ``f`` at the iterate after step ``max_steps``; a solver may ignore it. The
                values must be those of ``f``: an adjoint records f's graph in passing.
            keep_inverse: keep what ``SolveResult.apply_transposed`` needs.
        """


class Tracker:
    """Bookkeeping of one solve: the best iterate, who has stopped, and the statistics.

    A sample's entries depend on that sample alone. A sample stops when it has converged or when its
    evaluation is not finite; its best iterate is then frozen.

    With tolerances a step waits for the device once, to learn whether all have stopped. Where every step is taken
    anyway (rtol = atol = 0) nothing is read back: no Python control depends on data, so that a solve compiles as one
    graph and can be captured as a CUDA graph. On a CPU, outside of a compiler, reading is free and saves copies.

    Args:
        solver: the tolerances.
        z: (B, N), the starting point.
        candidate: whether the starting point may be the best iterate.
        latest: report the last finite iterate instead of the best one.
    """

    def __init__(self, solver: Solver, z: Tensor, *, candidate: bool = True, latest: bool = False) -> None:
        batch = z.shape[0]
        self.rtol, self.atol = solver.rtol, solver.atol
        self.tolerant = solver.rtol > 0 or solver.atol > 0
        self.candidate, self.latest = candidate, latest
        self.best = z
        self.step = 0
        self.reads = self.tolerant or (z.device.type == "cpu" and not torch.compiler.is_compiling())
        self.any_stopped = not self.reads  # as far as anybody knows
        self.stop_step = torch.zeros(batch, dtype=torch.int64, device=z.device)
        self.stopped = torch.zeros(batch, dtype=torch.bool, device=z.device)
        self.finite = torch.ones(batch, dtype=torch.bool, device=z.device)
        self._table: Tensor | None = None  # rows: score, relative residual, residual, of the best iterate
        self._trace: list[Tensor] = []

    def update(self, z: Tensor, g_norm: Tensor, f_norm: Tensor) -> bool:
        """Enter iterate number ``step`` with its norms (B,); True when every sample has stopped."""
        relative = torch.where(g_norm == 0, 0.0, g_norm / f_norm)
        if self.atol == 0:
            score, limit = relative, self.rtol  # so that 0/0 scores as converged
        else:
            score, limit = g_norm / (self.atol + self.rtol * f_norm), 1.0
        row = torch.stack([score, relative, g_norm])
        finite = g_norm < torch.inf  # false for NaN; the relative residual may be infinite, where F is 0
        if self._table is None:
            better = finite if self.candidate else torch.zeros_like(finite)
            self._table = torch.where(better, row, torch.inf)
        else:
            better = finite & ~self.stopped
            if not self.latest:
                better = better & (score < self._table[0])
            self._table = torch.where(better, row, self._table)
        self._trace.append(torch.where(self.stopped, self._table[1], relative))
        ended = ~finite
        if self.tolerant:
            ended = ended | (better & (score <= limit))
        self.finite = self.finite & (finite | self.stopped)
        self.stop_step = torch.where(self.stopped, self.stop_step, self.step)
        self.stopped = self.stopped | ended
        self.step += 1
        if not self.reads:
            self.best = torch.where(better[:, None], z, self.best)
            return False
        # the one wait for the device
        better_list, stopped_list = torch.stack([better, self.stopped]).tolist()
        if all(better_list):
            self.best = z
        elif any(better_list):
            self.best = torch.where(better[:, None], z, self.best)
        self.any_stopped = any(stopped_list)
        return all(stopped_list)

    def freeze(self, z: Tensor) -> Tensor:
        """``z`` with the stopped samples at their best iterates."""
        return torch.where(self.stopped[:, None], self.best, z) if self.any_stopped else z

    def finish(self, value: Tensor, *, evaluations: Tensor | None = None, free: int = 0) -> SolveStats:
        """The statistics.

        Args:
            value: (B, N), what the solve returns.
            evaluations: (B,) int64, where it is not one an iterate.
            free: evaluations of each sample that cost nothing.
        """
        offset = int(self.latest)  # a plain iteration moves to its last value without evaluating there
        assert self._table is not None
        counts = self.stop_step  # of a sample that runs it is the number of the last iterate
        score, relative, residual = self._table
        return SolveStats(
            steps=counts + offset,
            evaluations=counts + (1 - free) if evaluations is None else evaluations,
            residual=residual,
            relative_residual=relative,
            converged=score <= (self.rtol if self.atol == 0 else 1.0),
            finite=self.finite,
            norm=norms(value),
            trace=torch.stack(self._trace),
        )


def norms(x: Tensor) -> Tensor:
    """(B, N) to its rows' 2-norms in float64 (float32 where the device has no float64)."""
    norm: Tensor = torch.linalg.vector_norm(x.detach(), dim=1).to(accumulation_dtype(x.device))
    return norm


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """The type of the small algebra on ``device``."""
    return torch.float32 if device.type == "mps" else torch.float64
