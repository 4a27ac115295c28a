"""How sure figures and their order are: bootstrap intervals over the pictures, alone, to the best, rank by rank."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from qefpn.benchmark.attributes import SCORES
from qefpn.metrics.bootstrap import Resampled, paired_bootstrap, resample_counts, set_figures
from qefpn.reporting.tables import metric, metrics_of

if TYPE_CHECKING:
    from qefpn.benchmark.entries import Entry

Rows = list[dict[str, Any]]
#: share of false ones among the differences that are told
LEVEL = 0.05
#: figures whose ranks are told in sentences
TOLD = ("weighted_f", "max_f")


def figure_table(entries: Sequence[Entry]) -> Rows:
    """Each figure of each method with its 95 % interval over the pictures; the entries are scored with resamples.

    Returns:
        rows ``{dataset, metric, method, value, low, high, interval, pictures}``; ``interval`` is its kind.
    """
    return [
        {"dataset": entry.dataset, "metric": one.key, "method": entry.method, "value": entry.scores[one.key],
         "low": low, "high": high, "interval": "BCa" if figure.peak else "percentile", "pictures": len(entry.pictures)}
        for entry in entries
        for one in metrics_of([entry.scores])
        if (figure := entry.resampled.get(one.key))
        for low, high in [figure.interval()]
    ]  # fmt: skip


def interval_table(entries: Sequence[Entry], resamples: int, seed: int = 0) -> Rows:
    """Each method against the best one, a row a data set, metric and method.

    Complete methods are compared over the resamples of the whole set, in every figure, max F included; a method with
    missing maps over the pictures that it has, in the means over pictures. Where several complete methods are compared
    with the best, ``q_value`` controls the false discoveries among them (Benjamini and Hochberg 1995).

    Args:
        entries: the methods' results. The best of a metric is the best complete method.
        resamples: sets drawn where an entry was scored without; 0 gives no rows.
        seed: of the draws.

    Returns:
        rows ``{dataset, metric, method, best, difference, low, high, p_value, q_value, pictures}``; a
        difference is the method's figure minus the best one's, with its 95 % interval.
    """
    rows: Rows = []
    if resamples == 0:
        return rows
    for own in _by_dataset(entries):
        figures = _figures(own, resamples, seed)
        for one in metrics_of([entry.scores for entry in own]):
            order = _ranked(own, one.key)
            found = [
                {"dataset": entry.dataset, "metric": one.key, "method": entry.method, "best": order[0].method} | row
                for entry in own
                if order and entry is not order[0]
                for row in _difference(entry, order[0], one.key, figures, resamples, seed)
            ]
            rows += _controlled(found)
    return rows


def rank_table(entries: Sequence[Entry], resamples: int, seed: int = 0) -> Rows:
    """Each complete method against the one a rank below it; false discoveries are controlled over a metric's ranks.

    Returns:
        rows ``{dataset, metric, rank, method, next, difference, low, high, p_value, q_value, pictures, apart}``;
        ``apart`` where the two are told apart at 5 %.
    """
    rows: Rows = []
    for own in _by_dataset(entries) if resamples else ():
        figures = _figures(own, resamples, seed)
        for one in metrics_of([entry.scores for entry in own]):
            order = _ranked(own, one.key)
            found = [
                {"dataset": a.dataset, "metric": one.key, "rank": rank, "method": a.method, "next": b.method} | row
                for rank, (a, b) in enumerate(zip(order, order[1:], strict=False), 1)
                for row in _difference(a, b, one.key, figures, resamples, seed)
            ]
            rows += [row | {"apart": row["q_value"] <= LEVEL} for row in _controlled(found)]
    return rows


def _by_dataset(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    for dataset in dict.fromkeys(entry.dataset for entry in entries):
        yield [entry for entry in entries if entry.dataset == dataset and entry.pictures]


def _figures(entries: Sequence[Entry], resamples: int, seed: int) -> dict[str, dict[str, Resampled]]:
    """Method → its figures over the same resamples: those that it was scored with, else the means over pictures."""
    out = {}
    for entry in (one for one in entries if one.complete):
        rows = sorted(entry.pictures, key=lambda row: str(row["name"]))
        scores = {key: [float(row.get(key, math.nan)) for row in rows] for key in SCORES}
        counts = None if entry.resampled else resample_counts(len(rows), resamples, seed)
        out[entry.method] = entry.resampled if counts is None else set_figures(scores, {}, counts, curve_of_means=False)
    return out


def _ranked(entries: Sequence[Entry], key: str) -> list[Entry]:
    """The complete methods that have a figure, best first."""
    rated = [entry for entry in entries if entry.complete and math.isfinite(entry.scores.get(key, math.nan))]
    return sorted(rated, key=lambda entry: entry.scores[key], reverse=metric(key).better != "low")


def _difference(
    entry: Entry, other: Entry, key: str, figures: dict[str, dict[str, Resampled]], resamples: int, seed: int
) -> Iterator[dict[str, Any]]:
    """One row, or none where the two cannot be compared."""
    first, second = (figures.get(one.method, {}).get(key) for one in (entry, other))
    if first is not None and second is not None:
        both = first.minus(second)
        low, high = both.interval()
        yield {
            "difference": entry.scores[key] - other.scores[key], "low": low, "high": high, "p_value": both.p_value(),
            "q_value": None, "pictures": len(entry.pictures),
        }  # fmt: skip
    elif not entry.complete and key in SCORES and _defined(entry, key) & _defined(other, key):
        one = paired_bootstrap(entry.pictures, other.pictures, key, resamples=resamples, seed=seed)
        yield {
            "difference": one.difference, "low": one.low, "high": one.high, "p_value": one.p_value, "q_value": "",
            "pictures": one.pictures,
        }  # fmt: skip


def _defined(entry: Entry, key: str) -> set[str]:
    return {str(row["name"]) for row in entry.pictures if not math.isnan(float(row[key]))}


def _controlled(rows: Rows) -> Rows:
    """The rows with the q values of those that are of complete methods: the smallest p·m/k of it and all larger p."""
    family = sorted((row for row in rows if row["q_value"] is None), key=lambda row: float(row["p_value"]))
    least = 1.0  # by hand, since importing scipy.stats takes longer than all else here
    for rank in range(len(family), 0, -1):
        least = min(least, family[rank - 1]["p_value"] * len(family) / rank)
        family[rank - 1]["q_value"] = least
    return rows


def sentences(rows: Rows, key: str = "weighted_f") -> list[str]:
    """A sentence a data set on whether the best method is told apart from the next one by ``key``."""
    out = []
    for dataset in dict.fromkeys(str(row["dataset"]) for row in rows):
        own = [row for row in rows if row["dataset"] == dataset and row["metric"] == key]
        if not own:
            continue
        row = min(own, key=lambda one: abs(float(one["difference"])))
        clear = row["low"] > 0 or row["high"] < 0
        out.append(
            f"{dataset}, {metric(key).label}: {row['method']} minus {row['best']} is {row['difference']:+.3f}, "
            f"95 % interval {row['low']:+.3f} to {row['high']:+.3f} over {row['pictures']} pictures: "
            + ("told apart" if clear else "not told apart")
        )
    return out


def rank_sentences(rows: Rows) -> list[str]:
    """A sentence a data set and figure of `TOLD`: the order, a bar where a rank is told from the next one."""
    out = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for key in TOLD:
            own = [row for row in rows if (row["dataset"], row["metric"]) == (dataset, key)]
            if own:
                names = own[0]["method"] + "".join((" | " if row["apart"] else ", ") + row["next"] for row in own)
                apart = sum(row["apart"] for row in own)
                out.append(
                    f"{dataset}, ranks by {metric(key).label}: {names} ({apart} of {len(own)} told apart from the "
                    f"next, false discoveries below {LEVEL:.0%})"
                )
    return out
