"""Tables, curves, picture grids and the HTML report, from plain results: no model, no training."""

from __future__ import annotations

from qefpn.reporting.comparison import benchmark_tables, run_tables
from qefpn.reporting.latex import latex
from qefpn.reporting.published import Published, load_published
from qefpn.reporting.renderers import csv_text, markdown, terminal, terminals
from qefpn.reporting.run_report import write_run_report
from qefpn.reporting.sweep_report import write_sweep_report
from qefpn.reporting.sweep_runs import SweepRun, read_sweep
from qefpn.reporting.tables import Cell, Column, Row, Table

__all__ = [
    "Cell",
    "Column",
    "Published",
    "Row",
    "SweepRun",
    "Table",
    "benchmark_tables",
    "csv_text",
    "latex",
    "load_published",
    "markdown",
    "read_sweep",
    "run_tables",
    "terminal",
    "terminals",
    "write_run_report",
    "write_sweep_report",
]
