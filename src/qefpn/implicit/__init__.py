"""Fixed points of a map, one a sample, with gradients: residuals, solvers, adjoints and statistics.

    from qefpn.implicit import Broyden, QuasiEquilibrium, fixed_point

    solution = fixed_point(f, z0, (x,), solver=Broyden(max_steps=12), residual=QuasiEquilibrium(p=1e-4))
    solution.value, solution.stats.relative_residual

The three axes are independent: any residual with any solver with any adjoint (``UnrolledAdjoint`` needs a
plain iteration, ``ShineAdjoint`` needs Broyden). Plain torch; nothing here knows of images.
"""

from qefpn.implicit.adjoints import (
    Adjoint,
    ImplicitAdjoint,
    JacobianFreeAdjoint,
    PhantomAdjoint,
    ShineAdjoint,
    UnrolledAdjoint,
)
from qefpn.implicit.api import fixed_point
from qefpn.implicit.build import build_adjoint, build_residual, build_solver, describe
from qefpn.implicit.regularization import fixed_point_correction, jacobian_regularization
from qefpn.implicit.residuals import Equilibrium, LiteralQuasiEquilibrium, QuasiEquilibrium, Residual
from qefpn.implicit.solvers import Anderson, Broyden, FixedPointIteration, Solver, Unroll
from qefpn.implicit.spectrum import spectral_radius
from qefpn.implicit.stats import Code, Solution, SolveStats

__all__ = [
    "Adjoint",
    "Anderson",
    "Broyden",
    "Code",
    "Equilibrium",
    "FixedPointIteration",
    "ImplicitAdjoint",
    "JacobianFreeAdjoint",
    "LiteralQuasiEquilibrium",
    "PhantomAdjoint",
    "QuasiEquilibrium",
    "Residual",
    "ShineAdjoint",
    "Solution",
    "SolveStats",
    "Solver",
    "Unroll",
    "UnrolledAdjoint",
    "build_adjoint",
    "build_residual",
    "build_solver",
    "describe",
    "fixed_point",
    "fixed_point_correction",
    "jacobian_regularization",
    "spectral_radius",
]
