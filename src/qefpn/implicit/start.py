"""Where a solve starts: at zero, or where the last one ended."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qefpn.implicit.layout import State, StateLayout
from qefpn.implicit.stats import Solution


class LastSolution:
    """The last solution as a starting point, for the frames of a video or steps on slowly changing inputs.

    It is handed out only for a state of the very shapes (batch included), types and devices of the one that was
    kept; otherwise, and for each sample whose solution was not finite, the start is zero. What is kept carries no
    graph, and neither copies nor pickles of this object hold it.

    Example:
        >>> from qefpn.implicit import fixed_point
        >>> last = LastSolution()
        >>> for x in (torch.ones(2, 3), torch.ones(2, 3)):
        ...     solution = fixed_point(lambda z, x: 0.5 * z + x, last.start(torch.zeros_like(x)), (x,))
        ...     last.keep(solution)
        ...     print(solution.stats.steps.tolist())
        [2, 2]
        [0, 0]
    """

    def __init__(self) -> None:
        self._layout: StateLayout | None = None
        self._kept: Tensor | None = None

    def start(self, zero: State) -> State:
        """The starting point of a solve whose state is like ``zero``; ``zero`` itself where nothing fits."""
        kept, layout = self._kept, StateLayout.of(zero)
        first = zero[0] if isinstance(zero, (tuple, list)) else zero
        if kept is None or layout != self._layout:
            return zero
        if (kept.shape[0], kept.dtype, kept.device) != (first.shape[0], first.dtype, first.device):
            return zero
        return layout.unflatten(kept)

    def keep(self, solution: Solution) -> None:
        """Remember ``solution`` in place of the former one."""
        value = solution.value
        state: Any = tuple(part.detach() for part in value) if isinstance(value, tuple) else value.detach()
        self._layout = StateLayout.of(state)
        flat = self._layout.flatten(state)
        usable = torch.isfinite(solution.stats.relative_residual) & torch.isfinite(flat).all(dim=1)
        self._kept = torch.where(usable[:, None], flat, 0.0)

    def forget(self) -> None:
        """Start the next solve from zero."""
        self._layout = self._kept = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_layout": None, "_kept": None}
