"""Maps of a film's frames: each solve begins at the equilibrium of the frame before."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from qefpn.data.reading import TestTransform
from qefpn.inference.predictor import Predictor, to_maps

CUT = 0.15
"""Mean change of a picture's thumbnail, of its range, from which on a frame begins another scene."""
STILL = 2
"""A pixel stands still where no channel changes by more than this, of 255."""
_THUMBNAIL = 32


@dataclass
class Flicker:
    """How much maps change where the pictures do not.

    Attributes:
        total: of the maps' changes, in [0, 1], over all still pixels.
        pixels: that stood still.
    """

    total: float = 0.0
    pixels: int = 0
    _former: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, picture: np.ndarray, saliency: np.ndarray) -> None:
        """The next frame (H, W, 3) and its map (H, W), uint8."""
        if self._former is not None and self._former[0].shape == picture.shape:
            still = cv2.absdiff(picture, self._former[0]).max(axis=2) <= STILL
            self.total += float(cv2.absdiff(saliency, self._former[1])[still].sum()) / 255
            self.pixels += int(still.sum())
        self._former = picture, saliency

    @property
    def mean(self) -> float:
        """Mean change of the map from frame to frame where the picture stands still, in [0, 1]; NaN without any."""
        return self.total / self.pixels if self.pixels else float("nan")


@dataclass
class Follower:
    """A network as a function from a film's frames, in order, to their maps.

    Args:
        predictor: the network.
        warm: begin each solve at the former frame's state; else at zero, as for a picture by itself.

    Attributes:
        frames: seen so far.
        scenes: begun so far. A new one is solved from zero.
        evaluations: of f_theta, of all frames together; 0 of a network that solves nothing.
        flicker: of the maps.
    """

    predictor: Predictor
    warm: bool = True
    frames: int = 0
    scenes: int = 0
    evaluations: int = 0
    residual: float = 0.0
    flicker: Flicker = field(default_factory=Flicker)
    _state: tuple[torch.Tensor, ...] | None = None
    _thumbnail: np.ndarray | None = None

    def __post_init__(self) -> None:
        self._resize = TestTransform(self.predictor.image_size)

    @torch.no_grad()
    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """The map (H, W) of the next frame (H, W, 3); uint8."""
        small = cv2.resize(picture, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
        if self._thumbnail is None or float(np.abs(small - self._thumbnail).mean()) > CUT * 255:
            self.scenes += 1
            self._state = None
        self._thumbnail = small
        image = torch.from_numpy(self._resize(picture))[None].permute(0, 3, 1, 2).to(self.predictor.device)
        output = self.predictor.network.run(image, start=self._state if self.warm else None)
        if output.solution is not None:
            self._state = output.state
            self.evaluations += int(output.solution.stats.evaluations[0])
            self.residual += float(output.solution.stats.relative_residual[0])
        self.frames += 1
        (saliency,) = to_maps(output.logits, [picture.shape[:2]])
        self.flicker.add(picture, saliency)
        return saliency
