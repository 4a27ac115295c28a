"""The one entry point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qefpn.implicit.adjoints import Adjoint, ImplicitAdjoint, UnrolledAdjoint
from qefpn.implicit.adjoints.base import Call
from qefpn.implicit.checks import check_count
from qefpn.implicit.driver import solve
from qefpn.implicit.layout import State
from qefpn.implicit.problem import FlatMap, Problem, flat_problem
from qefpn.implicit.residuals import Equilibrium, Residual
from qefpn.implicit.solvers import Broyden, Solver, Unroll
from qefpn.implicit.stats import BackwardRecord, Solution
from qefpn.implicit.torch_private import shares_memory

_BROYDEN, _EQUILIBRIUM = Broyden(), Equilibrium()


def fixed_point(
    f: Callable[..., Any],
    z0: State,
    args: tuple[Any, ...] = (),
    *,
    solver: Solver = _BROYDEN,
    residual: Residual = _EQUILIBRIUM,
    adjoint: Adjoint | None = None,
    keys: Tensor | None = None,
    raise_nonfinite: bool = False,
    intermediate: Sequence[int] = (),
    compact: bool = False,
) -> Solution:
    """Solve ``f(z, *args) = z``, one fixed point a sample, differentiably.

    Gradients reach ``args`` and whatever f closes over. The solve runs in float32 (in float64 for a float64
    z0), with autocast disabled: under autocast, half-precision z0 and args are widened; without it f is
    called in z0's own type. Not converging is no error: see ``Solution.stats``.

    Args:
        f: maps a state (B, ...) or a tuple of such, and ``args``, to a state of the same shapes. Samples must
            not depend on each other.
        z0: the starting point. It gets no gradient, except under ``UnrolledAdjoint``.
        args: passed on to f. A tensor whose first axis is as long as the batch counts as batch-first: the
            quasi residual calls f on a part of the batch with the same part of such arguments. Put there
            everything that has a batch axis, or nothing.
        solver: the forward solver; the default is ``Broyden()``.
        residual: what is solved; the default is ``Equilibrium()``.
        adjoint: how gradients are computed. None: ``UnrolledAdjoint`` for ``Unroll``, else
            ``ImplicitAdjoint``.
        keys: int64 (B,), one a sample, that seed the masks of ``quasi`` and ``literal``: the same key with
            the same ``residual.seed`` gives the same mask, whatever the batch. None: derived from
            ``residual.seed``, one draw from torch's default generator and the sample's position.
        raise_nonfinite: raise ``FloatingPointError`` when f gave a NaN or an infinity for some sample.
            Otherwise that sample keeps its best iterate and ``stats.finite`` says so.
        intermediate: numbers ≥ 0 of iterates to hand out in ``Solution.intermediate``, for
            :func:`qefpn.implicit.fixed_point_correction`; each costs an evaluation of f with its graph. Iterate 0 is
            z0, iterate k is where evaluation k + 1 took place.
        compact: samples that have stopped leave the batch that f is called on (not with ``quasi`` or ``literal`` where
            something is dropped). For that everything with a batch axis that f reads must be among ``args``.

    Returns:
        A :class:`Solution`.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: f changes the shape or the device of the state; ``keys`` do not match the batch; an
            adjoint that cannot work with the solver.
    """
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a Solver, got {solver!r}")
    if not isinstance(residual, Residual):
        raise TypeError(f"residual must be a Residual, got {residual!r}")
    if adjoint is None:
        adjoint = UnrolledAdjoint() if isinstance(solver, Unroll) else ImplicitAdjoint()
    elif not isinstance(adjoint, Adjoint):
        raise TypeError(f"adjoint must be an Adjoint or None, got {adjoint!r}")
    adjoint.check(solver)
    problem, z = flat_problem(f, z0, args)
    layout = problem.layout
    first = z0[0] if isinstance(z0, (tuple, list)) else z0
    _check_keys(keys, first.shape[0])
    wanted = _checked_numbers(intermediate)

    record = BackwardRecord()
    with torch.autocast(first.device.type, enabled=False):
        residual_map = residual.bind(problem, z, keys)
        visits = _Visits(residual_map, wanted) if wanted else None
        residual_map = residual_map if visits is None else visits
        if torch.is_grad_enabled():
            value, stats = adjoint.run(Call(problem, residual_map, z, solver, record, compact))
        else:
            result = solve(solver, residual_map, z, compact=compact)
            value, stats = result.value, result.stats
        if shares_memory(value, z):  # the starting point: never hand out the caller's memory
            value = value.clone()
        if raise_nonfinite and not bool(stats.finite.all()):
            samples = (~stats.finite).nonzero().flatten().tolist()
            raise FloatingPointError(f"f gave a NaN or an infinity for the samples {samples}")
        states = () if visits is None else visits.states(problem, first.dtype)
        return Solution(layout.unflatten(value.to(first.dtype)), stats, record, states)


class _Visits:
    """A map that keeps the points of some of its evaluations."""

    def __init__(self, f: FlatMap, wanted: frozenset[int]) -> None:
        self.f, self.wanted = f, wanted
        self.kept: list[Tensor] = []
        self.count = 0

    def __call__(self, z: Tensor) -> Tensor:
        if self.count in self.wanted:
            self.kept.append(z.detach().clone())
        self.count += 1
        return self.f(z)

    def states(self, problem: Problem, dtype: torch.dtype) -> tuple[State, ...]:
        """f at each point, with its graph where grad is enabled: a step further, and a gradient of one step."""
        return tuple(problem.layout.unflatten(problem(z).to(dtype)) for z in self.kept)


def _checked_numbers(intermediate: Sequence[int]) -> frozenset[int]:
    for number in intermediate:
        check_count("fixed_point", "intermediate", number, least=0)
    return frozenset(intermediate)


def _check_keys(keys: Tensor | None, batch: int) -> None:
    if keys is None:
        return
    if not isinstance(keys, Tensor) or keys.dtype.is_floating_point or keys.dtype == torch.bool:
        raise TypeError("keys must be a tensor of integers")
    if keys.shape != (batch,):
        raise ValueError(f"keys must hold one integer a sample, ({batch},), got {tuple(keys.shape)}")
