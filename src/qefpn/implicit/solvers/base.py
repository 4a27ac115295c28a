"""What a solver is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from qefpn.implicit.checks import check_count, check_number
from qefpn.implicit.driver import norms
from qefpn.registry import Registry

SOLVERS: Registry[type[Solver]] = Registry("solver")


@dataclass(frozen=True)
class Solver(ABC):
    """Settings of a root solver: a plain record, without state of its own. :func:`qefpn.implicit.driver.solve` is the
    loop that calls its methods, with F the map whose fixed point is looked for and g(z) = F(z) − z.

    Args:
        max_steps: updates of the iterate, at most (≥ 1).
        rtol: a sample stops where ‖g(z)‖ ≤ atol + rtol·‖F(z)‖.
        atol: see ``rtol``. With both 0 every step is taken.
    """

    max_steps: int = 27
    rtol: float = 1e-3
    atol: float = 0.0

    latest: ClassVar[bool] = False
    """Whether the last iterate is the answer, moved to without an evaluation there, and not the best one."""
    unrolls: ClassVar[bool] = False
    """Whether autograd may run through the steps, for :class:`qefpn.implicit.UnrolledAdjoint`."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_count(name, "max_steps", self.max_steps)
        check_number(name, "rtol", self.rtol, low=0.0)
        check_number(name, "atol", self.atol, low=0.0)

    def init(self, z: Tensor) -> Any:  # noqa: B027  (a plain iteration remembers nothing)
        """What one solve from ``z`` (B, N) remembers between its steps; handed to the methods below."""

    def measure(self, state: Any, z: Tensor, value: Tensor, final: bool) -> Tensor:
        """‖g(z)‖ (B,), where ``value`` is F(z). Called after each evaluation; ``final``: no step follows."""
        return norms(value - z)

    @abstractmethod
    def step(self, state: Any, z: Tensor, value: Tensor, settled: Tensor) -> Tensor:
        """The next iterate (B, N).

        Args:
            state: of this solve.
            z: (B, N), the iterate.
            value: (B, N), F(z). A sample may hold NaN: no other may learn of it.
            settled: (B,) bool, the samples that had stopped before this evaluation: they do not move.
        """

    def terminate(self, score: Tensor) -> Tensor:
        """(B,) bool, what has converged; ``score`` is ‖g‖/‖F‖, with an ``atol`` ‖g‖/(atol + rtol·‖F‖)."""
        return score <= (self.rtol if self.atol == 0 else 1.0)
