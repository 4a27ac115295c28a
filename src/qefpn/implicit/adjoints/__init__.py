"""Adjoints, by name."""

from qefpn.implicit.adjoints.approximate import JacobianFreeAdjoint, PhantomAdjoint, ShineAdjoint
from qefpn.implicit.adjoints.base import ADJOINTS, Adjoint
from qefpn.implicit.adjoints.implicit import ImplicitAdjoint
from qefpn.implicit.adjoints.unrolled import UnrolledAdjoint

__all__ = [
    "ADJOINTS",
    "Adjoint",
    "ImplicitAdjoint",
    "JacobianFreeAdjoint",
    "PhantomAdjoint",
    "ShineAdjoint",
    "UnrolledAdjoint",
]
