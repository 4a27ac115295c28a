"""Tables, curves, picture grids and the HTML report, from plain results: no model, no training."""

from __future__ import annotations

from qefpn.reporting.published import Published, load_published
from qefpn.reporting.run_report import write_run_report
from qefpn.reporting.sweep_report import write_sweep_report
from qefpn.reporting.sweep_runs import SweepRun, read_sweep
from qefpn.reporting.tables import markdown_table, metric_tables, terminal_table

__all__ = [
    "Published",
    "SweepRun",
    "load_published",
    "markdown_table",
    "metric_tables",
    "read_sweep",
    "terminal_table",
    "write_run_report",
    "write_sweep_report",
]
