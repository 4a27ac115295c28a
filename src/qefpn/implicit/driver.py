"""The one loop that every solver runs in: limits, best iterates, what is not finite, and the statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qefpn.implicit.problem import FlatMap, Problem
from qefpn.implicit.stats import Code, SolveStats
from qefpn.implicit.torch_private import LaggedRead, accumulation_dtype, exact_products, lags

if TYPE_CHECKING:
    from qefpn.implicit.solvers.base import Solver


@dataclass(frozen=True)
class SolveResult:
    """What a solve hands to an adjoint.

    Attributes:
        value: (B, N), the best iterate of each sample (of a solver that is ``latest``: the last one).
        stats: statistics of the solve.
        state: what the solver remembers (:meth:`Solver.init`).
        settled: (B,) bool, the samples that had stopped before the last evaluation.
        at_last: whether ``value`` is, for every sample, the point of the evaluation at the limit.
    """

    value: Tensor
    stats: SolveStats
    state: Any
    settled: Tensor
    at_last: bool


def solve(
    solver: Solver,
    f: FlatMap,
    z: Tensor,
    *,
    known: Tensor | None = None,
    last: FlatMap | None = None,
    compact: bool = False,
) -> SolveResult:
    """Solve f(z) = z for a batch, one fixed point a sample.

    Args:
        solver: its settings and its step.
        f: (B, N) to (B, N). Samples must not depend on each other.
        z: (B, N), the starting point. It is not written to.
        known: f(z) where it is known already; it then costs no evaluation, and the starting point is no candidate for
            the best iterate.
        last: stands in for ``f`` at the evaluation after step ``max_steps``, with the same values: an adjoint records
            f's graph in passing. A solver that is ``latest`` makes no such evaluation.
        compact: samples that have stopped leave the batch that f is evaluated on, where f is a :class:`Problem` whose
            arguments can be sub-selected, who has stopped is known (:class:`_Progress`), and autograd does not watch.
    """
    exact = exact_products()
    progress = _Progress(solver, z, candidate=known is None)
    moving = _Moving(f, z.shape[0]) if compact and isinstance(f, Problem) else None
    state = solver.init(z)
    value, recorded = f(z) if known is None else known, False
    evaluations = solver.max_steps + (0 if solver.latest else 1)
    for number in range(1, evaluations + 1):
        with exact:
            final = number == evaluations
            g_norm = solver.measure(state, z, value, final)
            ended = progress.update(z, g_norm, norms(value), final) or final
            if solver.latest or not ended:
                z = progress.freeze(solver.step(state, z, value, progress.settled), z)
        if ended:
            break
        recorded = last is not None and number == solver.max_steps
        if last is not None and recorded:
            value = last(z)
        else:
            value = f(z) if moving is None else moving(z, value, progress.running)
    answer = z if solver.latest else progress.best
    stats = progress.statistics(answer, free=known is not None)
    return SolveResult(answer, stats, state, progress.settled, at_last=recorded and answer is z)


class _Moving:
    """f on the samples that still move; those that have stopped keep their last value, which nobody reads."""

    def __init__(self, f: Problem, batch: int) -> None:
        self.f, self.batch, self.can = f, batch, f.can_subselect(batch)
        self.rows: list[int] = []
        self.index: Tensor | None = None
        self.args: tuple[Any, ...] = ()

    def __call__(self, z: Tensor, value: Tensor, running: list[int] | None) -> Tensor:
        if running is None or len(running) == self.batch or not self.can or torch.is_grad_enabled():
            return self.f(z)
        if self.index is None or running != self.rows:
            self.rows, self.index = running, torch.tensor(running, device=z.device)
            self.args = self.f.subselect(self.index, self.batch)
        return value.index_copy(0, self.index, self.f(z.index_select(0, self.index), self.args))


class _Progress:
    """The best iterate of each sample, who has stopped, and the statistics.

    A sample's entries depend on that sample alone. A sample stops when it has converged or when its evaluation is not
    finite; its best iterate is then frozen.

    With tolerances a step asks the device once, to learn whether all have stopped, and waits for the answer to the
    former step alone: a GPU works on while it is told, and takes one step for nothing at the end. Where every step is
    taken anyway (rtol = atol = 0) nothing is read back: no Python control depends on data, so that a solve can be
    captured as a CUDA graph. Nor is anything read in a compiler: all steps are taken there, with what has stopped held
    still. On a CPU reading is free and saves copies.

    Args:
        solver: the tolerances, and whether the last iterate is reported in place of the best.
        z: (B, N), the starting point.
        candidate: whether the starting point may be the best iterate.
    """

    def __init__(self, solver: Solver, z: Tensor, *, candidate: bool) -> None:
        batch = z.shape[0]
        self.solver, self.candidate, self.best = solver, candidate, z
        self.tolerant = solver.rtol > 0 or solver.atol > 0
        self.reads = (self.tolerant or z.device.type == "cpu") and not torch.compiler.is_compiling()
        self.lagged = LaggedRead() if self.reads and lags(z.device) else None
        self.any_stopped = not self.reads or self.lagged is not None  # as far as anybody knows
        self.running: list[int] | None = None  # the samples that move; None where nobody asks
        self.step = 0
        self.stop_step = torch.zeros(batch, dtype=torch.int64, device=z.device)
        self.stopped = torch.zeros(batch, dtype=torch.bool, device=z.device)
        self.settled = self.stopped  # before the last update
        self.finite = torch.ones_like(self.stopped)
        self._table: Tensor | None = None  # rows: score, relative residual, residual, of the best iterate
        self._trace: list[Tensor] = []

    def update(self, z: Tensor, g_norm: Tensor, f_norm: Tensor, final: bool) -> bool:
        """Enter iterate number ``step`` with its norms (B,); True when every sample is known to have stopped.
        ``final``: no other will follow."""
        solver, self.settled = self.solver, self.stopped
        relative = torch.where(g_norm == 0, 0.0, g_norm / f_norm)
        # what is best and what has converged; without atol 0/0 scores as converged
        score = relative if solver.atol == 0 else g_norm / (solver.atol + solver.rtol * f_norm)
        row = torch.stack([score, relative, g_norm])
        finite = g_norm < torch.inf  # false for NaN; the relative residual may be infinite, where F is 0
        if self._table is None:
            better = finite if self.candidate else torch.zeros_like(finite)
            self._table = torch.where(better, row, torch.inf)
        else:
            better = finite & ~self.stopped
            if not solver.latest:
                better = better & (score < self._table[0])
            self._table = torch.where(better, row, self._table)
        self._trace.append(torch.where(self.stopped, self._table[1], relative))
        ended = ~finite
        if self.tolerant:
            ended = ended | (better & solver.terminate(score))
        self.finite = self.finite & (finite | self.stopped)
        self.stop_step = torch.where(self.stopped, self.stop_step, self.step)
        self.stopped = self.stopped | ended
        self.step += 1
        if not self.reads or (self.lagged is not None and not final):
            self.best = torch.where(better[:, None], z, self.best)
            known = None if self.lagged is None else self.lagged(self.stopped)
            if known is None:
                return False
            self.running = [row for row, stopped in enumerate(known) if not stopped]
            return not self.running
        # here a GPU is waited for, once at the end
        better_list, stopped_list = torch.stack([better, self.stopped]).tolist()
        if all(better_list):
            self.best = z
        elif any(better_list):
            self.best = torch.where(better[:, None], z, self.best)
        self.running = [row for row, stopped in enumerate(stopped_list) if not stopped]
        self.any_stopped = len(self.running) < len(stopped_list)
        return not self.running

    def freeze(self, proposed: Tensor, z: Tensor) -> Tensor:
        """The next iterate: ``proposed``, where a sample still moves.

        One that has stopped stays at its best iterate. A ``latest`` solver's last iterate is the one after the
        evaluation that ended the sample, unless that was not finite.
        """
        if not self.any_stopped:
            return proposed
        if self.solver.latest:
            return torch.where((~self.settled & self.finite)[:, None], proposed, z)
        return torch.where(self.stopped[:, None], self.best, proposed)

    def statistics(self, value: Tensor, *, free: bool) -> SolveStats:
        """Of the solve that returns ``value`` (B, N); ``free``: the first evaluation cost nothing."""
        assert self._table is not None
        counts = self.stop_step  # of a sample that runs it is the number of the last iterate
        score, relative, residual = self._table
        code = torch.where(self.solver.terminate(score), int(Code.CONVERGED), int(Code.LIMIT))
        return SolveStats(
            steps=counts
            + int(self.solver.latest),  # a plain iteration moves to its last value without evaluating there
            evaluations=counts + int(not free),
            residual=residual,
            relative_residual=relative,
            code=torch.where(self.finite, code, int(Code.NOT_FINITE)),
            norm=norms(value),
            trace=torch.stack(self._trace),
        )


def norms(x: Tensor) -> Tensor:
    """(B, N) to its rows' 2-norms in float64 (float32 where the device has no float64)."""
    norm: Tensor = torch.linalg.vector_norm(x.detach(), dim=1).to(accumulation_dtype(x.device))
    return norm
