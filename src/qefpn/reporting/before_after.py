"""A fine-tuned network beside the one that it began with, picture by picture: what was gained, what was forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qefpn.reporting.frames import score_records, tidy
from qefpn.reporting.tables import METRICS, Column, Table, text_table

if TYPE_CHECKING:
    from qefpn.metrics.bootstrap import Interval

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
    from qefpn.metrics.bootstrap import paired_bootstrap

    if not first.is_file():
        return []
    before, after = tidy(score_records(first)), tidy(score_records(second))
    both = after.merge(before, on=["set", "picture", "metric"], suffixes=("_after", "_before"))

    def records(pictures: Any, when: str) -> list[dict[str, Any]]:
        return [{"name": n, "value": v} for n, v in zip(pictures["picture"], pictures[f"value_{when}"], strict=True)]

    out = []
    for dataset in both["set"].unique():
        for metric in (one for one in METRICS if one.key in FIGURES):
            pictures = both[(both["set"] == dataset) & (both["metric"] == metric.key)]
            if len(pictures):
                former, own = (float(pictures[f"value_{when}"].mean()) for when in ("before", "after"))
                interval = paired_bootstrap(records(pictures, "after"), records(pictures, "before"), "value")
                out.append(Change(dataset, metric, former, own, interval))
    return out


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
