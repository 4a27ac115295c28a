"""Score edge cases with the published code of F3Net and of sal_eval_toolbox, run by octave; keep inputs and outputs.

python -m tests.metrics.octave.make F3NET TOOLBOX

F3NET holds the .m files of github.com/weijun-arc/F3Net, folder eval, commit 006c19a; TOOLBOX those of
github.com/ArcherFMY/sal_eval_toolbox, folder tools/Curve_BenchCode, commit 5f4e5d0, and Emeasure_calu.m of its fork
BarCodeReader/SODEvalToolkit, commit 3cf849e, its function named as its file. They are not kept here. Octave's own are
std, mean, mean2, fspecial, imfilter, histc, exp and every sum (Debian's octave 7.3 with octave-image 2.14); its
mat2gray and bwdist differ from MATLAB's, and those beside this file stand in for them. Map and mask have one size, so
that imresize, of which octave's differs too, has nothing to do. The toolbox's S-measure is not in it: F3Net's, clamped.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).parent
KEPT = HERE / "edge_cases.npz"
SIZE = (14, 18)


def ellipse(size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask with one object, off the centre."""
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, (size[1] // 3, size[0] // 2), (size[1] // 5 + 1, size[0] // 4 + 1), 20, 0, 360, 255, -1)
    return mask


def tie(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A map in which twice the mean, in exact arithmetic, is a level that a pixel has; and a mask."""
    mask = np.zeros((4, 5), np.uint8)
    mask[:2, 1:4] = 255
    while True:
        saliency = rng.integers(0, 60, mask.shape).astype(np.uint8)
        above = saliency.astype(int) - saliency.min()
        if 2 * above.sum() in above.size * above:
            return saliency, mask


def cases() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Names, maps and masks."""
    rng = np.random.default_rng(90)
    mask = ellipse()
    soft = cv2.GaussianBlur(mask, (0, 0), 2.0)
    noisy = (soft * 0.7 + rng.integers(0, 70, SIZE)).astype(np.uint8)
    for value in (0, 1, 25, 127, 128, 254, 255):
        yield f"map of {value}", np.full(SIZE, value, np.uint8), mask
        yield f"mask of {value}", noisy, np.full(SIZE, value, np.uint8)
    yield "map and mask of one value", np.full(SIZE, 77, np.uint8), np.full(SIZE, 9, np.uint8)
    ramp = np.tile(np.arange(256, dtype=np.uint8).reshape(16, 16), (2, 2))
    wide = ellipse((32, 32))
    yield "every level", ramp, wide
    for low, high in ((0, 254), (3, 250), (17, 66), (100, 149), (1, 2), (0, 49), (5, 254)):
        narrow = (low + ramp.astype(np.int64) * (high - low) // 255).astype(np.uint8)
        yield f"levels {low} to {high}", narrow, wide
    for low, high in ((0, 2), (40, 160), (0, 98), (7, 209), (1, 255), (10, 30)):
        grey = rng.choice([low, (low + high) // 2, (low + high) // 2 + 1, high], SIZE).astype(np.uint8)
        grey[0, 0], grey[-1, -1] = low, high
        yield f"greys half way of {low} to {high}", noisy, grey
    yield "a perfect map", mask, mask
    yield "its inverse", 255 - mask, mask
    yield "a soft map", soft, mask
    for number in range(12):  # twice the mean equals a level
        yield f"a tie {number}", *tie(rng)
    for number in range(3):
        quarters = cv2.resize(rng.integers(1, 255, (2, 2)).astype(np.uint8), SIZE[::-1], interpolation=0)
        yield f"quadrants of one value {number}", quarters, mask
    for name, place in (("first pixel", (0, 0)), ("last pixel", (-1, -1)), ("pixel inside", (5, 7))):
        point = np.zeros(SIZE, np.uint8)
        point[place] = 255
        yield name, noisy, point
    bottom = np.zeros(SIZE, np.uint8)
    bottom[-1] = 255
    yield "last row", noisy, bottom
    yield "half", noisy, np.repeat(np.array([0, 255], np.uint8), SIZE[1] // 2)[None].repeat(SIZE[0], 0)
    yield (
        "all but one pixel",
        noisy,
        np.where(np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) == 100, 0, 255).astype(np.uint8),
    )


def main(f3net: str, toolbox: str) -> None:
    """Write :data:`KEPT`."""
    names, maps, masks = zip(*cases(), strict=True)
    kept: dict[str, np.ndarray] = {"names": np.array(names)}
    with tempfile.TemporaryDirectory() as folder:
        for kind, pictures in (("maps", maps), ("masks", masks)):
            Path(folder, kind).mkdir()
            for number, picture in enumerate(pictures):
                cv2.imwrite(f"{folder}/{kind}/{number:03}.png", picture)
        paths = "".join(f"addpath('{Path(path).resolve()}');" for path in (f3net, toolbox, HERE))
        for protocol, function in (("f3net", "score_folders"), ("saleval", "score_saleval")):
            call = f"pkg load image; {paths} {function}('{folder}/maps', '{folder}/masks', '{folder}/out.csv')"
            subprocess.run(["octave", "--no-gui", "--quiet", "--eval", call], check=True)
            lines = Path(folder, "out.csv").read_text().splitlines()
            found = np.array([[float(value) for value in line.split(",")[1:]] for line in lines])
            kept |= {f"{protocol}_scores": found[:, :5]}
            kept |= {f"{protocol}_precision": found[:, 5:261], f"{protocol}_recall": found[:, 261:]}
    for number, (saliency, mask) in enumerate(zip(maps, masks, strict=True)):
        kept[f"map{number}"], kept[f"mask{number}"] = saliency, mask
    np.savez_compressed(KEPT, **kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
