"""What a film gains from beginning each solve at the former frame's state: steps, flicker, and what maps lose by it.

    python benchmarks/video.py [frames=48] [side=224]

The film is a photograph in the public domain (scikit-image's astronaut) over which a camera pans, stops, and leaves it
for another one (coffee, CC0): a pan of one pixel a frame, one of four, and the first with a camera's noise. Maps are
compared with those of each frame by itself.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np
from skimage import data

from qefpn import Predictor
from qefpn.inference.follow import Follower


def film(frames: int, speed: int, noise: float) -> list[np.ndarray]:
    """(360, 480, 3), uint8."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(frames):
        scene = data.coffee() if number >= 3 * frames // 4 else cv2.resize(data.astronaut(), (900, 900))
        panned = min(number, frames // 2) - max(0, min(number, frames // 2) - frames // 4)  # then it stands still
        x = speed * panned
        picture = scene[20:380, x : x + 480].astype(np.float32)
        if noise:
            picture = picture + rng.normal(0, noise, picture.shape)
        made.append(np.clip(picture, 0, 255).round().astype(np.uint8))
    return made


def main(words: list[str]) -> int:
    """Print a line a film."""
    options = {"frames": 48, "side": 224} | {key: int(value) for key, _, value in (w.partition("=") for w in words)}
    print(
        "| film | evaluations, from zero | from the former state | flicker, from zero | from the former | maps differ |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, speed, noise in (("1 px a frame", 1, 0.0), ("4 px a frame", 4, 0.0), ("1 px, noise of 2", 1, 2.0)):
        predictor = Predictor(image_size=options["side"])
        warm, cold = Follower(predictor), Follower(predictor, warm=False)
        off = [
            float(np.abs(warm(picture).astype(int) - cold(picture)).mean()) / 255
            for picture in film(options["frames"], speed, noise)
        ]
        print(
            f"| {name} | {cold.evaluations / cold.frames:.2f} | {warm.evaluations / warm.frames:.2f} | "
            f"{cold.flicker.mean:.5f} | {warm.flicker.mean:.5f} | {np.mean(off):.4f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
