"""Root solvers, by name."""

from qefpn.implicit.solvers.anderson import Anderson
from qefpn.implicit.solvers.base import SOLVERS, Solver, SolveResult
from qefpn.implicit.solvers.broyden import Broyden
from qefpn.implicit.solvers.fixed_point import FixedPointIteration
from qefpn.implicit.solvers.unroll import Unroll

__all__ = ["SOLVERS", "Anderson", "Broyden", "FixedPointIteration", "SolveResult", "Solver", "Unroll"]
