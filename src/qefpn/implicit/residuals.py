"""What is solved: residuals g(z), each written as a map F with g(z) = F(z) − z."""

from __future__ import annotations

import functools
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from qefpn.implicit.checks import check_count, check_number
from qefpn.implicit.masks import Drops
from qefpn.implicit.problem import FlatMap, Problem
from qefpn.implicit.torch_private import products_are_exact
from qefpn.registry import Registry

_FEW = 4
"""Drops of a sample, up to which a difference of f_theta is as good as its derivative: the more of a state is dropped,
the more ReLUs turn on the way. Measured on states of 3e3 to 3e5 elements: 9e-5 of ‖F‖ with 4, up to 6e-4 with 20."""

RESIDUALS: Registry[type[Residual]] = Registry("residual")


class Residual(ABC):
    """A residual function, chosen by name."""

    @abstractmethod
    def bind(self, problem: Problem, z: Tensor, keys: Tensor | None) -> FlatMap:
        """The map F of one solve, with its mask drawn.

        Args:
            problem: f on flat states.
            z: (B, N), any state of the solve: its shape and device count, not its values.
            keys: (B,) integers that seed the masks, or None.
        """


@RESIDUALS.register("equilibrium")
@dataclass(frozen=True)
class Equilibrium(Residual):
    """g(z) = f(z) − z (Eq. 3)."""

    def bind(self, problem: Problem, z: Tensor, keys: Tensor | None) -> FlatMap:
        return problem


@dataclass(frozen=True)
class _Masked(Residual):
    p: float = 5e-7
    seed: int = 0

    def __post_init__(self) -> None:
        check_number(type(self).__name__, "p", self.p, low=0.0, high=1.0)
        check_count(type(self).__name__, "seed", self.seed, least=-(1 << 63))

    def _drops(self, problem: Problem, z: Tensor, keys: Tensor | None) -> Drops:
        return Drops.draw(z, problem.layout, self.p, self.seed, keys)


@RESIDUALS.register("quasi")
@dataclass(frozen=True)
class QuasiEquilibrium(_Masked):
    """g(z) = f(ẑ) + J_f(ẑ)(z − ẑ) − z with ẑ = z·mask: Eq. 9 put into Eq. 3.

    One mask a solve, without 1/(1 − p) rescaling. The Jacobian-vector product is taken on the samples that
    have a drop, with ``args`` sub-selected; on the whole batch where no argument is batch-first, since f then
    closes over its injection. A batch without a drop costs and computes exactly what ``Equilibrium`` does.

    With ``difference`` = h the product is (f(ẑ + hv) − f(ẑ))/h, both points in one batch: two evaluations a sample with
    a drop, where a forward derivative costs more than three. At h = 2⁻⁸ they agree within 1e-4 of ‖F‖ as long as no
    sample has more than four drops. With more of them, in another type than float32, under autograd, in a compiler, and
    where the process lets products be less than float32, the derivative is exact all the same.

    Args:
        p: probability in [0, 1] that an element is dropped.
        seed: seeds the masks, together with the key of each sample.
        difference: h in (0, 1]. 0: always the exact derivative, which tolerances below 1e-4 need, states of a few
            elements, and an f that is itself less precise than float32. None: as whoever solves has it: exact, and 2⁻⁸
            in the network's pyramid.
    """

    difference: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.difference is not None:
            check_number(type(self).__name__, "difference", self.difference, low=0.0, high=1.0)

    def bind(self, problem: Problem, z: Tensor, keys: Tensor | None) -> FlatMap:
        drops = self._drops(problem, z, keys)
        if drops.rows.numel() == 0:
            return problem
        near = drops.most <= _FEW and problem.f_dtype == torch.float32 and products_are_exact(z.device)
        exact = functools.cache(lambda: self._map(problem, drops, None))
        if not self.difference or not near:
            return exact()
        difference = self._map(problem, drops, self.difference)
        return lambda z: exact()(z) if torch.is_grad_enabled() else difference(z)

    @staticmethod
    def _map(problem: Problem, drops: Drops, step: float | None) -> FlatMap:
        """F, with the exact derivative or by differences of ``step``."""

        def with_drops(drops: Drops, args: tuple[object, ...] | None) -> FlatMap:
            if step is None:
                return lambda z: drops.linearised(problem, z, args)
            return lambda z: drops.by_difference(problem, z, args, step)

        batch = drops.batch
        if drops.rows.numel() == batch or not problem.can_subselect(batch):
            return with_drops(drops.whole(), None)
        twice = drops.rows if step is None else drops.rows.repeat(2)
        linear = with_drops(drops, problem.subselect(twice, batch))
        others = drops.other_rows()
        other_args = problem.subselect(others, batch)
        back = torch.argsort(torch.cat([others, drops.rows]))

        def quasi(z: Tensor) -> Tensor:
            plain = problem(z.index_select(0, others), other_args)
            return torch.cat([plain, linear(z.index_select(0, drops.rows))]).index_select(0, back)

        return quasi


@RESIDUALS.register("literal")
@dataclass(frozen=True)
class LiteralQuasiEquilibrium(_Masked):
    """Equation 10 as printed: g(z) = f(z) − f(ẑ) − J_f(ẑ)(z − ẑ). For research only.

    It is zero at z = 0, where the solver starts, and everywhere when no element is dropped, so a solve stops
    where it starts. A warning says so.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._warn(4)  # above the dataclass's own __init__: who made it

    @staticmethod
    def _warn(stacklevel: int) -> None:
        warnings.warn(
            "the literal residual (Eq. 10 as printed) is zero at z = 0 and wherever no element is "
            "dropped: its solve stops where it starts; 'quasi' is what the paper's text describes",
            UserWarning,
            stacklevel=stacklevel,
        )

    def bind(self, problem: Problem, z: Tensor, keys: Tensor | None) -> FlatMap:
        self._warn(3)
        drops = self._drops(problem, z, keys)
        batch = z.shape[0]
        if drops.rows.numel() == 0:
            return torch.clone
        if not problem.can_subselect(batch):
            whole = drops.whole()
            return lambda z: z + problem(z) - whole.linearised(problem, z, None)
        args = problem.subselect(drops.rows, batch)

        def literal(z: Tensor) -> Tensor:
            part = z.index_select(0, drops.rows)
            value = part + problem(part, args) - drops.linearised(problem, part, args)
            return z.index_copy(0, drops.rows, value)

        return literal
