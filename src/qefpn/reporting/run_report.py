"""The page of a run: one HTML file with everything in it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from qefpn.atomic import write_atomic
from qefpn.reporting.before_after import changes
from qefpn.reporting.published import load_published
from qefpn.reporting.results import RunResults, read_run
from qefpn.reporting.tables import METRICS, MetricTable, metric_tables

#: figures of the headline, the first two in large type
HEADLINE = ("max_f", "mae", "weighted_f", "mean_f", "s_measure", "e_measure")


@dataclass(frozen=True)
class GridRow:
    """One picture of the grid."""

    name: str
    group: str
    figures: list[tuple[str, str]]
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
    page = render(results, cases)
    write_atomic(path, page)
    return path


def render(results: RunResults, cases: int = 3) -> str:
    """The page as text."""
    import jinja2

    from qefpn.reporting import sections

    published = load_published()
    tables = metric_tables(results.metrics, results.floors, published)
    templates = resources.files("qefpn.reporting") / "templates"
    names = ("run_report.html", "report.css")
    sources = {name: (templates / name).read_text(encoding="utf-8") for name in names}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template("run_report.html").render(
        title=results.directory.resolve().name or "run",
        cards=[_card(table, results.metrics[table.dataset]) for table in tables],
        settings=sections.settings(results.config),
        config_text=results.config_text,
        training=sections.training_charts(results),
        tables=tables,
        any_published=any(table.official_images for table in tables),
        source=published.source,
        protocol=str(results.config.get("protocol", "f3net")),
        changes=changes(results.directory),
        learned=sections.learned(results),
        curves=sections.curve_charts(results),
        galleries=[gallery for dataset in results.datasets for gallery in _gallery(results, dataset, cases)],
        panel_titles=_panel_titles(),
        problems=results.problems,
    )


def _panel_titles() -> tuple[str, ...]:
    from qefpn.reporting.pictures import PANELS

    return PANELS


def _card(table: MetricTable, figures: Mapping[str, Any]) -> dict[str, Any]:
    by_key = {metric.key: metric for metric in METRICS}
    values = [(by_key[key], by_key[key].text(figures.get(key))) for key in HEADLINE]
    return {"table": table, "large": values[:2], "small": values[2:]}


def _gallery(results: RunResults, dataset: str, cases: int) -> list[Gallery]:
    """The gallery of a data set in a list, empty where nothing is known of its pictures."""
    from qefpn.reporting import pictures

    by_key = {metric.key: metric for metric in METRICS}
    ranked_by = pictures.ranking_metric(results.scores, dataset)
    rows = []
    for case in pictures.choose_cases(results.samples, results.scores, dataset, cases):
        shown = dict.fromkeys(key for key in (ranked_by, "mae") if key)
        figures = [(by_key[key].label, by_key[key].text(case.figures.get(key))) for key in shown]
        rows.append(GridRow(case.sample.name, case.group, figures, pictures.panels(case.sample)))
    own = [figures for (name, _), figures in results.scores.items() if name == dataset]
    values = [figures[ranked_by] for figures in own if ranked_by in figures] if ranked_by else []
    if not rows and not values:
        return []
    bars, summary = [], ""
    if values and ranked_by:
        counts = pictures.histogram(values)
        top = max(counts)
        bars = [
            (f"{i / len(counts):.2f} to {(i + 1) / len(counts):.2f}", count, 100 * count / top)
            for i, count in enumerate(counts)
        ]
        unscored = len(own) - len(values)
        median = statistics.median(values)
        summary = f"{by_key[ranked_by].label} of {len(values):,} pictures, median {median:.3f}"
        summary += f"; {unscored:,} without a score" if unscored else ""
    return [Gallery(dataset, rows, by_key[ranked_by].label if ranked_by else "", bars, summary)]
