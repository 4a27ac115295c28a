"""The page of a run: one HTML file with everything in it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qefpn.atomic import write_atomic
from qefpn.reporting import sections
from qefpn.reporting.before_after import change_table, changes
from qefpn.reporting.comparison import run_tables
from qefpn.reporting.published import Published, load_published
from qefpn.reporting.renderers import page
from qefpn.reporting.results import RunResults, Sample, read_run
from qefpn.reporting.tables import Table, metric

#: figures of the headline, the first two in large type
HEADLINE = ("max_f", "mae", "weighted_f", "mean_f", "s_measure", "e_measure")


@dataclass(frozen=True)
class GridRow:
    """One picture of the grid."""

    name: str
    group: str
    figures: list[str]
    panels: list[tuple[str, str]]


@dataclass(frozen=True)
class Gallery:
    """The pictures of one data set, and how its scores are spread."""

    dataset: str
    rows: list[GridRow]
    ranked_by: str
    bars: list[tuple[str, int, float]]  # (interval, count, height in percent)
    summary: str


def write_run_report(run_dir: str | Path, output: str | Path | None = None, *, cases: int = 3) -> Path:
    """Write the report of a run as one self-contained HTML page.

    Args:
        run_dir: directory of a run or an evaluation: ``config.yaml``, ``metrics.json``, ``scores.csv``,
            ``floors.json``, ``log.csv``, ``curves.json``, ``samples.json`` and ``maps/``. What is missing or
            broken is said on the page in its place.
        output: the file; ``report.html`` in ``run_dir`` by default.
        cases: worst, middle and best pictures shown of each data set.

    Returns:
        The path of the page.

    Raises:
        UserError: ``run_dir`` is no directory, or holds nothing that a run writes.
    """
    results = read_run(Path(run_dir))
    path = Path(output) if output is not None else results.directory / "report.html"
    write_atomic(path, render(results, cases))
    return path


def render(results: RunResults, cases: int = 3) -> str:
    """The page as text."""
    from qefpn.reporting.pictures import PANELS

    published = load_published()
    tables = run_tables(results.metrics, results.floors, published)
    changed = changes(results.directory)
    contents = [("headline", "Headline"), ("settings", "Settings"), ("training", "Training"), ("metrics", "Metrics")]
    contents += [("before", "Before and after")] if changed else []
    contents += [("learned", "What was learned"), ("curves", "Curves"), ("pictures", "Pictures")]
    return page(
        "run_report.html",
        title=results.directory.resolve().name or "run",
        contents=contents,
        cards=[_card(table, results.metrics[table.title], published) for table in tables],
        settings=sections.settings(results.config),
        config_text=results.config_text,
        training=sections.training_charts(results),
        tables=tables,
        any_published=any(published.official_images(table.title) for table in tables),
        source=published.source,
        protocol=str(results.config.get("protocol", "f3net")),
        changes=change_table(changed) if changed else None,
        learned=sections.learned(results),
        curves=sections.curve_charts(results),
        galleries=[gallery for dataset in results.datasets for gallery in _gallery(results, dataset, cases)],
        panel_titles=PANELS,
        problems=results.problems,
    )


def _card(table: Table, figures: Mapping[str, Any], published: Published) -> dict[str, Any]:
    official, count = published.official_images(table.title), table.images
    of = f" of {official:,}" if official not in (None, count) else ""
    return {
        "dataset": table.title,
        "count": "" if count is None else f"{count:,}{of} pictures",
        "figures": [(metric(key), metric(key).text(figures.get(key))) for key in HEADLINE],
    }


def _gallery(results: RunResults, dataset: str, cases: int) -> list[Gallery]:
    """The gallery of a data set in a list, empty where nothing is known of its pictures."""
    from qefpn.reporting.pictures import histogram, panels, ranking_metric

    scores = {name: figures for (where, name), figures in results.scores.items() if where == dataset}
    key = ranking_metric([scores])
    rows = []
    for sample, group in choose_samples([one for one in results.samples if one.dataset == dataset], scores, cases):
        figures = scores.get(sample.name, {})
        shown = [metric(one) for one in dict.fromkeys([key, "mae"]) if one]
        texts = [f"{one.label} {one.text(figures.get(one.key))}" for one in shown]
        rows.append(GridRow(sample.name, group, texts, panels(sample)))
    values = [figures[key] for figures in scores.values() if key in figures] if key else []
    if not rows and not values:
        return []
    bars, summary = [], ""
    if values and key:
        counts = histogram(values)
        width = 1 / len(counts)
        bars = [
            (f"{i * width:.2f} to {(i + 1) * width:.2f}", count, 100 * count / max(counts))
            for i, count in enumerate(counts)
        ]
        summary = f"{metric(key).label} of {len(values):,} pictures, median {statistics.median(values):.3f}"
        unscored = len(scores) - len(values)
        summary += f"; {unscored:,} without a score" if unscored else ""
    return [Gallery(dataset, rows, metric(key).label if key else "", bars, summary)]


def choose_samples(
    samples: Sequence[Sample], scores: Mapping[str, Mapping[str, float]], each: int = 3
) -> list[tuple[Sample, str]]:
    """The worst, some between and the best samples of a data set, each with its group, without repeats.

    Pictures without a score are left out. Without any scores, samples at even distances are chosen, all of them
    "between".
    """
    from qefpn.reporting.pictures import choose, even

    groups = ("worst", "between", "best")
    by_name = {sample.name: sample for sample in samples}
    table = {name: scores[name] for name in by_name if name in scores}
    chosen = choose([table], 3 * each, why=("worst", "best", "between"))
    if not chosen:
        return [(samples[index], "between") for index in even(len(samples), 2 * each)]
    return [(by_name[one.name], group) for group in groups for one in chosen if one.why == group]
