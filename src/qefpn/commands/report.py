"""`qefpn report run=DIR`: the HTML page of a run, written again from its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from qefpn.commands.overrides import command_config, command_help
from qefpn.errors import UserError
from qefpn.reporting import write_run_report

SUMMARY = """
qefpn report - one HTML page of a run: settings, training, metrics, curves, best and worst cases

qefpn report run=outputs/train/2026-01-31_12-00-00
"""


def main(argv: Sequence[str]) -> int:
    """0 when the page is written, 2 for a mistake in the options."""
    if any(word in ("-h", "--help") for word in argv):
        print(command_help("report", SUMMARY))
        return 0
    options = command_config("report", argv)
    if OmegaConf.is_missing(options, "run"):
        raise UserError("run is not set: give run=DIRECTORY")
    directory = Path(str(options.run)).expanduser()
    if not directory.is_dir():
        raise UserError(f"run={directory}: there is no such directory")
    print(write_run_report(directory, options.output).resolve())
    return 0
