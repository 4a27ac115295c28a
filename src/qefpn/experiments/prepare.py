"""The data of a run: drawn if synthetic, found, checked and told about, before anything is trained."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress

from qefpn.data import DataReport, synthesize
from qefpn.data.files import passed_over
from qefpn.errors import UserError
from qefpn.experiments.runtime import progress_bar
from qefpn.experiments.schema import TrainConfig, ensure, settle_root
from qefpn.parts import class_of
from qefpn.text import one_line

if TYPE_CHECKING:
    from qefpn.data import SaliencyDataModule


def prepare_data(
    config: TrainConfig, directory: Path, *, train: bool = True, data: SaliencyDataModule | None = None
) -> SaliencyDataModule:
    """The data module of a run, its pictures checked.

    Args:
        config: checked.
        directory: receives ``findings.csv`` where something is wrong with the data.
        train: False finds and checks the test sets alone.
        data: the data module, where it is built already.

    Raises:
        UserError: no data at the root, or unusable files with ``data.on_error=fail``.
    """
    with progress_bar() as progress:
        reporter = Reporter(progress)
        if config.data.name == "synthetic" and config.data.synthetic is not None:
            draw(config, reporter)
        data = data_module(config, directory) if data is None else data
        data.progress = reporter
        if train:
            data.setup("fit")
        else:
            data.setup("test")
        report = data.report()
    data.progress = None
    for line in report.lines():
        print(one_line(line))
    list_findings(report)
    if train:
        held = f", {len(data.val_pairs)} for validation" if data.val_pairs else ""
        print(f"training on {len(data.train_pairs)} pictures{held}")
    return data


def data_module(config: TrainConfig, directory: Path) -> SaliencyDataModule:
    """The data module of a run; nothing is looked at yet."""
    from qefpn.data import SaliencyDataModule  # and with it torch and Lightning, which not every command needs

    options = dataclasses.asdict(config.data)
    target = options.pop("_target_")
    options.pop("name")
    options.pop("synthetic")
    made = class_of(target, SaliencyDataModule, "data")
    return made(**options, seed=config.seed, findings_file=directory / "findings.csv")


def places(data: DictConfig) -> dict[str, Any]:
    """Where the data sets are and how they are read, for :func:`qefpn.data.describe`: the keys of sets.yaml.

    Raises:
        UserError: neither a root nor two folders are given.
    """
    settle_root(data)
    if OmegaConf.is_missing(data, "root") or data.root is None:
        raise UserError("data.root is not set: give data.root=DIR, or data.images=DIR and data.masks=DIR")
    return {
        "root": str(data.root),
        "names": name_list(data.test),
        "lists": {str(name): str(file) for name, file in data.lists.items()},
        "layout": data.layout,
        "images": data.images,
        "masks": data.masks,
    }


def name_list(value: Any) -> list[str] | None:
    """A list of names, of which one may stand without brackets; None where none are given."""
    if value is None:
        return None
    return [value] if isinstance(value, str) else [str(one) for one in value]


def list_findings(report: DataReport) -> None:
    """Print what is wrong with the data: up to twenty findings, and where all of them are."""
    for finding in report.findings[:20]:
        print(one_line(f"  {finding.level}: {finding}"))
    if report.findings:
        more = len(report.findings) - 20
        print((f"  and {more} more; " if more > 0 else "  ") + f"all findings: {report.findings_file}")


def tell_notes(report: DataReport) -> None:
    """Print what lies at the root and is no data set, a line each, up to ten."""
    for note in report.notes[:10]:
        print(f"left aside: {note}")
    if len(report.notes) > 10:
        print(f"and {len(report.notes) - 10} more are left aside")


def tell_passed_over(found: Iterable[tuple[Path, Sequence[str]]]) -> None:
    """A line on standard error for each folder or zip and its files that are no pictures by their names."""
    for folder, others in found:
        if others:
            print(one_line(f"{folder}: {passed_over(others)}"), file=sys.stderr)


def draw(config: TrainConfig, progress: Reporter | None = None) -> None:
    """Write the synthetic sets below data.root, unless they are there."""
    synthetic, sets = config.data.synthetic, (config.data.train or [], config.data.test or [])
    assert synthetic is not None
    ensure(
        all(len(names) == 1 for names in sets),
        "data=synthetic has one training and one test set: data.train=[SYN-TR] data.test=[SYN-TE]",
    )
    synthesize(
        config.data.root,
        train=synthetic.train,
        test=synthetic.test,
        size=synthetic.size,
        seed=synthetic.seed,
        train_name=sets[0][0],
        test_name=sets[1][0],
        progress=None if progress is None else lambda done, total: progress("drawing pictures", done, total),
    )


class Reporter:
    """Calls ``(what, done, total)`` as bars."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)  # type: ignore[arg-type]
