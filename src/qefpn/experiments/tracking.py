"""Where a run is followed beside log.csv: wandb, TensorBoard, both or neither; one run a job, on rank 0 alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from qefpn.experiments.schema import TrainConfig
from qefpn.experiments.tracking_tensorboard import TensorBoardTracker, require_tensorboard
from qefpn.experiments.tracking_wandb import WandbTracker, require_login
from qefpn.training.validation_pictures import Panel

LOGGERS: dict[str, tuple[str, ...]] = {
    "csv": (),
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard",),
    "wandb_tensorboard": ("wandb", "tensorboard"),
}
"""Options of ``logger=`` and what each brings beside log.csv."""


@dataclass(frozen=True)
class SetScores:
    """What a run reached on one test set.

    Attributes:
        metrics: the set's entry of metrics.json.
        curves: entrant ("model", "gaussian", "untrained") → ``precision``, ``recall`` and ``f_curve``, 256 values
            each, index 0 = threshold 255.
    """

    dataset: str
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)


class Tracker(Protocol):
    """One place where a run is followed."""

    @property
    def logger(self) -> Logger:
        """For the Lightning trainer."""

    def pictures(self, panels: Sequence[Panel], step: int) -> None:
        """Show validation pictures."""

    def scores(self, scores: Sequence[SetScores], step: int) -> None:
        """Show figures and curves of the test sets."""

    def finish(self, exit_code: int) -> None:
        """Write everything out and close; ``exit_code`` is not 0 where the run failed."""


class Tracking:
    """The trackers of one run; on ranks above 0, and with ``logger=csv``, there are none."""

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self.trackers = list(trackers)
        self.step = 0  # optimizer steps done, for what is logged after training

    @property
    def loggers(self) -> list[Logger]:
        """For the Lightning trainer."""
        return [tracker.logger for tracker in self.trackers]

    def pictures(self, panels: Sequence[Panel], step: int) -> None:
        """Show validation pictures everywhere."""
        for tracker in self.trackers:
            tracker.pictures(panels, step)

    def scores(self, directory: Path) -> None:
        """Show what an evaluation wrote to the run directory: figures a test set, PR and F-measure curves."""
        found = read_scores(directory) if self.trackers else []
        for tracker in self.trackers if found else ():
            tracker.scores(found, max(0, self.step - 1))

    def finish(self, exit_code: int) -> None:
        """Close every tracker, also where one fails at it."""
        with contextlib.ExitStack() as stack:
            for tracker in self.trackers:
                stack.callback(tracker.finish, exit_code)
        self.trackers = []


@contextlib.contextmanager
def tracked(config: TrainConfig, directory: Path) -> Iterator[Tracking]:
    """Follow a run from its start to its end, whatever that is.

    Args:
        config: checked (:func:`check_logger` among the rest).
        directory: of the run.

    Raises:
        UserError: wandb refuses to start a run.
    """
    tracking = Tracking()
    try:
        if getattr(rank_zero_only, "rank", 0) == 0 and not config.trainer.fast_dev_run:  # which keeps nothing
            directory.mkdir(parents=True, exist_ok=True)
            names = LOGGERS[config.logger.name]
            if "wandb" in names:
                tracking.trackers.append(WandbTracker(config, directory))
            if "tensorboard" in names:
                tracking.trackers.append(TensorBoardTracker(config, directory))
        yield tracking
    except BaseException:
        tracking.finish(1)
        raise
    tracking.finish(0)


def check_logger(config: TrainConfig) -> None:
    """Raise ``UserError`` where a chosen logger cannot work: no login, no package."""
    names = LOGGERS[config.logger.name]
    if "wandb" in names:
        require_login(config)
    if "tensorboard" in names:
        require_tensorboard(config)


def read_scores(directory: Path) -> list[SetScores]:
    """``metrics.json`` and ``curves.json`` of a run directory; empty where nothing was scored."""
    contents: list[dict[str, Any]] = []
    for name in ("metrics.json", "curves.json"):
        path = directory / name
        contents.append(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})
    metrics, curves = contents
    return [SetScores(dataset, figures, curves.get(dataset, {})) for dataset, figures in metrics.items()]
