"""What each step of a trained network's solve is worth, and the budgets that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qefpn.analysis.states import injection_of
from qefpn.implicit import Solver
from qefpn.inference.predictor import to_maps
from qefpn.metrics import SaliencyMetrics
from qefpn.models import QEFPN
from qefpn.models.pyramid import ImplicitPyramid

Batch = tuple[Tensor, Sequence[np.ndarray]]
"""uint8 images (B, 3, side, side), and the mask (H, W) of each at the picture's own size, 0 to 255."""

ALLOWED: Mapping[str, Mapping[str, float]] = {
    "balanced": {"max_f": 0.002, "weighted_f": 0.003, "mae": 0.0015},
    "fast": {"max_f": 0.01, "weighted_f": 0.01, "mae": 0.005},
}
"""What a budget may lose at most."""
TOLERANCES = (0.3, 0.1, 0.03, 0.01, 0.003)


@dataclass(frozen=True)
class Trial:
    """A network's quality with some solver.

    Attributes:
        max_steps, rtol: the solver's.
        evaluations: of f_theta, mean a picture.
        max_f, weighted_f, mae: of the set.
    """

    max_steps: int
    rtol: float
    evaluations: float
    max_f: float
    weighted_f: float
    mae: float

    def within(self, exact: Trial, allowed: Mapping[str, float]) -> bool:
        """Whether it loses no more than ``allowed`` against ``exact``."""
        return (
            self.max_f >= exact.max_f - allowed["max_f"]
            and self.weighted_f >= exact.weighted_f - allowed["weighted_f"]
            and self.mae <= exact.mae + allowed["mae"]
        )


def ladder(most: int) -> list[int]:
    """Numbers of steps below ``most``, and ``most``: 1, 2, 3, 4, 6, 8, 12, ..."""
    steps = [1] + [base * 2**power for power in range(most.bit_length()) for base in (2, 3)]
    return sorted({step for step in steps if step < most} | {most})


@torch.no_grad()
def measure(network: QEFPN, batches: Iterable[Batch], solvers: Sequence[Solver], protocol: str) -> list[Trial]:
    """The network's scores on pictures, with each of ``solvers`` in turn; what comes before the solve is done once.

    Raises:
        TypeError: the network has no implicit pyramid.
    """
    pyramid = network.pyramid
    if not isinstance(pyramid, ImplicitPyramid):
        raise TypeError("a network with an implicit pyramid is needed")
    own, device = pyramid.solver, next(network.parameters()).device
    scorers = [SaliencyMetrics(protocol=protocol) for _ in solvers]
    evaluations: list[list[float]] = [[] for _ in solvers]
    try:
        for images, masks in batches:
            injection = injection_of(network, images.to(device))
            for solver, scorer, counted in zip(solvers, scorers, evaluations, strict=True):
                pyramid.solver = solver
                state, solution = pyramid(injection)
                assert solution is not None
                counted += solution.stats.evaluations.tolist()
                logits = network.decoded(state, images.shape[-2:])[0]
                scorer.update(to_maps(logits, [mask.shape for mask in masks]), list(masks))
    finally:
        pyramid.solver = own
    found = [scorer.compute() for scorer in scorers]
    return [
        Trial(
            solver.max_steps,
            solver.rtol,
            float(np.mean(counted)),
            *(float(figures[name]) for name in ("max_f", "weighted_f", "mae")),
        )
        for solver, counted, figures in zip(solvers, evaluations, found, strict=True)
    ]


@dataclass(frozen=True)
class Chosen:
    """The trials by steps at the solver's own tolerance, by budget those at its steps, and the budgets' own."""

    exact: Trial
    by_steps: list[Trial]
    by_tolerance: dict[str, list[Trial]]
    budgets: dict[str, Trial]


def choose_budgets(network: QEFPN, batches: Callable[[], Iterator[Batch]], protocol: str) -> Chosen:
    """For each budget the fewest steps, and then the loosest tolerance, that lose no more than :data:`ALLOWED`.

    Args:
        batches: gives the same held-out pictures each time; they are gone through twice.
    """
    pyramid = network.pyramid
    assert isinstance(pyramid, ImplicitPyramid)
    solver = pyramid.solver
    by_steps = measure(network, batches(), [replace(solver, max_steps=k) for k in ladder(solver.max_steps)], protocol)
    exact = by_steps[-1]
    fewest = {
        name: next(trial for trial in by_steps if trial.within(exact, allowed)) for name, allowed in ALLOWED.items()
    }
    looser = [rtol for rtol in TOLERANCES if rtol > solver.rtol]
    solvers = {
        name: [replace(solver, max_steps=trial.max_steps, rtol=rtol) for rtol in looser]
        for name, trial in fewest.items()
    }
    trials = iter(measure(network, batches(), [one for several in solvers.values() for one in several], protocol))
    by_tolerance = {name: [next(trials) for _ in several] for name, several in solvers.items()}
    budgets = {
        name: min(
            (trial for trial in [*by_tolerance[name], fewest[name]] if trial.within(exact, ALLOWED[name])),
            key=lambda trial: (trial.evaluations, trial.rtol),
        )
        for name in ALLOWED
    }
    return Chosen(exact, by_steps, by_tolerance, budgets)
