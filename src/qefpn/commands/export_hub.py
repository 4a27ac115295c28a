"""`qefpn export format=hub`: what a run, or a card, says of a network, and the folder that goes to a hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from qefpn.errors import UserError
from qefpn.experiments.run_config import run_directory
from qefpn.inference.export import check_choices
from qefpn.inference.hub import FIGURES, write_hub_folder
from qefpn.models.loading import load_trained
from qefpn.models.packed import MODEL, SUFFIX, network_file, read_card
from qefpn.models.weights import read_checkpoint
from qefpn.text import one_line
from qefpn.version import __version__

COMPUTED = ("sha256", "network", "image_size")
"""Entries of a card that are made anew with the file."""
REFUSED = ("steps", "budget", "runtime")
"""Options that change the network of other formats; a hub's user chooses them."""


def export_hub(config: DictConfig) -> int:
    """Write the folder.

    Raises:
        UserError: an option that the format has not, a folder that cannot be written to, or a card without the terms of
            the data.
    """
    check_choices("hub", str(config.dtype))
    for key in REFUSED:
        if config[key] is not None:
            raise UserError(f"{key} is not of format=hub: the network is written as it is, and its user chooses")
    if config.image_size is not None and config.image_size < 32:
        raise UserError(f"image_size must be at least 32, not {config.image_size}")
    folder = _folder(config)
    checkpoint = network_file(config.checkpoint)
    loaded = load_trained(checkpoint)
    about = {
        "version": __version__,
        "parameters": loaded.network.parameter_counts()["total"],
        **(_of_card(checkpoint) if checkpoint.suffix == SUFFIX else _of_run(checkpoint)),
        **{key: str(value) for key, value in config.card.items() if value is not None},
    }
    if not about.get("licence"):
        raise UserError(
            "card.licence is not set: say under which terms the training data is, such as card.licence=cc-by-4.0 or "
            "card.licence='for academic use'"
        )
    side = int(config.image_size or loaded.image_size)
    if side != loaded.image_size:
        about["scores"] = {}  # which are of the other side
    size = write_hub_folder(read_checkpoint(checkpoint), folder, about, side)
    print(
        one_line(f"{folder / MODEL}: {size / 1e6:.1f} MB; README.md is its card; then: hf upload owner/name {folder}")
    )
    return 0


def _folder(config: DictConfig) -> Path:
    if OmegaConf.is_missing(config, "output") or config.output in (None, ""):
        raise UserError("output is not set: give output=FOLDER")
    folder = Path(str(config.output)).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder} is a file; format=hub writes a folder")
    if folder.is_dir() and any(folder.iterdir()) and not config.overwrite:
        raise UserError(f"output={folder} is not empty: overwrite=true replaces the network in it")
    return folder


def _of_card(checkpoint: Path) -> dict[str, Any]:
    return {key: value for key, value in read_card(checkpoint).items() if key not in COMPUTED}


def _of_run(checkpoint: Path) -> dict[str, Any]:
    """What a run says of its network; nothing that tells where on its machine it lay."""
    content = read_checkpoint(checkpoint)
    own: Mapping[str, Any] = content.get("qefpn") or {}
    config: Mapping[str, Any] = own.get("config") or {}
    data: Mapping[str, Any] = config.get("data") or {}
    drawn = data.get("name") == "synthetic"
    named = ", ".join(str(name) for name in data.get("train") or [])
    sets = "pictures drawn by qefpn (data=synthetic)" if drawn else named or "pictures of its maker's own"
    side = f" at {data['image_size']} px" if "image_size" in data else ""
    weights = (config.get("backbone") or {}).get("weights")
    start = ", on pretrained weights of the backbone" if weights is not None else ""
    return {
        "name": run_directory(checkpoint).resolve().name,
        "data": f"{sets}{side}{start}",
        "licence": "",  # which no run knows
        "recipe": {"command": f"qefpn train data={data.get('name', 'folder')}", "steps": content.get("global_step")},
        "scores": _scores(checkpoint, str(config.get("protocol", "f3net"))),
        "solver": content["hyper_parameters"]["network"]["solver"],
    }


def _scores(checkpoint: Path, protocol: str) -> dict[str, Any]:
    """Of the run's metrics.json, which is of best.ckpt."""
    try:
        found = json.loads((run_directory(checkpoint) / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if checkpoint.name != "best.ckpt" or not isinstance(found, Mapping) or not found:
        return {}
    return {protocol: {name: {key: one[key] for key in FIGURES if key in one} for name, one in found.items()}}
