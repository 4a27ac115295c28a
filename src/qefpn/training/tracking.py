"""wandb: one run a job, never from another rank than 0."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from pytorch_lightning.loggers import WandbLogger

from qefpn.errors import UserError
from qefpn.training.config import TrainConfig


def wandb_logger(config: TrainConfig, directory: Path) -> WandbLogger:
    """A WandbLogger that writes below the run directory.

    Raises:
        UserError: online without a login.
    """
    options = config.logger
    offline = options.offline or os.environ.get("WANDB_MODE") in ("offline", "disabled")
    if not offline and not _logged_in():
        raise UserError(
            "logger=wandb has no login: run `wandb login`, set WANDB_API_KEY, or give logger.offline=true"
        )
    return WandbLogger(
        project=options.project,
        entity=options.entity,
        group=options.group,
        name=options.run_name,
        tags=options.tags or None,
        save_dir=directory,
        offline=offline,
        config=dataclasses.asdict(config),
    )


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    return bool(wandb.api.api_key)
