"""Adjoints, by name."""

from qefpn.implicit.adjoints.base import ADJOINTS, Adjoint
from qefpn.implicit.adjoints.implicit import ImplicitAdjoint, ShineAdjoint
from qefpn.implicit.adjoints.steps import JacobianFreeAdjoint, PhantomAdjoint, UnrolledAdjoint

__all__ = [
    "ADJOINTS",
    "Adjoint",
    "ImplicitAdjoint",
    "JacobianFreeAdjoint",
    "PhantomAdjoint",
    "ShineAdjoint",
    "UnrolledAdjoint",
]
