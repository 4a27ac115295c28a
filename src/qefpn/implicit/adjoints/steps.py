"""Autograd through evaluations of f: all of the solve's, or a few at the fixed point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qefpn.implicit.adjoints.base import ADJOINTS, Adjoint, Call, attach
from qefpn.implicit.checks import check_count, check_flag, check_number
from qefpn.implicit.driver import solve
from qefpn.implicit.solvers import Solver
from qefpn.implicit.stats import SolveStats


@ADJOINTS.register("unrolled")
@dataclass(frozen=True)
class UnrolledAdjoint(Adjoint):
    """Autograd through every iteration from z0, which gets a gradient too. Memory grows with the steps.

    Needs a solver that is a plain iteration: ``Unroll`` or ``FixedPointIteration``. Second derivatives work.

    Args:
        checkpoint: keep only the states and evaluate f again in backward.
    """

    checkpoint: bool = False

    def __post_init__(self) -> None:
        check_flag("UnrolledAdjoint", "checkpoint", self.checkpoint)

    def check(self, solver: Solver) -> None:
        if not solver.unrolls:
            raise ValueError(
                "UnrolledAdjoint needs a solver that autograd can run through, Unroll or "
                f"FixedPointIteration, got {type(solver).__name__}; or take ImplicitAdjoint"
            )

    def run(self, call: Call) -> tuple[Tensor, SolveStats]:
        def recomputed(state: Tensor) -> Tensor:
            value: Any = checkpoint(call.f, state, use_reentrant=False)
            assert isinstance(value, Tensor)
            return value

        result = solve(call.solver, recomputed if self.checkpoint else call.f, call.z)
        return result.value, result.stats


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

    def run(self, call: Call) -> tuple[Tensor, SolveStats]:
        result = call.solve()
        state = result.value
        for _ in range(self.steps):
            value = call.problem(state)
            finite = torch.isfinite(value.detach()).all(dim=1, keepdim=True)  # where f is bad a sample stays
            state = torch.where(finite, torch.lerp(state, value, self.damping), state)
        return attach(result.value, state) if state.requires_grad else result.value, result.stats


@ADJOINTS.register("jacobian_free")
@dataclass(frozen=True)
class JacobianFreeAdjoint(Adjoint):
    """Eq. 6 with the inverse Jacobian replaced by the identity: autograd through one f at z*
    (Fung et al., JFB: Jacobian-Free Backpropagation for Implicit Networks, AAAI 2022)."""

    def run(self, call: Call) -> tuple[Tensor, SolveStats]:
        return PhantomAdjoint(steps=1, damping=1.0).run(call)
