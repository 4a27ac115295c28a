"""The forward solve's own inverse estimate, reused for the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qefpn.implicit.adjoints.base import ADJOINTS, Adjoint, attach
from qefpn.implicit.problem import FlatMap, Problem
from qefpn.implicit.solvers.base import Solver, SolveResult
from qefpn.implicit.solvers.broyden import Broyden
from qefpn.implicit.stats import BackwardRecord


@ADJOINTS.register("shine")
@dataclass(frozen=True)
class ShineAdjoint(Adjoint):
    """Eq. 6 with (I − J)⁻ᵀ replaced by the transpose of what the forward Broyden solve has learnt of it
    (Ramzi et al., SHINE: SHaring the INverse Estimate, ICLR 2022): no backward solve, one vector-Jacobian
    product. The solver's store stays in memory until backward. Needs ``Broyden`` as the forward solver."""

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
        if surrogate.requires_grad:
            value = attach(value, surrogate, result.apply_transposed)
        return SolveResult(value, result.stats)
