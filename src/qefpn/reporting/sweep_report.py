"""The report of a sweep: the paper's Tables IV to VII beside ours, in every form, and one page with the curves."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from qefpn.atomic import write_atomic
from qefpn.errors import UserError
from qefpn.reporting.published import Published, load_published
from qefpn.reporting.sections import Chart
from qefpn.reporting.sweep_curves import sweep_charts
from qefpn.reporting.sweep_latex import latex_document, latex_tables
from qefpn.reporting.sweep_tables import EXPLAINED, SweepReport, build_report
from qefpn.reporting.sweep_text import csv_figures, csv_jobs, markdown_sweep


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
        "sweep_report.tex": latex_document(report),
        "sweep_tables.tex": latex_tables(report),
        "sweep_report.csv": csv_figures(report, published),
        "sweep_jobs.csv": csv_jobs(report),
    }
    try:
        for name, text in texts.items():
            write_atomic(folder / name, text)
    except OSError as error:
        raise UserError(f"output={folder}: the report cannot be written there ({error.strerror})") from None
    return WrittenSweep(report, [folder / name for name in texts])


def render_sweep(report: SweepReport) -> str:
    """The page as text."""
    import jinja2

    templates = resources.files("qefpn.reporting") / "templates"
    names = ("sweep_report.html", "report.css")
    sources = {name: (templates / name).read_text(encoding="utf-8") for name in names}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    curves: list[tuple[str, list[Chart]]] = []
    for number, section in enumerate(report.sections):
        drawn = sweep_charts(section, f"curve{number}")
        if drawn:
            curves.append((section.title, drawn))
    groups = [
        (section.title, section, [block for block in report.blocks if block.title == section.title])
        for section in report.sections
    ]
    return environment.get_template("sweep_report.html").render(
        report=report, groups=groups, curves=curves, explained=EXPLAINED
    )
