"""The configuration that a checkpoint was trained with, and the directory that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qefpn.errors import UserError
from qefpn.models.weights import read_checkpoint
from qefpn.training.config import TrainConfig
from qefpn.training.config_files import config_of, read_config

__all__ = ["run_config", "run_directory"]


def run_directory(checkpoint: Path) -> Path:
    """The run that a checkpoint lies in; its own folder, where it was copied out of one."""
    run = checkpoint.parent.parent
    return run if (run / "config.yaml").is_file() else checkpoint.parent


def run_config(checkpoint: Path) -> TrainConfig:
    """The configuration of the run that a checkpoint belongs to: the one that it holds, else config.yaml's.

    Raises:
        UserError: it holds none, and config.yaml does not lie beside the checkpoint's folder.
    """
    if not checkpoint.is_file():
        raise UserError(f"checkpoint={checkpoint}: there is no such file")
    stored = read_checkpoint(checkpoint)
    own = stored.get("qefpn") if isinstance(stored, Mapping) else None
    if isinstance(own, Mapping) and isinstance(own.get("config"), Mapping):
        return config_of(dict(own["config"]), checkpoint)
    path = checkpoint.parent.parent / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"{path} is missing, and {checkpoint.name} does not hold its configuration, as older checkpoints do not: "
            f"it is evaluated in the run directory that train wrote"
        )
    return read_config(path)
