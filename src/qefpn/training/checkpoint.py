"""A trained network with what it takes to use it as it was evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qefpn.models import QEFPN
from qefpn.models.loading import network_of
from qefpn.models.weights import read_checkpoint


@dataclass(frozen=True)
class TrainedNetwork:
    """A network in evaluation mode, and the side of its test pictures in pixels."""

    network: QEFPN
    image_size: int


def load_trained(path: Path) -> TrainedNetwork:
    """Read a checkpoint of ``qefpn train``.

    Raises:
        UserError: as :func:`qefpn.models.load_model`.
    """
    content = read_checkpoint(path)
    network = network_of(content, path)
    return TrainedNetwork(network, int(content["hyper_parameters"].get("image_size", 352)))


def begin_next_epoch(checkpoint: dict[str, Any]) -> None:
    """Clear the batches that a checkpoint saved after a whole epoch counts, in place.

    Without that Lightning, where steps bound the run, takes the next epoch for the one that is done and leaves it
    out.
    """
    loop = checkpoint.get("loops", {}).get("fit_loop")
    if loop is None:
        return
    epoch, batch = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    if epoch["ready"] == epoch["completed"] > 0 and batch["is_last_batch"]:
        batch["current"] = dict.fromkeys(batch["current"], 0)
        batch["is_last_batch"] = False
