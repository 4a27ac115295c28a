"""What is solved: residuals g(z), each written as a map F with g(z) = F(z) − z."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from qefpn.implicit.checks import check_count, check_number
from qefpn.implicit.masks import Drops
from qefpn.implicit.problem import FlatMap, Problem
from qefpn.registry import Registry

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

    Args:
        p: probability in [0, 1] that an element is dropped.
        seed: seeds the masks, together with the key of each sample.
    """

    def bind(self, problem: Problem, z: Tensor, keys: Tensor | None) -> FlatMap:
        drops = self._drops(problem, z, keys)
        if drops.rows.numel() == 0:
            return problem
        batch = z.shape[0]
        if drops.rows.numel() == batch or not problem.can_subselect(batch):
            whole = drops.whole()
            return lambda z: whole.linearised(problem, z, None)
        args = problem.subselect(drops.rows, batch)
        others = drops.other_rows()
        other_args = problem.subselect(others, batch)
        back = torch.argsort(torch.cat([others, drops.rows]))

        def quasi(z: Tensor) -> Tensor:
            plain = problem(z.index_select(0, others), other_args)
            linear = drops.linearised(problem, z.index_select(0, drops.rows), args)
            return torch.cat([plain, linear]).index_select(0, back)

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
