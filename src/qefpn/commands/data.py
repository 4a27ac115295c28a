"""`qefpn data list | verify | download | synthesize`: what is there, whether it is whole, and how to get it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from qefpn.data import DATASETS, DataReport, describe, synthesize
from qefpn.data.download import download
from qefpn.data.files import open_tree
from qefpn.errors import UserError
from qefpn.experiments.command_line import command_help
from qefpn.experiments.composition import command_config
from qefpn.experiments.idle_keys import refuse_others_keys
from qefpn.experiments.prepare import Reporter, list_findings, name_list, places, tell_notes, tell_passed_over
from qefpn.experiments.runtime import console, progress_bar
from qefpn.text import one_line

SUMMARY = """
qefpn data - what data sets are there, whether they are whole, and pictures drawn on the spot

qefpn data list                     the data sets of the field, with their official counts
qefpn data list data.root=DIR       what is below DIR, and in which layout
qefpn data verify data.root=DIR     open every picture and mask; what is wrong is counted and listed
qefpn data download data.root=DIR   the published sets, from their authors' servers or a mirror of one's own
qefpn data synthesize data.root=DIR draw a training and a test set
"""

ACTIONS = ("list", "verify", "download", "synthesize")


def main(argv: Sequence[str]) -> int:
    """0 when all is well, 1 when verify found errors, 2 for a mistake in the options."""
    if not argv or any(word in ("-h", "--help") for word in argv):
        print(command_help("data_command", SUMMARY))
        return 0 if argv else 2
    action, *rest = argv
    if action not in ACTIONS:
        raise UserError(f"there is no `data {action}`; there are: {', '.join(ACTIONS)}")
    options = command_config("data_command", rest)
    refuse_others_keys(action, rest)
    rooted = not OmegaConf.is_missing(options.data, "root")
    outright = options.data.images is not None or options.data.masks is not None
    if action == "list" and not rooted and not outright:
        return list_known()
    if not rooted and (action in ("download", "synthesize") or not outright):
        raise UserError("data.root is not set: give data.root=DIR")
    return {"list": list_found, "verify": verify, "download": fetch_sets, "synthesize": draw}[action](options)


def list_known() -> int:
    """The registry."""
    table = Table(header_style="bold")
    table.add_column("data set")
    table.add_column("pictures", justify="right")
    table.add_column("used for")
    for name, info in DATASETS.items():
        table.add_row(name, f"{info.count:,}", info.role)
    console().print(table)
    return 0


def survey(options: DictConfig, *, check: bool) -> DataReport:
    """Find, pair and, if asked for, open everything."""
    with progress_bar() as progress:
        return describe(
            **places(options.data),
            check=check,
            findings_file=options.output,
            progress=Reporter(progress),
        )


def list_found(options: DictConfig) -> int:
    """What is below data.root, a line a set."""
    report = survey(options, check=False)
    for line in report.lines():
        print(one_line(line))
    tell_notes(report)
    return 0


def verify(options: DictConfig) -> int:
    """Every finding, up to twenty in the terminal, all in a file."""
    report = survey(options, check=bool(options.check))
    for line in report.lines():
        print(one_line(line))
    list_findings(report)
    tell_notes(report)
    tell_passed_over((one.path, open_tree(one.path).others) for one in report.sets)
    if not report.findings:
        print("nothing is wrong")
    return 1 if report.errors else 0


def fetch_sets(options: DictConfig) -> int:
    """Download, a line a set; 1 where a set could not be had."""
    names = name_list(options.data.test)
    complete = True
    with progress_bar() as progress:
        for outcome in download(
            str(options.data.root),
            names,
            mirror=options.download.mirror,
            keep=bool(options.download.keep),
            progress=Reporter(progress),
        ):
            complete = complete and outcome.complete
            progress.console.print(outcome.line, highlight=False, markup=False, soft_wrap=True)
    return 0 if complete else 1


def draw(options: DictConfig) -> int:
    """Write SYN-TR and SYN-TE below data.root."""
    settings = options.synthetic
    with progress_bar() as progress:
        reporter = Reporter(progress)
        synthesize(
            options.data.root,
            train=settings.train,
            test=settings.test,
            size=settings.size,
            seed=settings.seed,
            progress=lambda done, total: reporter("drawing pictures", done, total),
        )
    print(f"{settings.train} training and {settings.test} test pictures in {Path(options.data.root)}")
    return 0
