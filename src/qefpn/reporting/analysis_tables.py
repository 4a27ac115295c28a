"""The terminal tables and the summary of `qefpn analyze`, from plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table


def depth_table(rows: Sequence[Mapping[str, Any]], layers: int, threshold: float) -> Table:
    """What a row a picture (``qefpn.analysis.states.DepthSummary.add``) comes to."""
    table = Table(title=f"{len(rows)} pictures, {layers} layers, as shares of the state", header_style="bold")
    for column in ("", "median", "lowest", "highest"):
        table.add_column(column, justify="left" if not column else "right")
    for key, label in (
        ("share_second", f"layers with a second difference below {threshold:g}"),
        ("share_first", f"layers with a first difference below {threshold:g}"),
        ("last_first", "first difference at the last layer"),
        ("last_second", "second difference at the last layer"),
        ("settled", "layer from which the first stays below"),
        ("ratio", "second / first in the deeper half"),
    ):
        values = [float(row[key]) for row in rows if row[key] is not None]
        if not values:
            table.add_row(label, "never", "", "")
            continue
        form = "{:.2%}" if key.startswith("share") else "{:.0f}" if key == "settled" else "{:.3g}"
        absent = f" (never: {len(rows) - len(values)})" if key == "settled" and len(values) < len(rows) else ""
        figures = (np.median(values), min(values), max(values))
        table.add_row(label + absent, *(form.format(value) for value in figures))
    return table


def convergence_summary(figures: Mapping[str, Sequence[float]]) -> dict[str, float | int]:
    """What the pictures of one residual with one solver come to.

    Args:
        figures: columns of convergence.csv, a value a picture. Quantiles count an infinite change as it is.
    """
    change, drops = np.asarray(figures["relative_change"]), np.asarray(figures["drops"])
    distance = np.asarray(figures["distance"])
    distance = distance[np.isfinite(distance)]  # none of the reference itself, nor where that is z = 0
    low, high = np.quantile(change, (0.1, 0.9), method="nearest")  # no arithmetic with infinities
    return {
        "pictures": len(change),
        "change_q10": float(low),
        "change_median": float(np.median(change)),
        "change_q90": float(high),
        "change_max": float(change.max()),
        "change_mean": float(change.mean()),
        "converged": float(np.mean(figures["converged"])),
        "steps": float(np.mean(figures["steps"])),
        "evaluations": float(np.mean(figures["evaluations"])),
        "with_drops": float(np.mean(drops > 0)),
        "distance_median": float(np.median(distance)) if distance.size else float("nan"),
    }


def convergence_table(labels: Sequence[tuple[str, str]], summaries: Sequence[Mapping[str, Any]]) -> Table:
    """A row a summary.

    Args:
        labels: solver and residual of each.
        summaries: of :func:`convergence_summary`. "drops in" is the share of pictures whose mask drops anything,
            "z* shifted" the median distance from the z* of the first residual, as a share of it.
    """
    title = f"relative change |f(z*) - z*| / |z*| of {summaries[0]['pictures']} pictures"
    table = Table(title=title, header_style="bold")
    for column in ("solver", "residual"):
        table.add_column(column, no_wrap=True)
    for column in ("median", "10 %", "90 %", "converged", "steps", "evaluations", "drops in", "z* shifted"):
        table.add_column(column, justify="right")
    before = None
    for (solver, residual), row in zip(labels, summaries, strict=True):
        distance = row["distance_median"]
        table.add_row(
            solver if solver != before else "",
            residual,
            *(f"{row[key]:.3g}" for key in ("change_median", "change_q10", "change_q90")),
            f"{row['converged']:.0%}",
            *(f"{row[key]:.2f}" for key in ("steps", "evaluations")),
            f"{row['with_drops']:.0%}",
            "" if np.isnan(distance) else f"{distance:.2g}",
        )
        before = solver
    return table
