"""Broyden's method with one stored vector a step.

Notation, a sample: g(z) = F(z) − z, dₖ the direction of step k, α its length, sₖ = αdₖ. The inverse Jacobian
estimate starts as −I (with α = 1 the first step is the fixed-point step) and each "good" Broyden update
is a rank-one factor from the left,

    Hₖ₊₁ = (I + pₖ dₖᵀ/‖dₖ‖²) Hₖ,        pₖ = dₖ₊₁ − (1 − α) dₖ,

since the next direction is itself the vector that the update needs (C. T. Kelley, Iterative Methods for
Linear and Nonlinear Equations, SIAM 1995, section 7.3). The product of the factors is kept as

    Hₖ = −(I + DᵀKD),        D: the stored directions, (n, N),        K: (n, n), strictly lower triangular for α = 1,

so a step reads D twice, once for Dg and once for the combination g + Dᵀ(K·Dg). The update needs Ddₙ, too: dₙ being
a combination of rows whose products with D are known, it follows without reading D. When the memory is full the
estimate restarts from −I and the newest pair (s, y): overwriting a stored pair would leave an estimate
that satisfies no secant equation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qefpn.implicit.checks import check_count, check_number
from qefpn.implicit.driver import norms
from qefpn.implicit.solvers.base import SOLVERS, Solver
from qefpn.implicit.torch_private import accumulation_dtype, bmm, dot, total_memory

_TINY = 1e-10
"""Below this, relative to its terms, the denominator of an update counts as zero: the sample restarts."""


@SOLVERS.register("broyden")
@dataclass(frozen=True)
class Broyden(Solver):
    """Broyden's "good" method from B₀ = −I, limited memory with restart.

    Takes ``steps + 1`` evaluations; the last one gives the residual of the last iterate. Each sample has its own
    estimate, stop and best iterate.

    Args:
        max_steps, rtol, atol: as of every :class:`Solver`.
        memory: pairs kept, at most (≥ 1); the estimate then restarts with the newest. None: all of them, or where
            they would take more than half of the machine's memory as many as fit into that, which a warning tells.
            A pair costs one state.
        alpha: length of a step over that of the quasi-Newton step (Eq. 4), in (0, 1].
    """

    memory: int | None = None
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory is not None:
            check_count("Broyden", "memory", self.memory)
        check_number("Broyden", "alpha", self.alpha, low=0.0, high=1.0, open_low=True)

    def init(self, z: Tensor) -> Estimate:
        return Estimate(
            z, self.max_steps, _pairs_that_fit(z, self.max_steps) if self.memory is None else self.memory, self.alpha
        )

    def measure(self, state: Estimate, z: Tensor, value: Tensor, final: bool) -> Tensor:
        return state.enter(value, z, multiply=not final)

    def step(self, state: Estimate, z: Tensor, value: Tensor, settled: Tensor) -> Tensor:
        direction = state.direction(settled)
        return z + direction if self.alpha == 1.0 else torch.add(z, direction, alpha=self.alpha)


def _pairs_that_fit(z: Tensor, steps: int) -> int | None:
    """Pairs that half of the memory holds, beside three further rows; None for all of ``steps``."""
    total = None if torch.compiler.is_compiling() else total_memory(z.device)
    state = z.numel() * z.element_size()
    if total is None or (steps + 1) * state <= total // 2:
        return None
    pairs = max(1, total // 2 // state - 3)
    warnings.warn(
        f"Broyden: {steps + 1} states of {state / 2**20:,.0f} MiB are more than half of the memory of {z.device}: "
        f"it restarts after {pairs} steps; memory={pairs} says so, fewer pictures at a time need less",
        UserWarning,
        stacklevel=4,
    )
    return pairs


class Estimate:
    """The inverse Jacobian estimates of a batch.

    ``rows`` (B, R, N): row 0 is the current g, rows 1..n are the stored directions. After a restart row 1 is
    the newest direction and row 2 its p, which is no direction and has no factor of its own.
    """

    def __init__(self, z: Tensor, max_steps: int, memory: int | None, alpha: float = 1.0) -> None:
        batch, size = z.shape
        self.memory, self.alpha = max_steps if memory is None else memory, alpha
        rows = min(max_steps + 1, self.memory + 3)
        # a row of the whole batch in one piece: what is written at a time
        self.rows = z.new_empty(rows, batch, size).transpose(0, 1)
        # one factor more than rows: that of the last step, whose p is no stored row
        self.K = torch.zeros(batch, rows + 1, rows + 1, dtype=accumulation_dtype(z.device), device=z.device)
        self.gram = torch.zeros_like(self.K)  # products of the stored rows; row and column 0 are not used
        self.products = 0  # rows whose products are known
        self.n = 0
        self.pairs = 0
        self.dots: Tensor | None = None  # (B, 2, n + 1): [g, newest direction] · rows
        self.old_g: Tensor | None = None

    def enter(self, fz: Tensor, z: Tensor, *, multiply: bool = True) -> Tensor:
        """Store g = fz − z and return ‖g‖ (B,); ``multiply``: with the products that the next direction needs."""
        g = self.rows[:, 0]
        torch.sub(fz, z, out=g)
        self.dots = None
        if self.n == 0 or not multiply:
            return norms(g)
        return self._multiply()[:, 0, 0].clamp_min(0.0).sqrt()

    def direction(self, settled: Tensor | None = None) -> Tensor:
        """−Hg (B, N), stored as the newest direction. A view of the store: read it, do not keep it.

        Args:
            settled: (B,) bool, samples that no longer move and whose estimates learn nothing from this step.
        """
        if self.n == 0:
            self.n = 1
            self.rows[:, 1].copy_(self.rows[:, 0])
        elif self.pairs + 1 > self.memory:
            self._restart()
        else:
            weights = self._extend(settled)
            self.pairs += 1
            self._append_combination(weights)
        if self.pairs == self.memory:  # the next step may restart, and then needs y
            self.old_g = self.rows[:, 0].clone()
        return self.rows[:, self.n]

    def _multiply(self) -> Tensor:
        """The products ``dots`` of g and of the newest direction with the rows."""
        n = self.n
        known = self.rows[:, : n + 1].transpose(1, 2)
        if self.products < n:
            between = bmm(self.rows[:, 1 : n + 1], known[:, :, 1:])
            self.gram[:, 1 : n + 1, 1 : n + 1] = between.to(self.gram.dtype)
            self.products = n
        with_g = bmm(self.rows[:, :1], known).to(self.K.dtype)
        newest = torch.cat([with_g[:, :, -1:], self.gram[:, n : n + 1, 1 : n + 1]], dim=2)
        self.dots = torch.cat([with_g, newest], dim=1)
        return self.dots

    def _extend(self, settled: Tensor | None) -> Tensor:
        """Add the factor of the newest step; the weights (B, n + 1) of the next direction on rows 0..n."""
        assert self.dots is not None
        n = self.n
        gram = self.dots[:, 1:, 1:]  # (B, 1, n): newest direction · directions
        square = gram[:, :, -1:]
        K = self.K[:, 1 : n + 1, 1 : n + 1]
        factor = torch.bmm(gram, K)
        factor[:, :, -1:] += 1.0
        factor = torch.where(square > 0, factor / square, 0.0)  # dₙᵀ(I + DᵀKD)/‖dₙ‖² in terms of D
        if settled is not None:
            factor = torch.where(settled[:, None, None], 0.0, factor)
        if self.alpha != 1.0:
            K[:, -1:] -= (1.0 - self.alpha) * factor
        c = self.dots[:, :1, 1:].transpose(1, 2)  # (B, n, 1): directions · g
        weights = torch.cat([torch.bmm(K, c), torch.bmm(factor, c)], dim=1)[:, :, 0]
        ratio = weights[:, -1:]
        denominator = 1.0 - ratio
        weights = torch.cat([torch.ones_like(ratio), weights[:, :-1]], dim=1) * (1.0 / denominator)
        usable = denominator.abs() > _TINY * (1.0 + ratio.abs())
        usable = usable & torch.isfinite(weights).all(dim=1, keepdim=True)
        fresh = torch.zeros_like(weights)
        fresh[:, :1] = 1.0
        self.K[:, n + 1, 1 : n + 1] = factor[:, 0]
        extended = self.K[:, 1 : n + 2, 1 : n + 1]
        extended.copy_(torch.where(usable[:, :, None], extended, 0.0))
        return torch.where(usable, weights, fresh)

    def _restart(self) -> None:
        """Start again from −I and the newest pair, and append the next direction."""
        assert self.dots is not None and self.old_g is not None
        g, d = self.rows[:, 0], self.rows[:, self.n]
        y = torch.sub(g, self.old_g, out=self.old_g)
        if self.n != 1:
            self.rows[:, 1].copy_(d)
            d = self.rows[:, 1]
        square, slope = self.dots[:, 1, -1:], self.dots[:, 0, -1:]  # ‖d‖², d·g
        change = dot(d, y)[:, None].to(square.dtype)
        scale = -square / change
        usable = change.abs() > _TINY * (square.sqrt() * norms(y)[:, None])
        usable = usable & torch.isfinite(scale)
        scale = torch.where(usable, scale, 0.0)
        # H y = s for H = −(I + p dᵀ/‖d‖²)
        p = torch.add(y, d, alpha=self.alpha)
        torch.mul(p, scale.to(y.dtype), out=self.rows[:, 2])
        self.K.zero_()
        weight = torch.where(usable & (square > 0), 1.0 / square, 0.0)
        self.K[:, 2, 1] = weight[:, 0]
        self.n, self.pairs = 2, 1
        self.dots, self.products = None, 0
        self._append_combination(torch.cat([torch.ones_like(slope), torch.zeros_like(slope), weight * slope], dim=1))

    def _append_combination(self, weights: Tensor) -> None:
        """Store the rows combined by ``weights`` (B, n + 1) as the newest direction."""
        stored = self.rows[:, : self.n + 1]
        self.n += 1
        n = self.n
        bmm(weights[:, None].to(stored.dtype), stored, out=self.rows[:, n : n + 1])
        if self.products < n - 1:
            return
        assert self.dots is not None  # the newest direction's products with the stored ones follow from theirs
        weights = weights.to(stored.dtype).to(self.K.dtype)
        with_g = self.dots[:, :1, 1:]
        before = weights[:, None, :1] * with_g + torch.bmm(weights[:, None, 1:], self.gram[:, 1:n, 1:n])
        newest = self.rows[:, n]
        self.gram[:, n, 1:n] = self.gram[:, 1:n, n] = before[:, 0]
        self.gram[:, n, n] = dot(newest, newest)  # measured: it is divided by
        self.products = n

    def apply(self, v: Tensor) -> Tensor:
        """Hv (B, N)."""
        directions, K = self.rows[:, 1 : self.n + 1], self.K[:, 1 : self.n + 1, 1 : self.n + 1]
        weights = torch.bmm(K, bmm(directions, v[:, :, None]).to(K.dtype)).to(v.dtype)
        return -(v + bmm(weights.transpose(1, 2), directions)[:, 0])

    def transposed(self, settled: Tensor) -> Callable[[Tensor], Tensor]:
        """v ↦ −Hᵀv: the estimate of (I − J)⁻ᵀ v, with every pair that is known, the newest included.

        To be called once, after the last step.

        Args:
            settled: (B,) bool, as for :meth:`direction`.
        """
        n = self.n
        if n == 0:
            return torch.clone
        if self.dots is None:
            self._multiply()
        weights = self._extend(settled).to(self.rows.dtype)
        p = bmm(weights[:, None], self.rows[:, : n + 1])[:, 0]  # what the next direction would be
        directions, K = self.rows[:, 1 : n + 1], self.K[:, 1 : n + 2, 1 : n + 1].clone()

        def apply(v: Tensor) -> Tensor:
            c = torch.cat([bmm(directions, v[:, :, None])[:, :, 0], dot(p, v)[:, None]], dim=1)
            combined = torch.bmm(K.transpose(1, 2), c[:, :, None].to(K.dtype)).to(v.dtype)
            return v + bmm(combined.transpose(1, 2), directions)[:, 0]

        return apply
