"""How sure the order of methods is: paired bootstrap intervals between each method and the best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qefpn.benchmark.attributes import SCORES
from qefpn.benchmark.entries import Entry
from qefpn.metrics.bootstrap import paired_bootstrap
from qefpn.reporting.tables import finite, metric


def interval_table(entries: Sequence[Entry], resamples: int, seed: int = 0) -> list[dict[str, str | int | float]]:
    """Each method against the best one, a row a data set, metric and method.

    The difference is of means over the pictures that both have; its 95 % interval is of the paired percentile
    bootstrap over pictures. Max F is a figure of a set, not of its pictures, and has no row.

    Args:
        entries: the methods' results. The best of a metric is the best complete method.
        resamples: sets drawn; 0 gives no rows.
        seed: of the draws.

    Returns:
        rows ``{dataset, metric, method, best, difference, low, high, p_value, pictures}``; a difference is the method's
        mean minus the best one's.
    """
    rows: list[dict[str, str | int | float]] = []
    if resamples == 0:
        return rows
    for dataset in dict.fromkeys(entry.dataset for entry in entries):
        own = [entry for entry in entries if entry.dataset == dataset and entry.pictures]
        for key in SCORES:
            best = best_entry(own, key)
            if best is None:
                continue
            for entry in own:
                shared = _defined(entry, key) & _defined(best, key)
                if entry is best or not shared:
                    continue
                one = paired_bootstrap(entry.pictures, best.pictures, key, resamples=resamples, seed=seed)
                rows.append(
                    {
                        "dataset": dataset, "metric": key, "method": entry.method, "best": best.method,
                        "difference": one.difference, "low": one.low, "high": one.high, "p_value": one.p_value,
                        "pictures": one.pictures,
                    }
                )  # fmt: skip
    return rows


def best_entry(entries: Sequence[Entry], key: str) -> Entry | None:
    """The best complete method by a metric; None where no complete method has the figure."""
    rated = [
        (value, entry) for entry in entries if entry.complete and (value := finite(entry.scores.get(key))) is not None
    ]
    if not rated:
        return None
    best = metric(key).best(value for value, _ in rated)
    return next(entry for value, entry in rated if value == best)


def _defined(entry: Entry, key: str) -> set[str]:
    return {str(row["name"]) for row in entry.pictures if not math.isnan(float(row[key]))}


def sentences(rows: Sequence[dict[str, str | int | float]], key: str = "weighted_f") -> list[str]:
    """A sentence a data set on whether the best method is told apart from the next one by ``key``."""
    out = []
    for dataset in dict.fromkeys(str(row["dataset"]) for row in rows):
        own = [row for row in rows if row["dataset"] == dataset and row["metric"] == key]
        if not own:
            continue
        row = min(own, key=lambda one: abs(float(one["difference"])))
        clear = float(row["low"]) > 0 or float(row["high"]) < 0
        out.append(
            f"{dataset}, {metric(key).label}: {row['method']} minus {row['best']} is {float(row['difference']):+.3f}, "
            f"95 % interval {float(row['low']):+.3f} to {float(row['high']):+.3f} over {row['pictures']} pictures: "
            + ("told apart" if clear else "not told apart")
        )
    return out
