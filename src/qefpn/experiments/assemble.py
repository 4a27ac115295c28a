"""The parts of a run from its configuration: data, module and trainer, each built once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl

from qefpn.data import SaliencyDataModule
from qefpn.experiments.checks import check_devices, check_values
from qefpn.experiments.module import build_module
from qefpn.experiments.prepare import data_module
from qefpn.experiments.schema import TrainConfig
from qefpn.experiments.trainer import build_trainer
from qefpn.training.module import SaliencyModule


@dataclass(frozen=True)
class Experiment:
    """What a run is made of; nothing has been read or written yet.

    Attributes:
        config: what it was assembled from.
        directory: of the run.
        data, module: Lightning's.
        trainer: without its loggers, which begin with the run.
    """

    config: TrainConfig
    directory: Path
    data: SaliencyDataModule
    module: SaliencyModule
    trainer: pl.Trainer

    @property
    def callbacks(self) -> list[pl.Callback]:
        """The trainer's own list."""
        return self.trainer.callbacks  # type: ignore[attr-defined]


def assemble(config: TrainConfig, directory: Path) -> Experiment:
    """Build the parts of a run.

    Args:
        config: typed.
        directory: of the run.

    Raises:
        UserError: a value that cannot work, in one line that names its key.
    """
    check_values(config)
    data = data_module(config, directory)
    trainer = build_trainer(config, directory)
    check_devices(config, trainer)
    # last, since it takes longest: a second for a large backbone
    return Experiment(config, directory, data, build_module(config), trainer)
