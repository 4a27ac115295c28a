"""What `qefpn analyze` works on: a trained or a fresh network, and pictures that are read or drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from qefpn.data import read_image
from qefpn.data.reading import TestTransform
from qefpn.data.survey import describe, locate
from qefpn.data.synthetic import render
from qefpn.errors import UserError
from qefpn.experiments.module import network_options
from qefpn.experiments.prepare import places
from qefpn.experiments.run_config import run_config
from qefpn.experiments.schema import build_named, ensure, parse_config
from qefpn.models import QEFPN
from qefpn.models.loading import load_trained

FRESH = ("backbone", "pyramid", "decoder")
"""Groups of a fresh network."""
FIXED = {"solver": "broyden", "residual": "equilibrium", "adjoint": "implicit"}
PICTURES = 16
FRESH_SIZE = 112
"""Side of a fresh network's pictures, in pixels."""

Named = tuple[str, str]
"""Data set and picture."""


def as_list(value: Any) -> list[Any]:
    """A list of the command line, or one value that stands without brackets."""
    return list(value) if OmegaConf.is_list(value) else [value]


def chosen_network(options: DictConfig) -> tuple[QEFPN, int]:
    """The network that options name, and the side of its pictures in pixels.

    Raises:
        UserError: a checkpoint that cannot be read, or a network that cannot be.
    """
    if options.checkpoint is not None:
        loaded = load_trained(Path(str(options.checkpoint)).expanduser())
        return loaded.network, loaded.image_size
    parts: dict[str, Any] = {key: OmegaConf.to_container(options[key], resolve=True) for key in FRESH}
    parts |= {group: {"name": name} for group, name in FIXED.items()}
    arguments = network_options(parse_config(OmegaConf.create(parts | {"data": {"root": ""}})))
    torch.manual_seed(options.seed)
    return build_named("backbone, pyramid or decoder", lambda: QEFPN(**arguments)), FRESH_SIZE


class Pictures:
    """Batches of pictures, read or drawn when they are wanted.

    Attributes:
        unreadable: a line a picture that could not be read and was left out.
    """

    def __init__(self, options: DictConfig, side: int) -> None:
        self.batch_size, self.seed, self.side = int(options.data.batch_size), int(options.seed), side
        self.unreadable: list[str] = []
        self._sources: list[tuple[Named, Any]] = []
        most = PICTURES if options.pictures is None else int(options.pictures)
        if options.data.root is None and options.data.images is None and options.data.masks is None:
            self._sources = [(("synthetic", f"test_{i:05d}"), i) for i in range(most)]
            return
        where = places(options.data)
        if options.data.images is None and options.data.masks is None:
            where["names"] = _set_names(options)
        for one in describe(**where, check=False).sets:
            if one.role != "test" and options.data.test is None and one.official_count is not None:
                continue  # a published training set, where nothing was named
            pairs = list(one.usable)
            if most and len(pairs) > most:
                pairs = [pairs[int(i)] for i in np.linspace(0, len(pairs) - 1, most).round()]
            self._sources += [((one.name, pair.name), pair.image) for pair in pairs]
        ensure(bool(self._sources), f"data.root={options.data.root}: no test set is there; name one with data.test")

    def __len__(self) -> int:
        """Pictures."""
        return len(self._sources)

    def __iter__(self) -> Iterator[tuple[list[Named], list[int], torch.Tensor]]:
        """Names, numbers and uint8 images (B, 3, side, side)."""
        resize = TestTransform(self.side)
        for start in range(0, len(self), self.batch_size):
            names, numbers, images = [], [], []
            for number in range(start, min(start + self.batch_size, len(self))):
                name, source = self._sources[number]
                try:
                    drawn = isinstance(source, int)
                    image = render(self.seed, source, self.side, split="test")[0] if drawn else read_image(source)
                except (OSError, ValueError) as error:
                    self.unreadable.append(str(error).splitlines()[0])
                    continue
                names.append(name)
                numbers.append(number)
                images.append(torch.from_numpy(resize(image)))
            if images:
                yield names, numbers, torch.stack(images).permute(0, 3, 1, 2)


def _set_names(options: DictConfig) -> list[str] | None:
    """data.test; without it the test sets of the checkpoint's run that are at data.root; None for what is there."""
    if options.data.test is not None:
        return [str(name) for name in as_list(options.data.test)]
    if options.checkpoint is None:
        return None
    found = []
    try:
        names = run_config(Path(str(options.checkpoint)).expanduser()).data.test or []
    except UserError:
        names = []  # a network that something else trained
    for name in names:
        try:
            locate(options.data.root, name)
        except UserError:
            continue
        found.append(name)
    return found or None
