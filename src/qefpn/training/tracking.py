"""wandb: one run a job, never from another rank than 0."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from pytorch_lightning.loggers import WandbLogger

from qefpn.errors import UserError
from qefpn.training.config import TrainConfig


def wandb_logger(config: TrainConfig, directory: Path) -> WandbLogger:
    """A WandbLogger that writes below the run directory."""
    options = config.logger
    return WandbLogger(
        project=options.project,
        entity=options.entity,
        group=options.group,
        name=options.run_name,
        tags=options.tags or None,
        save_dir=directory,
        offline=_offline(config),
        config=dataclasses.asdict(config),
    )


@contextlib.contextmanager
def tracked(config: TrainConfig) -> Iterator[None]:
    """End wandb's run with ours: the next job of a multirun is another run."""
    if config.logger.name != "wandb":
        yield
        return
    import wandb

    try:
        yield
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    wandb.finish()


def require_login(config: TrainConfig) -> None:
    """Raise ``UserError`` where a run is to be sent to wandb and no login is there."""
    if _offline(config) or os.environ.get("WANDB_API_KEY"):
        return
    import wandb

    if not wandb.api.api_key:
        raise UserError("logger=wandb has no login: run `wandb login`, set WANDB_API_KEY, or give logger.offline=true")


def _offline(config: TrainConfig) -> bool:
    return config.logger.offline or os.environ.get("WANDB_MODE") in ("offline", "disabled")
