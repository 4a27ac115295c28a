"""The paper's Fig. 2 (states along the layers) and Fig. 7 (relative change at convergence), from plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qefpn.reporting.charts import INK, finish, legend, new_figure, save, style

Array = npt.NDArray[np.float64]

#: points of a curve: a figure shows no more
MOST_POINTS = 1500
#: what an exact zero is drawn as, on an axis of logarithms
FLOOR = 1e-12


def draw_depth(
    curves: Mapping[str, Array],
    examples: Sequence[Mapping[str, Array]],
    directory: Path,
    *,
    threshold: float,
    shares: Mapping[str, float],
    pictures: int,
) -> list[Path]:
    """Draw states and their first and second differences along the layers.

    Args:
        curves: (L,) each, a value a layer: ``state_mean`` (the geometric mean over pictures), ``state_min`` and
            ``state_max``, and the same of ``moved`` (the distance from the first state), ``first`` and ``second``.
            The state is a share of the last one, all else of its own layer's state. NaN is left out.
        examples: ``state``, ``moved``, ``first`` and ``second`` of single pictures, (L,) each, drawn faintly.
        directory: where ``depth.png`` and ``depth.svg`` go.
        threshold: below which a difference counts as small, drawn as a line.
        shares: of the layers that are below it, in [0, 1], by ``first`` and ``second``.
        pictures: behind the curves.

    Returns:
        the files written.
    """
    from matplotlib.ticker import FuncFormatter

    panels = (
        ("state", "State", r"$\Vert z_i\Vert\,/\,\Vert z_L\Vert$"),
        ("first", "First difference", r"$\Vert z_i-z_{i-1}\Vert\,/\,\Vert z_i\Vert$"),
        ("second", "Second difference", r"$\Vert z_i-2z_{i-1}+z_{i-2}\Vert\,/\,\Vert z_i\Vert$"),
    )
    layers = np.arange(1, len(curves["state_mean"]) + 1)
    at = sampled(len(layers))
    with new_figure(9.6, 3.1) as figure:
        axes = figure.subplots(1, 3)
        for number, (panel, (key, title, label)) in enumerate(zip(axes, panels, strict=True)):
            line = _depth_curve(panel, layers[at], at, curves, examples, key, _colour(number))
            if key == "state":
                moved = _depth_curve(panel, layers[at], at, curves, examples, "moved", _colour(3))
                labels = [label, r"$\Vert z_i-z_1\Vert\,/\,\Vert z_i\Vert$"]
                panel.legend(handles=[line, moved], labels=labels, labelcolor=INK, frameon=False)
                panel.set_ylim(0, 1.08 * panel.get_ylim()[1])
                subtitle = f"{pictures} picture{'s' * (pictures != 1)}: mean and range"
            else:
                panel.set_yscale("log")
                panel.axhline(threshold, color=INK, linewidth=0.8, linestyle=":")
                subtitle = f"{shares[key]:.1%} of layers below {threshold:g}"
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
            panel.set_xlim(1, max(2, len(layers)))
            panel.set_title(f"{title}\n{subtitle}", fontsize=8.5, color=INK)
            finish(panel, "Layer $i$", "" if key == "state" else label)
        low, high = zip(*(panel.get_ylim() for panel in axes[1:]), strict=True)
        for panel in axes[1:]:
            panel.set_ylim(min(low), max(high))
        return save(figure, directory, "depth", ("png", "svg"))


def _depth_curve(
    axes: Any,
    layers: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64],
    curves: Mapping[str, Array],
    examples: Sequence[Mapping[str, Array]],
    key: str,
    colour: str,
) -> Any:
    """Single pictures faintly, then range and mean over all; the line of the mean."""
    floor = FLOOR if key in ("first", "second") else 0.0
    for one in examples:
        axes.plot(layers, np.maximum(one[key][at], floor), color=colour, linewidth=0.5, alpha=0.25)
    low, high = (np.maximum(curves[f"{key}_{end}"][at], floor) for end in ("min", "max"))
    axes.fill_between(layers, low, high, color=colour, alpha=0.12, linewidth=0)
    return axes.plot(layers, np.maximum(curves[f"{key}_mean"][at], floor), color=colour, linewidth=1.4)[0]


def sampled(count: int, most: int = MOST_POINTS) -> npt.NDArray[np.int64]:
    """Positions of a curve of ``count`` points to draw: all, or the first hundred and others evenly spaced in the
    logarithm, as the axis shows them."""
    if count <= most:
        return np.arange(count)
    spread = np.geomspace(1, count, most) - 1
    return np.unique(np.concatenate([np.arange(100), spread.round().astype(np.int64)])).clip(max=count - 1)


@dataclass(frozen=True)
class Convergence:
    """What a residual reached with a solver.

    Attributes:
        solver: its name; a row of panels each.
        residual: its label; a curve each.
        change: (n,), relative change of each picture, possibly infinite.
        evaluations: (n,), of f.
    """

    solver: str
    residual: str
    change: Array
    evaluations: Array


def draw_convergence(results: Sequence[Convergence], directory: Path) -> list[Path]:
    """Draw relative changes: sorted curves, distributions and evaluations, a row of panels a solver.

    Args:
        results: all residuals with all solvers; infinite changes are left out, and counted.
        directory: where ``convergence.png`` and ``convergence.svg`` go.

    Returns:
        the files written.
    """
    solvers = list(dict.fromkeys(one.solver for one in results))
    residuals = list(dict.fromkeys(one.residual for one in results))
    finite = [one.change[np.isfinite(one.change)] for one in results]
    positive = np.concatenate([np.maximum(values, FLOOR) for values in finite] or [np.array([])])
    with new_figure(9.6, 0.7 + len(solvers) * (1.25 + 0.2 * len(residuals))) as figure:
        axes = figure.subplots(len(solvers), 3, squeeze=False, width_ratios=(1.2, 1, 0.8))
        for row, solver in zip(axes, solvers, strict=True):
            own = {one.residual: one for one in results if one.solver == solver}
            _sorted_panel(row[0], own, residuals)
            _distribution_panel(row[1], own, residuals)
            _evaluations_panel(row[2], own, residuals)
            if positive.size:
                low, high = float(positive.min()), float(positive.max())
                row[0].set_ylim(low / 1.4, high * 1.4)
                row[1].set_xlim(low / 1.4, high * 1.4)
            for panel in row:
                finish(panel)
            finish(row[0], "", solver.replace("_", " ") + "\n" + r"$\Vert f(z^*)-z^*\Vert\;/\;\Vert z^*\Vert$")
        for panel, title in zip(axes[0], ("Sorted", "Distribution", "Evaluations"), strict=True):
            panel.set_title(title, fontsize=9, color=INK)
        labels = ("Share of the pictures in percent", "Relative change", "Evaluations of $f$ a picture")
        for panel, label in zip(axes[-1], labels, strict=True):
            panel.set_xlabel(label, color=INK)
        legend(figure, {residual: style(index) for index, residual in enumerate(residuals)})
        return save(figure, directory, "convergence", ("png", "svg"))


def _sorted_panel(axes: Any, own: Mapping[str, Convergence], residuals: Sequence[str]) -> None:
    """Curves that lie on each other stay visible: the first is the widest, and each one after it thinner."""
    for index, residual in enumerate(residuals):
        values = np.sort(own[residual].change)
        share = 100 * (np.arange(len(values)) + 0.5) / max(len(values), 1)
        there = np.isfinite(values)
        axes.plot(
            share[there],
            np.maximum(values[there], FLOOR),
            linewidth=max(1.0, 3.2 - 0.7 * index),
            marker="o" if there.sum() == 1 else None,
            **style(index).line,
        )
    axes.set_yscale("log")
    axes.set_xlim(0, 100)


def _distribution_panel(axes: Any, own: Mapping[str, Convergence], residuals: Sequence[str]) -> None:
    there = [np.isfinite(own[name].change) for name in residuals]
    axes.set_xscale("log")
    _boxes(axes, [np.maximum(own[name].change[one], FLOOR) for name, one in zip(residuals, there, strict=True)])
    for index, one in enumerate(there):
        if not one.all():
            axes.annotate(
                f"{np.sum(~one)} of {len(one)} infinite: not drawn", (0, index), xycoords=("axes fraction", "data"),
                xytext=(4, 0), textcoords="offset points", va="center", fontsize=7, color=_colour(index),
            )  # fmt: skip


def _evaluations_panel(axes: Any, own: Mapping[str, Convergence], residuals: Sequence[str]) -> None:
    _boxes(axes, [own[name].evaluations for name in residuals])
    axes.set_xlim(0, 1.05 * max(float(own[name].evaluations.max()) for name in residuals))
    for index, name in enumerate(residuals):
        mean = float(own[name].evaluations.mean())
        axes.annotate(
            f"{mean:.1f}", (1, index), xycoords=("axes fraction", "data"), xytext=(3, 0),
            textcoords="offset points", va="center", fontsize=7, color=_colour(index),
        )  # fmt: skip


def _boxes(axes: Any, values: Sequence[Array]) -> None:
    """A box a residual, first on top: quartiles and median, whiskers from the 5th to the 95th percentile."""
    drawn = axes.boxplot(
        list(values), orientation="horizontal", positions=range(len(values)), widths=0.6, whis=(5, 95),
        patch_artist=True, flierprops={"marker": ".", "markersize": 2, "markeredgewidth": 0, "alpha": 0.5},
    )  # fmt: skip
    for index in range(len(values)):
        colour = _colour(index)
        drawn["boxes"][index].set(facecolor=colour, alpha=0.3, linewidth=0)
        drawn["medians"][index].set(color=colour, linewidth=1.8)
        drawn["fliers"][index].set(markerfacecolor=colour)
        for part in (*drawn["whiskers"][2 * index : 2 * index + 2], *drawn["caps"][2 * index : 2 * index + 2]):
            part.set(color=colour, linewidth=1)
    axes.set_yticks([])
    axes.set_ylim(len(values) - 0.4, -0.6)


def _colour(index: int) -> str:
    return style(index).colour


def draw_budget(trials: Sequence[tuple[str, Any]], directory: Path) -> list[Path]:
    """Draw max F and MAE against the evaluations that they cost.

    Args:
        trials: the budgets' names ("" of a trial that became none) and ``evaluations``, ``max_f`` and ``mae`` of each.
        directory: where ``budget.png`` and ``budget.svg`` go.

    Returns:
        the files written.
    """
    panels = (("max_f", "Max F"), ("mae", "MAE"))
    ordered = sorted(trials, key=lambda one: float(one[1].evaluations))
    with new_figure(7.2, 2.8) as figure:
        for number, (axes, (key, label)) in enumerate(zip(figure.subplots(1, 2), panels, strict=True)):
            x = [one.evaluations for _, one in ordered]
            axes.plot(x, [getattr(one, key) for _, one in ordered], "o", markersize=3, color=_colour(number))
            for name, one in ordered:
                if name:
                    at = (one.evaluations, getattr(one, key))
                    axes.plot(*at, "o", markersize=7, markerfacecolor="none", color=INK)
                    axes.annotate(name, at, xytext=(5, 5), textcoords="offset points", fontsize=7, color=INK)
            axes.margins(0.15)
            finish(axes, "Evaluations of $f$ a picture", label)
        return save(figure, directory, "budget", ("png", "svg"))
