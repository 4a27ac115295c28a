"""The tables and the summary of `qefpn analyze`, from plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qefpn.reporting.tables import Table, text_table


def depth_table(rows: Sequence[Mapping[str, Any]], layers: int, threshold: float) -> Table:
    """What a row a picture (``qefpn.analysis.states.DepthSummary.add``) comes to."""
    lines = []
    for key, label, form in (
        ("share_second", f"layers with a second difference below {threshold:g}", "{:.2%}"),
        ("share_first", f"layers with a first difference below {threshold:g}", "{:.2%}"),
        ("last_first", "first difference at the last layer", "{:.3g}"),
        ("last_second", "second difference at the last layer", "{:.3g}"),
        ("settled", "layer from which the first stays below", "{:.0f}"),
        ("ratio", "second / first in the deeper half", "{:.3g}"),
    ):
        values = [float(row[key]) for row in rows if row[key] is not None]
        absent = f" (never: {len(rows) - len(values)})" if key == "settled" and 0 < len(values) < len(rows) else ""
        figures = (
            [form.format(v) for v in (np.median(values), min(values), max(values))] if values else ["never", "", ""]
        )
        lines.append([label + absent, *figures])
    title = f"{len(rows)} pictures, {layers} layers, as shares of the state"
    return text_table("depth", title, ["", "median", "lowest", "highest"], lines)


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
    heads = [
        "solver",
        "residual",
        "median",
        "10 %",
        "90 %",
        "converged",
        "steps",
        "evaluations",
        "drops in",
        "z* shifted",
    ]
    rows = [
        [
            *label,
            *(f"{row[key]:.3g}" for key in ("change_median", "change_q10", "change_q90")),
            f"{row['converged']:.0%}",
            *(f"{row[key]:.2f}" for key in ("steps", "evaluations")),
            f"{row['with_drops']:.0%}",
            "" if np.isnan(row["distance_median"]) else f"{row['distance_median']:.2g}",
        ]
        for label, row in zip(labels, summaries, strict=True)
    ]
    title = f"relative change |f(z*) - z*| / |z*| of {summaries[0]['pictures']} pictures"
    return text_table("convergence", title, heads, rows, left=("residual",))


def budget_table(trials: Sequence[tuple[str, Any]], pictures: int) -> Table:
    """A row a trial (:class:`qefpn.analysis.budget.Trial`'s fields), with the name of the budget that it became."""
    heads = ["budget", "steps", "rtol", "evaluations", "max F", "weighted F", "MAE"]
    rows = [
        [
            name,
            f"{one.max_steps}",
            f"{one.rtol:g}",
            f"{one.evaluations:.2f}",
            *(f"{value:.4f}" for value in (one.max_f, one.weighted_f, one.mae)),
        ]
        for name, one in trials
    ]
    return text_table("budget", f"quality against steps on {pictures} pictures", heads, rows, left=())
