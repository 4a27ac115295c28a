"""A few validation pictures with mask, prediction and edges, made once for every logger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from qefpn.losses import edges
from qefpn.losses.filters import Kernel

LONGEST = 256
"""Longest side of a shown picture in pixels."""

PARTS = ("picture", "mask", "prediction", "edges")


@dataclass(frozen=True)
class Panel:
    """What is shown of one validation picture; all uint8 of one size (h, w), no side above ``LONGEST``.

    Attributes:
        picture: RGB (h, w, 3), as the network saw it, in the picture's own proportions.
        mask: (h, w).
        prediction: (h, w), 0 to 255.
        edges: (h, w) of the prediction, by the filter of the run's edge loss; a straight step from black to white
            is white.
    """

    name: str
    picture: np.ndarray
    mask: np.ndarray
    prediction: np.ndarray
    edges: np.ndarray


def make_panel(
    name: str, image: Tensor, mask: Any, prediction: np.ndarray, edge_filter: str | Kernel = "sobel"
) -> Panel:
    """Shrink and draw one picture.

    Args:
        name: of the picture.
        image: uint8 (3, S, S), any device.
        mask: uint8 (H, W), array or tensor.
        prediction: uint8 (H, W).
        edge_filter: as :class:`qefpn.losses.EdgeExtractor` takes it.
    """
    height, width = prediction.shape
    scale = min(1.0, LONGEST / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def shrunk(array: np.ndarray) -> np.ndarray:
        shrinks = array.shape[0] >= size[1] and array.shape[1] >= size[0]
        return np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))

    picture = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    small = shrunk(prediction)
    # √2: the loss reads 1/√2 on a straight step, so that diagonal ones stay within 1
    drawn = edges(torch.from_numpy(small)[None, None].float() / 255, edge_filter) * 2**0.5
    return Panel(
        name,
        shrunk(picture),
        shrunk(np.asarray(torch.as_tensor(mask).cpu())),
        small,
        (drawn[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy(),
    )


def side_by_side(panel: Panel, gap: int = 4) -> np.ndarray:
    """The four of ``PARTS`` from left to right, uint8 (h, 4 w + 3 gaps, 3), white between."""
    parts = [getattr(panel, part) for part in PARTS]
    coloured = [part if part.ndim == 3 else np.repeat(part[..., None], 3, axis=2) for part in parts]
    white = np.full((panel.mask.shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([piece for part in coloured for piece in (white, part)][1:], axis=1)


def chosen_places(seen: int, count: int) -> list[int]:
    """``count`` places (or all) among ``seen`` pictures at equal distances: the same at each validation."""
    count = min(count, seen)
    return [int((place + 0.5) * seen / count) for place in range(count)]


class ValidationPictures(Callback):
    """Hands the same few pictures of each validation on, without predicting anything a second time.

    ``validation_step`` returns its maps; those of this process are chosen from.

    Args:
        count: how many.
        edge_filter: that draws the edges.
        show: called with the panels and the optimizer step that led to the validation, at its end.
    """

    def __init__(self, count: int, edge_filter: str | Kernel, show: Callable[[Sequence[Panel], int], None]) -> None:
        self.count = count
        self.edge_filter = edge_filter
        self.show = show
        self._places: set[int] = set()
        self._seen = 0
        self._panels: list[Panel] = []

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loader = trainer.val_dataloaders
        batches, size = trainer.num_val_batches[0], loader.batch_size  # type: ignore[union-attr]
        self._places = set(chosen_places(min(len(loader.sampler), int(batches * size)), self.count))  # type: ignore[union-attr]
        self._seen, self._panels = 0, []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for position, prediction in enumerate(outputs["maps"]):
            if self._seen + position in self._places:
                self._panels.append(
                    make_panel(
                        batch["name"][position],
                        batch["image"][position],
                        batch["mask"][position],
                        prediction,
                        self.edge_filter,
                    )
                )
        self._seen += len(outputs["maps"])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._panels and not trainer.sanity_checking:
            self.show(self._panels, max(0, trainer.global_step - 1))
        self._panels = []
