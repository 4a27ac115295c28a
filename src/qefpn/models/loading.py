"""A trained network from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from qefpn.errors import UserError
from qefpn.models.budgets import KEY, use_budget
from qefpn.models.network import QEFPN
from qefpn.models.packed import SUFFIX, network_file
from qefpn.models.weights import read_checkpoint, refuse_named_classes
from qefpn.parts import allowed, without_removed

PREFIX = "network."
FILLED_IN = (f"{PREFIX}mean", f"{PREFIX}std")
"""Entries that the network fills in where a checkpoint of an earlier version lacks them."""


def load_model(path: str | Path | None = None, *, budget: str | None = None, allow: Sequence[str] = ()) -> QEFPN:
    """The network of a Lightning checkpoint, or one that comes with the package, on the CPU and in evaluation mode.

    Reads ``hyper_parameters["network"]`` (the arguments of ``QEFPN``) and the entries of ``state_dict``
    that begin with "network.". Nothing but tensors and plain values is ever unpickled.

    Args:
        path: the file; the name of a network that comes with the package, such as "mobile"; ``None`` for the usual one.
        budget: "fast", "balanced" or "exact" (:mod:`qefpn.models.budgets`); ``None`` for "exact".
        allow: packages beside ours that parts of the network may be of, such as ``["my_package"]``: they are imported.

    Raises:
        UserError: no such file, no such checkpoint, or one that does not fit this version's network; a budget that was
            not chosen for it.
    """
    with allowed(allow):
        return load_trained(path, budget).network


def network_of(content: Mapping[str, Any], path: str | Path) -> QEFPN:
    """As :func:`load_model`, from what a checkpoint holds; ``path`` is for the error messages."""
    settings = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    options = settings.get("network") if isinstance(settings, Mapping) else None
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(options, Mapping) or not isinstance(state, Mapping):
        if Path(path).suffix == SUFFIX:
            raise UserError(f"{path}: the card that says what network it is, {Path(path).stem}.json, is missing")
        raise UserError(f"{path}: is no checkpoint of qefpn train (it has no hyper_parameters.network and state_dict)")
    refuse_named_classes(options, path)
    options = without_removed(options, str(path))
    own: dict[str, Tensor] = {
        key.removeprefix(PREFIX).removeprefix("_orig_mod."): value
        for key, value in state.items()
        if key.startswith(PREFIX)
    }
    _refuse_oversized(options, own, path)
    try:
        # the checkpoint holds the backbone's weights: none are downloaded or read from elsewhere
        network = QEFPN.of_options(options)
        network.load_state_dict(own)
    except (TypeError, ValueError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).strip().splitlines()]
        raise UserError(f"{path}: does not fit this version's network ({' '.join(lines[:2])[:200]})") from error
    return network.eval()


def _refuse_oversized(options: Mapping[str, Any], own: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse settings of a network far larger than the weights beside them, before its memory is asked for."""
    widest = max((side for value in own.values() for side in value.shape), default=0)
    for keys, limit in (
        (("channels", "expansion") if options.get("pyramid") != "none" else ("channels",), widest),
        (("decoder_channels",), widest),
        (("decoder_passes",), len(own)),
    ):
        values = [options[key] for key in keys if isinstance(options.get(key), int)]
        if math.prod(values) > max(limit, 1):
            given = ", ".join(f"{key}={options[key]}" for key in keys if key in options)
            raise UserError(f"{path}: does not fit this version's network ({given} is too large for its weights)")


@dataclass(frozen=True)
class TrainedNetwork:
    """A network in evaluation mode, and the side of its test pictures in pixels."""

    network: QEFPN
    image_size: int


def load_trained(path: str | Path | None, budget: str | None = None) -> TrainedNetwork:
    """Read a checkpoint of ``qefpn train``, or a network that comes with the package, as :func:`load_model` does.

    Raises:
        UserError: as :func:`load_model`.
    """
    path = network_file(path)
    content = read_checkpoint(path)
    network = network_of(content, path)
    own = content.get("qefpn")
    use_budget(network, own.get(KEY) if isinstance(own, Mapping) else None, budget, path)
    return TrainedNetwork(network, int(content["hyper_parameters"].get("image_size", 352)))
