"""The configuration that a checkpoint was trained with, and the directory that belongs to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from qefpn.data.registry import normalize_name
from qefpn.data.survey import locate
from qefpn.errors import UserError
from qefpn.experiments.config_files import config_of, read_config
from qefpn.experiments.schema import DataConfig, TrainConfig, settle_root
from qefpn.models.weights import read_checkpoint

__all__ = ["evaluation_data", "run_config", "run_directory"]


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


def evaluation_data(data: DataConfig, options: DictConfig) -> DataConfig:
    """Where and what to evaluate: the run's own test pictures, unless options say otherwise.

    At another root nothing is drawn, the run's test sets are looked for by name, and where the run held out a
    share of its own pictures, or none of its sets is there, all pictures at that root are scored.
    """
    given = {str(key): value for key, value in options.items() if value is not None and value != {}}
    if "lists" in given:
        given["lists"] = {str(name): str(file) for name, file in given["lists"].items()}
    if ("images" in given or "masks" in given) and "root" not in given:
        settle_root(options)
        given["root"] = options.root
    root = Path(str(given.pop("root", data.root)))
    moved = root.expanduser().resolve() != Path(data.root).expanduser().resolve()
    test = given.pop("test", None)
    names = data.test if test is None else [str(name) for name in ([test] if isinstance(test, str) else test)]
    changed = dataclasses.replace(data, root=str(root), test=names, **given)
    outright = "images" in given or "masks" in given
    if moved or test is not None or outright:
        changed = dataclasses.replace(changed, name="folder", synthetic=None)  # nothing is drawn
    if outright and test is None:
        changed.test = ["."]
    elif moved and test is None:
        there = [name for name in names or [] if _is_there(root, name)]
        absent = [name for name in names or [] if name not in there]
        if absent:
            print(f"not at {root}: {', '.join(absent)}" + ("" if there else "; all pictures there are scored"))
        changed.test = there or ["."]
    if moved or outright or "layout" in given:
        for key in ("layout", "images", "masks"):  # the run's own place, unless it was given anew
            setattr(changed, key, given.get(key))
    if "lists" not in given and (moved or test is not None):
        kept = {normalize_name(name) for name in changed.test or []}
        changed.lists = {name: file for name, file in data.lists.items() if normalize_name(name) in kept}
    return changed


def _is_there(root: Path, name: str) -> bool:
    try:
        locate(root, name)
    except UserError:
        return False
    return True
