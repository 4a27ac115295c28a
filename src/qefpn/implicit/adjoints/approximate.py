"""Gradients without a backward solve: from a few damped steps at the fixed point, or by the forward solve's inverse."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qefpn.implicit.adjoints.base import ADJOINTS, Adjoint, attach
from qefpn.implicit.checks import check_count, check_number
from qefpn.implicit.problem import FlatMap, Problem
from qefpn.implicit.solvers.base import Solver, SolveResult, norms
from qefpn.implicit.solvers.broyden import Broyden
from qefpn.implicit.stats import BackwardRecord


@ADJOINTS.register("phantom")
@dataclass(frozen=True)
class PhantomAdjoint(Adjoint):
    """Autograd through ``steps`` damped iterations z ← damping·f(z) + (1 − damping)·z that start at z*
    (Geng et al., On Training Implicit Models, NeurIPS 2021). The value stays z*.

    Args:
        steps: iterations (≥ 1), whose graphs are all kept.
        damping: in (0, 1]; 1 is the truncated Neumann series of ``steps`` terms.
    """

    steps: int = 5
    damping: float = 0.5

    def __post_init__(self) -> None:
        check_count("PhantomAdjoint", "steps", self.steps)
        check_number("PhantomAdjoint", "damping", self.damping, low=0.0, high=1.0, open_low=True)

    def run(
        self, problem: Problem, residual_map: FlatMap, z: Tensor, solver: Solver, record: BackwardRecord
    ) -> SolveResult:
        return _attach_steps(problem, residual_map, z, solver, self.steps, self.damping)


@ADJOINTS.register("jacobian_free")
@dataclass(frozen=True)
class JacobianFreeAdjoint(Adjoint):
    """Eq. 6 with the inverse Jacobian replaced by the identity: autograd through one f at z*
    (Fung et al., JFB: Jacobian-Free Backpropagation for Implicit Networks, AAAI 2022)."""

    def run(
        self, problem: Problem, residual_map: FlatMap, z: Tensor, solver: Solver, record: BackwardRecord
    ) -> SolveResult:
        return _attach_steps(problem, residual_map, z, solver, 1, 1.0)


@ADJOINTS.register("shine")
@dataclass(frozen=True)
class ShineAdjoint(Adjoint):
    """Eq. 6 with (I − J)⁻ᵀ replaced by the transpose of what the forward Broyden solve has learnt of it
    (Ramzi et al., SHINE: SHaring the INverse Estimate, ICLR 2022): no backward solve, one vector-Jacobian
    product. The solver's store stays in memory until backward. Needs ``Broyden`` as the forward solver.

    Args:
        max_growth: a sample whose gradient would grow by more than this factor (> 0), or would not be finite, gets that
            of ``JacobianFreeAdjoint``: its estimate is none. ``Solution.fallbacks`` tells which.
    """

    max_growth: float = 10.0

    def __post_init__(self) -> None:
        check_number("ShineAdjoint", "max_growth", self.max_growth, low=0.0, open_low=True)

    def check(self, solver: Solver) -> None:
        if not isinstance(solver, Broyden):
            raise ValueError(
                f"ShineAdjoint reuses Broyden's inverse estimate, got {type(solver).__name__}; "
                f"take Broyden as the solver or JacobianFreeAdjoint as the adjoint"
            )

    def run(
        self, problem: Problem, residual_map: FlatMap, z: Tensor, solver: Solver, record: BackwardRecord
    ) -> SolveResult:
        with torch.no_grad():
            result = solver.solve(residual_map, z.detach(), keep_inverse=True)
        surrogate = problem(result.value.detach())
        value = result.value
        apply = result.apply_transposed
        if surrogate.requires_grad and apply is not None:

            def transform(grad: Tensor) -> Tensor:
                estimated = apply(grad)
                before, after = norms(grad), norms(estimated)
                trusted = after <= self.max_growth * before  # false for NaN
                # a gradient that is not finite stays so, whatever is done with it
                record.fallbacks = ~trusted & torch.isfinite(before)
                return torch.where(trusted[:, None], estimated, grad)

            value = attach(value, surrogate, transform)
        return SolveResult(value, result.stats)


def _attach_steps(
    problem: Problem, residual_map: FlatMap, z: Tensor, solver: Solver, steps: int, damping: float
) -> SolveResult:
    with torch.no_grad():
        result = solver.solve(residual_map, z.detach())
    state = result.value.detach()
    for _ in range(steps):
        value = problem(state)
        finite = torch.isfinite(value.detach()).all(dim=1, keepdim=True)  # a sample that f is bad for stays where it is
        state = torch.where(finite, torch.lerp(state, value, damping), state)
    attached = attach(result.value, state) if state.requires_grad else result.value
    return SolveResult(attached, result.stats)
