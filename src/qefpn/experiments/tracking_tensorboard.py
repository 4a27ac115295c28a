"""TensorBoard: the same figures, pictures and curves below ``tensorboard/`` of the run directory."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from qefpn.errors import UserError
from qefpn.experiments.config_files import config_content
from qefpn.experiments.schema import TrainConfig
from qefpn.text import one_line
from qefpn.training.validation_pictures import Panel, side_by_side

if TYPE_CHECKING:
    from qefpn.experiments.tracking import SetScores

THRESHOLDS = 127
"""Points of a PR curve: what TensorBoard's format takes at most."""


class TensorBoardTracker:
    """Event files below the run directory; `tensorboard --logdir SWEEP` shows all jobs of a sweep.

    Args:
        config: of the run, kept as a text and as hyperparameters.
        directory: of the run.
    """

    def __init__(self, config: TrainConfig, directory: Path) -> None:
        from pytorch_lightning.loggers import TensorBoardLogger

        try:
            str(directory.resolve()).encode()
        except UnicodeEncodeError:
            raise UserError(
                f"logger={config.logger.name}: TensorBoard writes to no directory of such a name: {directory}; "
                "give another hydra.run.dir, or logger=csv"
            ) from None
        self._config = config_content(config)
        self.logger = TensorBoardLogger(directory, name="", version="tensorboard", default_hp_metric=False)
        text = yaml.safe_dump(self._config, sort_keys=False, allow_unicode=True)
        self.logger.experiment.add_text("config", "    " + text.replace("\n", "\n    "))  # Markdown for code

    def pictures(self, panels: Sequence[Panel], step: int) -> None:
        """An image a picture: picture, mask, prediction and edges side by side."""
        for panel in panels:
            tag = f"val_pictures/{one_line(panel.name)}"  # its files hold UTF-8 alone
            self.logger.experiment.add_image(tag, side_by_side(panel), step, dataformats="HWC")

    def scores(self, scores: Sequence[SetScores], step: int) -> None:
        """``test/SET/METRIC`` as scalars and beside the hyperparameters, and PR curves a set."""
        figures = {
            f"test/{one_line(one.dataset)}/{key}": float(value) for one in scores for key, value in one.metrics.items()
        }
        self.logger.log_metrics(figures, step)
        self.logger.log_hyperparams(self._config, figures, step)
        for one in scores:
            for entrant, curve in one.curves.items():
                self._curve(f"{one_line(one.dataset)}/{entrant}", curve, step)

    def _curve(self, tag: str, curve: Mapping[str, Sequence[float]], step: int) -> None:
        # TensorBoard's first threshold is 0, ours 255
        chosen = np.linspace(0, 255, THRESHOLDS).round().astype(int)
        precision, recall = (np.asarray(curve[key])[::-1][chosen] for key in ("precision", "recall"))
        # Precision and recall are means over pictures, which no counts belong to: they stay 0.
        none = np.zeros(THRESHOLDS)
        self.logger.experiment.add_pr_curve_raw(
            tag, none, none, none, none, precision, recall, step, num_thresholds=THRESHOLDS
        )

    def finish(self, exit_code: int) -> None:
        """Write everything out; a run that failed says so."""
        if exit_code:
            self.logger.experiment.add_text("failed", f"the run ended with exit code {exit_code}")
        self.logger.experiment.flush()
        self.logger.experiment.close()


def require_tensorboard(config: TrainConfig) -> None:
    """Raise ``UserError`` where its package is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            f"logger={config.logger.name} needs the package tensorboard: pip install 'qefpn[tensorboard]', "
            "or give logger=csv or logger=wandb"
        )
