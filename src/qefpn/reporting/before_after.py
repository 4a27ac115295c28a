"""A fine-tuned network beside the one that it began with, picture by picture: what was gained, what was forgotten."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qefpn.errors import UserError
from qefpn.reporting.tables import METRICS, Column, Table, text_table

if TYPE_CHECKING:
    from qefpn.metrics.bootstrap import Interval

Rows = dict[str, list[dict[str, Any]]]
"""Data set → its pictures' scores."""

FIGURES = ("weighted_f", "mae", "mean_f", "s_measure", "e_measure")
"""Those that are means over pictures: the interval is of the figure that the table shows."""


@dataclass(frozen=True)
class Change:
    """One figure of a data set before and after.

    Attributes:
        before, after: means over the pictures that both have.
        interval: of their difference, after minus before: the paired percentile bootstrap over pictures, 95 %.
    """

    dataset: str
    metric: Column
    before: float
    after: float
    interval: Interval

    @property
    def verdict(self) -> str:
        """ "better", "worse", or "not told apart" where the interval holds 0."""
        if self.interval.low <= 0 <= self.interval.high:
            return "not told apart"
        return "better" if self.metric.beats(self.after, self.before) else "worse"

    def sentence(self) -> str:
        """The figure before and after, with the interval and the verdict."""
        found, text, signed = self.interval, self.metric.text, self.metric.signed
        return (
            f"{self.dataset}, {self.metric.label}: {text(self.before)} before, {text(self.after)} after: "
            f"{signed(found.difference)} (95 % interval {signed(found.low)} to {signed(found.high)}, "
            f"{found.pictures} pictures): {self.verdict}"
        )


def changes(directory: Path) -> list[Change]:
    """What ``before.csv`` and ``scores.csv`` of a run say; nothing where no fine-tuning was scored."""
    return compared(directory / "before.csv", directory / "scores.csv")


def compared(first: Path, second: Path) -> list[Change]:
    """Two files of scores, of any runs on the same pictures; nothing where one is missing."""
    before = _rows(first)
    after = _rows(second) if before else {}
    return [
        change
        for dataset in after
        for metric in METRICS
        if metric.key in FIGURES and dataset in before
        for change in _change(dataset, metric, before[dataset], after[dataset])
    ]


def _change(
    dataset: str, metric: Column, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[Change]:
    from qefpn.metrics.bootstrap import paired_bootstrap

    try:
        interval = paired_bootstrap(after, before, metric.key)
    except UserError:  # no picture has the score: the masks are blank
        return []
    former, own = ({row["name"]: row.get(metric.key, math.nan) for row in rows} for rows in (before, after))
    both = [(former[name], own[name]) for name in own if name in former]
    both = [pair for pair in both if not math.isnan(sum(pair))]
    first, second = (math.fsum(values) / len(both) for values in zip(*both, strict=True))
    return [Change(dataset, metric, first, second, interval)]


def change_table(every: Sequence[Change]) -> Table:
    """A row a data set and figure."""
    heads = ["Data set", "Metric", "Before", "After", "Difference", "95 % interval", "Pictures", "Verdict"]
    rows = []
    for one in every:
        signed, found = one.metric.signed, one.interval
        figures = [one.metric.text(one.before), one.metric.text(one.after), signed(found.difference)]
        ends = f"{signed(found.low)} to {signed(found.high)}"
        rows.append([one.dataset, one.metric.head, *figures, ends, f"{found.pictures:,}", one.verdict])
    return text_table("changes", "Before and after", heads, rows, left=("Metric",))


def sentences(directory: Path, key: str = "weighted_f") -> list[str]:
    """A sentence a data set on what the fine-tuning did to one figure."""
    return [one.sentence() for one in changes(directory) if one.metric.key == key]


def _rows(path: Path) -> Rows:
    rows: Rows = {}
    if not path.is_file():
        return rows
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            scores = {key: float(row[key]) for key in FIGURES if row.get(key)}
            rows.setdefault(row["dataset"], []).append({"name": row["name"], **scores})
    return rows
