"""A fine-tuned network beside the one that it began with, picture by picture: what was gained, what was forgotten."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qefpn.errors import UserError
from qefpn.reporting.tables import METRICS, Metric

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
    metric: Metric
    before: float
    after: float
    interval: Interval

    @property
    def verdict(self) -> str:
        """ "better", "worse", or "not told apart" where the interval holds 0."""
        if self.interval.low <= 0 <= self.interval.high:
            return "not told apart"
        return "better" if (self.interval.difference > 0) is not self.metric.lower_is_better else "worse"

    def sentence(self) -> str:
        """The figure before and after, with the interval and the verdict."""
        found = self.interval
        return (
            f"{self.dataset}, {self.metric.label}: {self.metric.text(self.before)} before, "
            f"{self.metric.text(self.after)} after: {self.signed(found.difference)} (95 % interval "
            f"{self.signed(found.low)} to {self.signed(found.high)}, {found.pictures} pictures): {self.verdict}"
        )

    def signed(self, value: float) -> str:
        """A difference as the tables print it."""
        return f"{value:+.{self.metric.digits}f}".replace("-", "−")


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
    dataset: str, metric: Metric, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
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
