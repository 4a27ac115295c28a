"""Solvers, residuals and adjoints from their configuration names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from qefpn.implicit.adjoints import ADJOINTS, Adjoint
from qefpn.implicit.residuals import RESIDUALS, Residual
from qefpn.implicit.solvers import SOLVERS, Solver
from qefpn.parts import described
from qefpn.registry import Registry
from qefpn.text import did_you_mean

T = TypeVar("T")


def build_solver(name: str, **options: Any) -> Solver:
    """The solver called ``name``: anderson, broyden, fixed_point or unroll.

    Raises:
        ValueError: unknown name, or a value out of range; the message lists what exists.
        TypeError: unknown option, or a value of the wrong type; the message lists the options.
    """
    return _build(SOLVERS, name, options)


def build_residual(name: str, **options: Any) -> Residual:
    """The residual called ``name``: equilibrium, quasi or literal. Raises as :func:`build_solver`."""
    return _build(RESIDUALS, name, options)


def build_adjoint(name: str, **options: Any) -> Adjoint:
    """The adjoint called ``name``: implicit, jacobian_free, phantom, shine or unrolled.

    The ``solver`` of ``implicit`` may be a mapping ``{"name": ..., **options}``. Raises as
    :func:`build_solver`.
    """
    solver = options.get("solver")
    if isinstance(solver, Mapping):
        options["solver"] = build_solver(**{str(key): value for key, value in solver.items()})
    return _build(ADJOINTS, name, options)


def describe(part: Solver | Residual | Adjoint) -> dict[str, Any] | None:
    """What makes ``part`` again, as plain values: its ``name`` and its options, as :func:`build_solver` and the like
    take them; for one that has no name, what :func:`qefpn.parts.described` says."""
    entries: list[Registry[Any]] = [SOLVERS, RESIDUALS, ADJOINTS]
    name = next((name for entry in entries if (name := entry.name_of(type(part))) is not None), None)
    if name is None:
        return described(part)
    options = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}  # type: ignore[arg-type]
    return {"name": name} | {
        key: describe(value) if isinstance(value, Solver) else value for key, value in options.items()
    }


def _build(registry: Registry[type[T]], name: str, options: dict[str, Any]) -> T:
    entry = registry.get(name)
    known = [field.name for field in dataclasses.fields(entry)]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known, " (did you mean {!r}?)")
            takes = f"it takes: {', '.join(known)}" if known else "it takes none"
            raise TypeError(f"{registry.kind} {name!r} has no option {option!r}{hint}; {takes}")
    return entry(**options)
