"""Root solvers, by name."""

from qefpn.implicit.solvers.anderson import Anderson
from qefpn.implicit.solvers.base import SOLVERS, Solver
from qefpn.implicit.solvers.broyden import Broyden
from qefpn.implicit.solvers.iteration import FixedPointIteration, Unroll

__all__ = ["SOLVERS", "Anderson", "Broyden", "FixedPointIteration", "Solver", "Unroll"]
