"""Broyden's method with one stored vector a step.

Notation, a sample: g(z) = F(z) − z, dₖ the direction of step k, λₖ its length, sₖ = λₖdₖ. The inverse
Jacobian estimate starts as −ηI (η = 1: the first step is the fixed-point step) and each "good" Broyden update
is a rank-one factor from the left,

    Hₖ₊₁ = (I + pₖ dₖᵀ/‖dₖ‖²) Hₖ,        pₖ = dₖ₊₁ − (1 − λₖ) dₖ,

since the next direction is itself the vector that the update needs (C. T. Kelley, Iterative Methods for
Linear and Nonlinear Equations, SIAM 1995, section 7.3). The product of the factors is kept as

    Hₖ = −η (I + DᵀKD),        D: the stored directions, (n, N),        K: (n, n), strictly lower triangular,

so a step reads D twice, once for Dg and once for the combination g + Dᵀ(K·Dg). The update needs Ddₙ, too: dₙ being
a combination of rows whose products with D are known, it follows without reading D. When the memory is full the
estimate restarts from −ηI and the newest pair (s, y): overwriting a stored pair would leave an estimate
that satisfies no secant equation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qefpn.implicit.checks import check_count, check_flag
from qefpn.implicit.problem import FlatMap
from qefpn.implicit.solvers.base import SOLVERS, Solver, SolveResult, Tracker, accumulation_dtype, norms
from qefpn.implicit.solvers.line_search import Armijo

_TINY = 1e-10
"""Below this, relative to its terms, the denominator of an update counts as zero: the sample restarts."""


@SOLVERS.register("broyden")
@dataclass(frozen=True)
class Broyden(Solver):
    """Broyden's "good" method from B₀ = −I, limited memory with restart.

    Takes ``steps + 1`` evaluations (more under a line search); the last one gives the residual of the last
    iterate. Each sample has its own estimate, stop and best iterate.

    Args:
        max_steps: updates of the iterate, at most (≥ 1).
        rtol: a sample stops where ‖g(z)‖ ≤ atol + rtol·‖F(z)‖.
        atol: see ``rtol``. With both 0 every step is taken.
        memory: pairs kept, at most (≥ 1); the estimate then restarts with the newest. None: all of them. A
            pair costs one state.
        line_search: Armijo search on ‖g‖, for each sample by itself.
    """

    memory: int | None = None
    line_search: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory is not None:
            check_count("Broyden", "memory", self.memory)
        check_flag("Broyden", "line_search", self.line_search)

    def solve(
        self,
        f: FlatMap,
        z: Tensor,
        *,
        fz: Tensor | None = None,
        final: FlatMap | None = None,
        keep_inverse: bool = False,
    ) -> SolveResult:
        known = fz is not None
        tracker = Tracker(self, z, candidate=not known)
        estimate = Estimate(z, self.max_steps + int(keep_inverse), self.memory)
        search = Armijo(z.shape[0], z.device) if self.line_search else None
        if fz is None:
            fz = f(z)
        for step in range(self.max_steps + 1):
            last = step == self.max_steps
            g_norm = estimate.enter(fz, z, measure=not last or keep_inverse)
            stopped = tracker.stopped if keep_inverse else None
            ended = tracker.update(z, g_norm, norms(fz)) or last
            if ended and not keep_inverse:
                break
            direction = estimate.direction(stopped)
            if ended:
                break
            if search is None:
                z = tracker.freeze(z + direction)
                fz = f(z) if final is None or step + 1 < self.max_steps else final(z)
            else:
                z, fz = search.step(f, z, direction, g_norm, estimate, tracker)
        evaluations = None
        if search is not None:
            evaluations = search.evaluations + (0 if known else 1)
        stats = tracker.finish(tracker.best, evaluations=evaluations, free=int(known))
        return SolveResult(tracker.best, stats, estimate.transposed() if keep_inverse else None)


class Estimate:
    """The inverse Jacobian estimates of a batch.

    ``rows`` (B, R, N): row 0 is the current g, rows 1..n are the stored directions. After a restart row 1 is
    the newest direction and row 2 its p, which is no direction and has no factor of its own.
    """

    def __init__(self, z: Tensor, max_steps: int, memory: int | None) -> None:
        batch, size = z.shape
        self.memory = max_steps if memory is None else memory
        rows = min(max_steps + 1, self.memory + 3)
        # a row of the whole batch in one piece: what is written at a time
        self.rows = z.new_empty(max(rows, 2), batch, size).transpose(0, 1)
        self.K = torch.zeros(batch, rows, rows, dtype=accumulation_dtype(z.device), device=z.device)
        self.gram = torch.zeros_like(self.K)  # products of the stored rows; row and column 0 are not used
        self.products = 0  # rows whose products are known
        self.n = 0
        self.pairs = 0
        self.dots: Tensor | None = None  # (B, 2, n + 1): [g, newest direction] · rows
        self.old_g: Tensor | None = None
        # set by a line search only
        self.eta: Tensor | None = None  # (B, 1)
        self.length: Tensor | None = None  # (B, 1), λ of the newest step
        self.reset: Tensor | None = None  # (B, 1) bool: drop what is known and start from −ηI

    def enter(self, fz: Tensor, z: Tensor, *, measure: bool = True) -> Tensor:
        """Store g = fz − z and return ‖g‖ (B,)."""
        g = self.rows[:, 0]
        torch.sub(fz, z, out=g)
        if self.n == 0 or not measure:
            return norms(g)
        n = self.n
        known = self.rows[:, : n + 1].transpose(1, 2)
        if self.products < n:
            between = torch.bmm(self.rows[:, 1 : n + 1], known[:, :, 1:])
            self.gram[:, 1 : n + 1, 1 : n + 1] = between.to(self.gram.dtype)
            self.products = n
        with_g = torch.bmm(self.rows[:, :1], known).to(self.K.dtype)
        newest = torch.cat([with_g[:, :, -1:], self.gram[:, n : n + 1, 1 : n + 1]], dim=2)
        self.dots = torch.cat([with_g, newest], dim=1)
        return self.dots[:, 0, 0].clamp_min(0.0).sqrt()

    def direction(self, frozen: Tensor | None = None) -> Tensor:
        """−Hg (B, N), stored as the newest direction. A view of the store: read it, do not keep it.

        Args:
            frozen: (B,) bool, samples that no longer move and whose estimates learn nothing from this step.
        """
        n = self.n
        if n == 0:
            self._append(self.rows[:, 0])
        elif self.pairs + 1 > self.memory:
            self._restart()
        else:
            weights = self._extend(frozen)
            self.pairs += 1
            self._append_combination(weights)
        if self.pairs == self.memory:  # the next step may restart, and then needs y
            self.old_g = self.rows[:, 0].clone()
        return self.rows[:, self.n]

    def _extend(self, frozen: Tensor | None) -> Tensor:
        """Add the factor of the newest step; the weights (B, n + 1) of the next direction on rows 0..n."""
        assert self.dots is not None
        n = self.n
        gram = self.dots[:, 1:, 1:]  # (B, 1, n): newest direction · directions
        square = gram[:, :, -1:]
        K = self.K[:, 1 : n + 1, 1 : n + 1]
        factor = torch.bmm(gram, K)
        factor[:, :, -1:] += 1.0
        factor = torch.where(square > 0, factor / square, 0.0)  # dₙᵀ(I + DᵀKD)/‖dₙ‖² in terms of D
        if self.reset is not None:
            factor = torch.where(self.reset[:, :, None], 0.0, factor)
            K.copy_(torch.where(self.reset[:, :, None], 0.0, K))
        if frozen is not None:
            factor = torch.where(frozen[:, None, None], 0.0, factor)
        if self.length is not None:
            K[:, -1:] -= (1.0 - self.length)[:, :, None] * factor
        c = self.dots[:, :1, 1:].transpose(1, 2)  # (B, n, 1): directions · g
        weights = torch.cat([torch.bmm(K, c), torch.bmm(factor, c)], dim=1)[:, :, 0]
        eta = 1.0 if self.eta is None else self.eta
        ratio = eta * weights[:, -1:]
        denominator = 1.0 - ratio
        weights = torch.cat([torch.ones_like(ratio), weights[:, :-1]], dim=1) * (eta / denominator)
        usable = denominator.abs() > _TINY * (1.0 + ratio.abs())
        usable = usable & torch.isfinite(weights).all(dim=1, keepdim=True)
        fresh = torch.zeros_like(weights)
        fresh[:, :1] = eta
        self.K[:, n + 1, 1 : n + 1] = factor[:, 0]
        extended = self.K[:, 1 : n + 2, 1 : n + 1]
        extended.copy_(torch.where(usable[:, :, None], extended, 0.0))
        return torch.where(usable, weights, fresh)

    def _restart(self) -> None:
        """Start again from −ηI and the newest pair, and append the next direction."""
        assert self.dots is not None and self.old_g is not None
        eta = torch.ones_like(self.dots[:, 0, :1]) if self.eta is None else self.eta
        g, d = self.rows[:, 0], self.rows[:, self.n]
        y = torch.sub(g, self.old_g, out=self.old_g)
        if self.n != 1:
            self.rows[:, 1].copy_(d)
            d = self.rows[:, 1]
        square, slope = self.dots[:, 1, -1:], self.dots[:, 0, -1:]  # ‖d‖², d·g
        change = torch.linalg.vecdot(d, y)[:, None].to(square.dtype)  # d·y
        length = 1.0 if self.length is None else self.length
        scale = -square / change
        usable = change.abs() > _TINY * (square.sqrt() * norms(y)[:, None])
        if self.reset is not None:
            usable = usable & ~self.reset
        usable = usable & torch.isfinite(scale)
        scale = torch.where(usable, scale, 0.0)
        # H y = s for H = −η(I + p dᵀ/‖d‖²)
        p = torch.addcmul(y, d, (length / eta * torch.ones_like(scale)).to(y.dtype))
        torch.mul(p, scale.to(y.dtype), out=self.rows[:, 2])
        self.K.zero_()
        weight = torch.where(usable & (square > 0), 1.0 / square, 0.0)
        self.K[:, 2, 1] = weight[:, 0]
        self.n, self.pairs = 2, 1
        self.dots, self.products = None, 0
        self._append_combination(torch.cat([eta, torch.zeros_like(eta), eta * weight * slope], dim=1))

    def _append(self, direction: Tensor) -> None:
        self.n += 1
        self.rows[:, self.n].copy_(direction)

    def _append_combination(self, weights: Tensor) -> None:
        stored = self.rows[:, : self.n + 1]
        weights = weights.to(stored.dtype)
        self.n += 1
        torch.bmm(weights[:, None], stored, out=self.rows[:, self.n : self.n + 1])
        if self.products == self.n - 1:
            self._extend_products(weights.to(self.K.dtype))

    def _extend_products(self, weights: Tensor) -> None:
        """The products of the newest direction, rows 0..n − 1 combined by ``weights``, with the stored ones."""
        assert self.dots is not None
        n = self.n
        with_g = self.dots[:, :1, 1:]
        before = weights[:, None, :1] * with_g + torch.bmm(weights[:, None, 1:], self.gram[:, 1:n, 1:n])
        newest = self.rows[:, n]
        self.gram[:, n, 1:n] = self.gram[:, 1:n, n] = before[:, 0]
        self.gram[:, n, n] = torch.linalg.vecdot(newest, newest)  # measured: it is divided by
        self.products = n

    def apply(self, v: Tensor) -> Tensor:
        """Hv (B, N)."""
        directions, K = self.rows[:, 1 : self.n + 1], self.K[:, 1 : self.n + 1, 1 : self.n + 1]
        weights = torch.bmm(K, torch.bmm(directions, v[:, :, None]).to(K.dtype)).to(v.dtype)
        result = -torch.baddbmm(v[:, None], weights.transpose(1, 2), directions)[:, 0]
        return result if self.eta is None else result * self.eta.to(v.dtype)

    def transposed(self) -> Callable[[Tensor], Tensor]:
        """v ↦ −Hᵀv: the estimate of (I − J)⁻ᵀ v, with every pair that is known."""
        n = self.n
        if n == 0:
            return torch.clone
        directions, K, eta = self.rows[:, 1 : n + 1], self.K[:, 1 : n + 1, 1 : n + 1].clone(), self.eta

        def apply(v: Tensor) -> Tensor:
            c = torch.bmm(directions, v[:, :, None]).to(K.dtype)
            weights = torch.bmm(K.transpose(1, 2), c).to(v.dtype)
            result = torch.baddbmm(v[:, None], weights.transpose(1, 2), directions)[:, 0]
            return result if eta is None else result * eta.to(v.dtype)

        return apply
