"""The report of a sweep: the paper's Tables IV to VII beside ours, in every form, and one page with the curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qefpn.atomic import write_atomic
from qefpn.errors import UserError
from qefpn.reporting.charts import COLOURS, Chart, Series, line_chart
from qefpn.reporting.latex import latex, latex_document
from qefpn.reporting.published import Published, load_published
from qefpn.reporting.renderers import markdown, page, plain_markdown, terminal
from qefpn.reporting.results import finite_points
from qefpn.reporting.sweep_rows import Section
from qefpn.reporting.sweep_runs import SweepRun
from qefpn.reporting.sweep_tables import EXPLAINED, SweepReport, build_report, csv_figures, csv_jobs

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class WrittenSweep:
    """The report and its files, the page first."""

    report: SweepReport
    files: list[Path]


def write_sweep_report(runs: Path, output: Path | None = None, published: Published | None = None) -> WrittenSweep:
    """Read every run below a directory and write the report.

    Args:
        runs: a multirun's directory, or any that holds run directories.
        output: a directory for ``sweep_report.html``, ``.md``, ``.tex``, ``sweep_tables.tex`` (which the former
            reads), ``sweep_report.csv`` and ``sweep_jobs.csv``; ``runs`` by default.
        published: the paper's figures; those of the package by default.

    Raises:
        UserError: ``runs`` is no directory or holds no run; ``output`` cannot be written.
    """
    published = published or load_published()
    report = build_report(runs, published)
    folder = runs if output is None else output
    texts = {
        "sweep_report.html": render_sweep(report),
        "sweep_report.md": markdown_sweep(report),
        "sweep_report.tex": latex_document(f"Ablations: {report.title}", "sweep_tables.tex"),
        "sweep_tables.tex": latex_sweep(report),
        "sweep_report.csv": csv_figures(report, published),
        "sweep_jobs.csv": csv_jobs(report),
    }
    try:
        for name, text in texts.items():
            write_atomic(folder / name, text)
    except OSError as error:
        raise UserError(f"output={folder}: the report cannot be written there ({error.strerror})") from None
    return WrittenSweep(report, [folder / name for name in texts])


def terminal_sweep(report: SweepReport) -> Iterator[RenderableType]:
    """Rich tables: the figures, what ours were trained on, then what was left out."""
    from rich.text import Text

    yield from map(terminal, report.tables())
    if report.blocks:
        yield Text(EXPLAINED, style="dim")
    if report.left_out:
        yield terminal(report.left_out_table)
    yield from map(Text, report.remarks)


def markdown_sweep(report: SweepReport) -> str:
    """The whole report but its curves."""
    parts = [f"# Ablations: {plain_markdown(report.title)}"]
    if report.blocks:
        parts.append(EXPLAINED + (f" Figures marked (paper) are those of {report.source}." if report.source else ""))
    every = [*report.tables(), report.jobs, *([report.left_out_table] if report.left_out else [])]
    parts += [markdown(table, "## {}").rstrip() for table in every]
    return "\n\n".join([*parts, *map(plain_markdown, report.remarks)]) + "\n"


def latex_sweep(report: SweepReport) -> str:
    """Every table as a ``table``."""
    seeds = "Mean and standard deviation over $n$ seeds."
    out = [
        dataclasses.replace(one, title=f"{one.title}. {seeds}" if one.name == "figures" else f"{one.title}.")
        for one in [*report.tables(), report.jobs]
    ]
    if report.left_out:
        short = dataclasses.replace(report, left_out=[(job, state, why[:80]) for job, state, why in report.left_out])
        out.append(dataclasses.replace(short.left_out_table, title="Not in the tables."))
    return latex(out)


def render_sweep(report: SweepReport) -> str:
    """The page as text."""
    curves = [(section.title, sweep_charts(section, f"curve{n}")) for n, section in enumerate(report.sections)]
    groups = [
        (f"section{number}", section.title, blocks)
        for number, section in enumerate(report.sections, 1)
        if (blocks := [block for block in report.blocks if block.section is section])
    ]
    contents = [(identifier, title) for identifier, title, _ in groups]
    contents += [("training", "Training curves"), ("jobs", "Jobs")]
    contents += [("left-out", "Not in the tables")] if report.left_out else []
    return page(
        "sweep_report.html",
        title=report.title,
        contents=contents,
        report=report,
        groups=groups,
        curves=[(title, charts) for title, charts in curves if charts],
        explained=EXPLAINED,
    )


def sweep_charts(section: Section, identifier: str) -> list[Chart]:
    """Loss, validation metric and solver residual over the optimizer steps: a colour a row, a line a run.

    Args:
        section: its rows; runs without figures are drawn too.
        identifier: unique on the page.
    """
    monitors = dict.fromkeys(_monitor(run) for row in section.rows for run in row.every)
    validation = " / ".join(name.replace("val_", "").replace("_", " ") for name in monitors)
    panels = [
        ("Loss", "loss"),
        (f"Validation: {validation}", ""),
        ("Relative residual of the solver", "solver_residual"),
    ]
    out = []
    for number, (title, column) in enumerate(panels):
        lines = []
        for index, row in enumerate(section.rows):
            for run in row.every:
                name = column or _monitor(run)  # the one that chose the checkpoint, a run at a time
                points = finite_points(run.results.log.get(name, [])) if run.results else []
                valid = name.startswith("val_")
                dashed = index % (2 * len(COLOURS)) >= len(COLOURS)
                lines.append(Series(row.label, points, not valid, dashed, valid and len(points) < 40, index))
        logarithmic = column == "solver_residual"
        drawn = [one.colour or 0 for one in lines if any(y > 0 or not logarithmic for _, y in one.points)]
        svg = line_chart(
            f"{identifier}-{number}", lines, title=title, x_label="optimizer step", log_y=logarithmic, width=1.1
        )
        if svg:
            repeats = len(set(drawn)) > len(COLOURS)
            caption = f"Rows beyond the first {len(COLOURS)} repeat the colours, dashed." if repeats else ""
            out.append(Chart(title, svg, caption))
    return out


def _monitor(run: SweepRun) -> str:
    return str(run.config.get("monitor") or "val_weighted_f")
