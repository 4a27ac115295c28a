"""`qefpn report run=DIR` and `qefpn report runs=DIR`: the page of a run, or the tables of a sweep, from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qefpn.errors import UserError
from qefpn.experiments.command_line import command_help
from qefpn.experiments.composition import command_config

SUMMARY = """
qefpn report - what runs wrote, as tables and pages

qefpn report run=outputs/train/2026-01-31_12-00-00     one HTML page: settings, training, metrics, curves, cases
qefpn report runs=multirun/train/2026-01-31_12-00-00   Tables IV to VII beside the paper's: terminal, HTML,
                                                       Markdown, LaTeX, CSV; mean and deviation over seeds
"""


def main(argv: Sequence[str]) -> int:
    """0 when the report is written, 2 for a mistake in the options."""
    if any(word in ("-h", "--help") for word in argv):
        print(command_help("report", SUMMARY))
        return 0
    options = command_config("report", argv)
    if options.run is not None and options.runs is not None:
        raise UserError("run and runs are both given: run=DIRECTORY is one run, runs=DIRECTORY all those below it")
    if options.run is None and options.runs is None:
        raise UserError("run is not set: give run=DIRECTORY, or runs=DIRECTORY of a sweep")
    output = None if options.output is None else Path(str(options.output)).expanduser()
    if options.runs is not None:
        _sweep(Path(str(options.runs)).expanduser(), output)
    else:
        _run(Path(str(options.run)).expanduser(), output)
    return 0


def _run(directory: Path, output: Path | None) -> None:
    from qefpn.reporting import write_run_report

    if not directory.is_dir():
        raise UserError(f"run={directory}: there is no such directory")
    print(write_run_report(directory, output).resolve())


def _sweep(directory: Path, output: Path | None) -> None:
    from qefpn.experiments.runtime import console
    from qefpn.reporting.sweep_report import terminal_sweep, write_sweep_report

    written = write_sweep_report(directory, output)
    terminal = console()
    for part in terminal_sweep(written.report):
        terminal.print(part)
    for path in written.files:
        print(path.resolve())
