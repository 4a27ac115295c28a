"""A trained network with what it takes to use it as it was evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
