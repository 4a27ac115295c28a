"""A trained network on pictures of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from qefpn.data import TestTransform, normalize, read_image
from qefpn.training.checkpoint import load_trained
from qefpn.training.inference import predict_maps


class Predictor:
    """A trained network as a function from a picture to its saliency map.

    Pictures are resized to the square that the network was evaluated at, and the map back to the picture's own size:
    what ``qefpn predict`` saves and what ``qefpn evaluate`` scores.

    Args:
        checkpoint: of ``qefpn train``, such as ``RUN/checkpoints/best.ckpt``.
        device: where the network runs, such as "cpu" or "cuda:0".
        image_size: side of the network's square input in pixels; None for that of the checkpoint.

    Raises:
        UserError: no checkpoint, or a damaged one; the message names the file.
        ValueError: ``image_size`` below 32.
    """

    def __init__(
        self, checkpoint: str | Path, *, device: str | torch.device = "cpu", image_size: int | None = None
    ) -> None:
        if image_size is not None and image_size < 32:
            raise ValueError(f"image_size must be at least 32, not {image_size}")
        loaded = load_trained(Path(checkpoint).expanduser())
        self.device = torch.device(device)
        self.network = loaded.network.eval().to(self.device)
        self.image_size = image_size or loaded.image_size
        self._resize = TestTransform(self.image_size)

    def __call__(self, picture: str | Path | np.ndarray) -> np.ndarray:
        """The map (H, W), uint8 from 0 to 255, of a file (read upright) or an RGB array (H, W, 3), uint8.

        Raises:
            OSError, ValueError: a file that cannot be read, or an array of another shape or type.
        """
        image = picture if isinstance(picture, np.ndarray) else read_image(Path(picture).expanduser())
        return self.batch([image])[0]

    def batch(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The maps of RGB arrays (H, W, 3), uint8, of any sizes, in one pass through the network.

        Raises:
            ValueError: an array of another shape or type.
        """
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ValueError(f"an RGB array (H, W, 3) of uint8 is needed, not {image.shape} of {image.dtype}")
        if not images:
            return []
        resized = [torch.from_numpy(self._resize(image)) for image in images]
        inputs = normalize(torch.stack(resized))
        return predict_maps(self.network, inputs.to(self.device), [image.shape[:2] for image in images])
