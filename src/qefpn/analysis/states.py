"""What f_theta does at depth and at convergence: the measurements behind the paper's Fig. 2 and Fig. 7.

Everything works a batch at a time and keeps figures only: three states in :func:`trace_depth`, two in
:func:`solve_batch`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qefpn.errors import UserError
from qefpn.implicit import Residual, Solver, build_residual, build_solver, fixed_point
from qefpn.implicit.masks import draw_drops
from qefpn.implicit.torch_private import accumulation_dtype
from qefpn.models import QEFPN
from qefpn.models.pyramid import ImplicitPyramid
from qefpn.models.transformation import Transformation

Array = npt.NDArray[np.float64]
State = tuple[Tensor, ...]
Layer = Callable[..., State]
"""f(z, *x): a state and its injections, a tensor (B, C, H, W) a level, to the next state."""

FLOOR = 1e-12
"""Differences below this share of the state, exact zeros among them, count as this much in geometric means."""
CURVES = ("state", "moved", "first", "second")
"""What is measured along the layers: see :class:`DepthTrace`."""
LOOK_EVERY = 64
"""Layers between two looks at whether anything still moves: each look waits for the device."""


def layer_of(network: QEFPN, block_dtype: str | None = None) -> Transformation:
    """f_theta of a network.

    Args:
        block_dtype: "float32" or "bfloat16" for its wide convolutions from now on; None leaves them as they are.

    Raises:
        UserError: the network has none (``pyramid=none``), or another ``block_dtype``.
    """
    if block_dtype not in (None, "float32", "bfloat16"):
        raise UserError(f"block_dtype must be float32, bfloat16 or null, not {block_dtype!r}")
    if not isinstance(network.pyramid, ImplicitPyramid):
        raise UserError("the network has pyramid=none: there is no f_theta to analyze")
    layer = network.pyramid.transformation
    if block_dtype is not None:
        for block in layer.blocks:
            block.half_precision = block_dtype == "bfloat16"  # type: ignore[assignment]
    return layer


@torch.no_grad()
def injection_of(network: QEFPN, images: Tensor) -> State:
    """What a network's pyramid gets for images (B, 3, H, W): the fused features, float32, a level each."""
    captured: list[State] = []
    handle = network.pyramid.register_forward_pre_hook(lambda _, args: captured.append(args[0]))
    try:
        network.run(images, unroll=1)
    finally:
        handle.remove()
    return tuple(x.float() for x in captured[0])


def zero_state(injection: State) -> State:
    """z₀ = 0 (Eq. 3)."""
    return tuple(torch.zeros_like(x) for x in injection)


def norms(state: Sequence[Tensor]) -> Tensor:
    """2-norms (B,) over all levels, summed in float64 where the device has it."""
    squares = [torch.linalg.vector_norm(x, dim=(1, 2, 3), dtype=accumulation_dtype(x.device)).square() for x in state]
    return torch.stack(squares).sum(dim=0).sqrt()


def _minus(a: State, b: State) -> State:
    return tuple(x - y for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------------------------------------- depth (Fig. 2)


@dataclass(frozen=True)
class DepthTrace:
    """Norms along the layers, (layers, B) each; row 0 belongs to z₁, and z₀ = 0.

    Attributes:
        state: ‖zᵢ‖. A group norm at the end of f all but fixes it, so it says little by itself.
        moved: ‖zᵢ − z₁‖, how far the state has come.
        first: ‖zᵢ − zᵢ₋₁‖.
        second: ‖(zᵢ − zᵢ₋₁) − (zᵢ₋₁ − zᵢ₋₂)‖; NaN at z₁, which has none.
    """

    state: Array
    moved: Array
    first: Array
    second: Array

    def relative(self) -> dict[str, Array]:
        """As shares: the state of the last one, all else of the state of its own layer."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "state": self.state / self.state[-1],
                "moved": self.moved / self.state,
                "first": self.first / self.state,
                "second": self.second / self.state,
            }


@torch.no_grad()
def trace_depth(f: Layer, injection: State, layers: int, on_layers: Callable[[int], None] | None = None) -> DepthTrace:
    """Apply f ``layers`` times from z₀ = 0, and measure every state and its differences.

    Where every picture's state repeats itself exactly, so do all later ones, which are then filled in.

    Args:
        on_layers: called with the number of layers done since the last call.
    """
    batch, device = injection[0].shape[0], injection[0].device
    values = torch.full((layers, 4, batch), torch.nan, dtype=accumulation_dtype(device), device=device)
    z, start, before = zero_state(injection), None, None
    reported = 0
    for index in range(layers):
        after = f(z, *injection)
        change = _minus(after, z)
        start = after if start is None else start
        values[index, 0], values[index, 1], values[index, 2] = norms(after), norms(_minus(after, start)), norms(change)
        if before is not None:
            values[index, 3] = norms(_minus(change, before))
        z, before = after, change
        if (index + 1) % LOOK_EVERY == 0 or index + 1 == layers:
            if on_layers is not None:
                on_layers(index + 1 - reported)
            reported = index + 1
            last = values[index, 2]
            if bool(((last == 0) | ~torch.isfinite(last)).all()):
                values[index + 1 :, :2] = values[index, :2]
                values[index + 1 :, 2:] = last
                break
    if on_layers is not None and reported < layers:
        on_layers(layers - reported)
    return DepthTrace(*values.double().cpu().numpy().transpose(1, 0, 2))


@dataclass
class DepthSummary:
    """Figures of any number of pictures: a row a picture, statistics a layer, and the curves of the first few.

    Attributes:
        layers: of every trace.
        threshold: below which a relative difference counts as small.
        keep: pictures whose curves are kept.
        pictures: added so far.
        kept: relative curves (``CURVES``, (layers,) each) of the first ``keep`` pictures.
    """

    layers: int
    threshold: float
    keep: int = 8
    pictures: int = 0
    kept: list[dict[str, Array]] = field(default_factory=list)
    _sums: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in CURVES:
            self._sums[f"{name}_count"] = np.zeros(self.layers)
            self._sums[f"{name}_log"] = np.zeros(self.layers)
            self._sums[f"{name}_min"] = np.full(self.layers, np.inf)
            self._sums[f"{name}_max"] = np.full(self.layers, -np.inf)
            self._sums[f"{name}_below"] = np.zeros(self.layers)

    def add(self, trace: DepthTrace) -> list[dict[str, float | int | None]]:
        """Enter a batch; a row a picture: see :meth:`_row`."""
        relative = trace.relative()
        for name, values in relative.items():
            finite = np.isfinite(values)
            sums = self._sums
            sums[f"{name}_count"] += finite.sum(axis=1)
            logs = np.log(np.maximum(np.where(finite, values, 1.0), FLOOR))
            sums[f"{name}_log"] += np.where(finite, logs, 0.0).sum(axis=1)
            low, high = np.where(finite, values, np.inf), np.where(finite, values, -np.inf)
            sums[f"{name}_min"] = np.minimum(sums[f"{name}_min"], low.min(axis=1))
            sums[f"{name}_max"] = np.maximum(sums[f"{name}_max"], high.max(axis=1))
            sums[f"{name}_below"] += (low < self.threshold).sum(axis=1)
        count = trace.state.shape[1]
        self.pictures += count
        for column in range(min(count, self.keep - len(self.kept))):
            self.kept.append({name: values[:, column].copy() for name, values in relative.items()})
        return [self._row(trace, relative, column) for column in range(count)]

    def _row(self, trace: DepthTrace, relative: Mapping[str, Array], column: int) -> dict[str, float | int | None]:
        """Figures of one picture. Shares are of the layers from the second on, which have both differences;
        ``settled`` is the layer from which on the first difference stays below the threshold; ``ratio`` the
        median of second over first in the deeper half: 0 for a state that moves along a line, √3 for
        uncorrelated noise, 2 for one that swings between two values."""
        first, second = relative["first"][:, column], relative["second"][:, column]
        with np.errstate(invalid="ignore"):
            below_first, below_second = first < self.threshold, second < self.threshold
        above = np.flatnonzero(~below_first)
        settled = 1 if above.size == 0 else int(above[-1]) + 2
        deep = slice(self.layers // 2, None)
        moving = trace.first[deep, column] > 0
        ratios = trace.second[deep, column][moving] / trace.first[deep, column][moving]
        ratios = ratios[np.isfinite(ratios)]
        return {
            "norm": float(trace.state[-1, column]),
            "last_first": float(first[-1]),
            "last_second": float(second[-1]),
            "share_first": float(below_first[1:].mean()),
            "share_second": float(below_second[1:].mean()),
            "settled": settled if settled <= self.layers else None,
            "ratio": float(np.median(ratios)) if ratios.size else None,
        }

    def curves(self) -> dict[str, Array]:
        """Statistics over the pictures, (layers,) each: of every one of ``CURVES`` the geometric ``_mean``, ``_min``
        and ``_max``; of the differences ``_below``, the share of pictures below the threshold. NaN where no
        picture has a finite value."""
        out: dict[str, Array] = {}
        for name in CURVES:
            count = self._sums[f"{name}_count"]
            known = count > 0
            mean = np.exp(self._sums[f"{name}_log"] / np.maximum(count, 1))
            out[f"{name}_mean"] = np.where(known, mean, np.nan)
            for end in ("min", "max"):
                out[f"{name}_{end}"] = np.where(known, self._sums[f"{name}_{end}"], np.nan)
            if name in ("first", "second"):
                share = self._sums[f"{name}_below"] / max(self.pictures, 1)
                out[f"{name}_below"] = np.where(known, share, np.nan)
        return out


# --------------------------------------------------------------------------------------- convergence (Fig. 7)


@dataclass(frozen=True)
class Entrant:
    """A residual with a solver, to be measured on the same weights as the others."""

    solver_name: str
    residual_name: str
    p: float | None
    solver: Solver
    residual: Residual

    @property
    def label(self) -> str:
        """The residual as tables and legends call it."""
        return self.residual_name if self.p is None else f"{self.residual_name}, p = {self.p:g}"


def build_entrants(
    solvers: Sequence[str],
    residuals: Sequence[str],
    shares: Sequence[float],
    *,
    max_steps: int,
    rtol: float,
    seed: int,
) -> list[Entrant]:
    """Every residual with every solver, solver by solver: quasi once for each share p, literal with the first.

    Raises:
        ValueError, TypeError: as :func:`qefpn.implicit.build_solver`.
    """
    entrants = []
    for solver_name in dict.fromkeys(solvers):
        solver = build_solver(solver_name, max_steps=max_steps, rtol=rtol)
        for name in dict.fromkeys(residuals):
            for p in {"equilibrium": [None], "literal": shares[:1]}.get(name, dict.fromkeys(shares)):
                options: dict[str, Any] = {} if p is None else {"p": p, "seed": seed}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the literal residual's; the command says it once
                    residual = build_residual(name, **options)
                entrants.append(Entrant(solver_name, name, p, solver, residual))
    return entrants


@dataclass(frozen=True)
class Solved:
    """One batch of an entrant.

    Attributes:
        rows: a mapping a picture: ``relative_change`` ‖f(z*) − z*‖ / ‖z*‖ with the plain f_theta whatever the
            residual, ``residual`` ‖g(z*)‖ / ‖F(z*)‖ of the entrant's own, ``steps``, ``evaluations``,
            ``converged``, ``drops`` (elements of the state that the mask sets to zero) and ``distance``, how far
            z* lies from the reference, as a share of it.
        state: z*.
    """

    rows: list[dict[str, float | int | bool | None]]
    state: State


@torch.no_grad()
def solve_batch(f: Layer, injection: State, entrant: Entrant, keys: Tensor, reference: State | None = None) -> Solved:
    """Solve a batch from z₀ = 0, and see how far f moves what comes out.

    Args:
        keys: int64 (B,), one a picture, that seed the masks.
        reference: states to measure the distance from.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        solution = fixed_point(
            f, zero_state(injection), injection, solver=entrant.solver, residual=entrant.residual, keys=keys
        )
    state = tuple(solution.value)
    change, size = norms(_minus(f(state, *injection), state)), norms(state)
    relative = torch.where(change == 0, torch.zeros_like(change), change / size).tolist()
    distance: list[float] | list[None] = [None] * len(relative)
    if reference is not None:
        distance = (norms(_minus(state, reference)) / norms(reference)).tolist()
    elements = sum(math.prod(x.shape[1:]) for x in injection)
    stats = solution.stats
    columns = zip(
        keys.tolist(),
        relative,
        stats.relative_residual.tolist(),
        stats.steps.tolist(),
        stats.evaluations.tolist(),
        stats.converged.tolist(),
        distance,
        strict=True,
    )
    rows = [
        {
            "relative_change": one,
            "residual": own,
            "steps": steps,
            "evaluations": evaluations,
            "converged": converged,
            "drops": _drops(entrant, elements, key),
            "distance": away,
        }
        for key, one, own, steps, evaluations, converged, away in columns
    ]
    return Solved(rows, state)


def _drops(entrant: Entrant, elements: int, key: int) -> int:
    if not entrant.p:
        return 0
    return int(draw_drops(elements, entrant.p, (getattr(entrant.residual, "seed", 0), key)).size)
