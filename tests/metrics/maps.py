"""Pairs of 8-bit maps and masks of every sort that an evaluation meets, drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

Pair = tuple[str, np.ndarray, np.ndarray]


def blobs(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A mask of one to three ellipses, some of them cut by the border."""
    mask = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 4)):
        centre = int(rng.integers(0, width)), int(rng.integers(0, height))
        axes = int(rng.integers(1, max(2, width // 3))), int(rng.integers(1, max(2, height // 3)))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    return mask


def a_mask(rng: np.random.Generator, height: int, width: int) -> tuple[str, np.ndarray]:
    """A mask of a random sort."""
    sort = rng.choice(["blobs", "blobs", "soft", "noise", "sparse", "thin", "full", "empty", "grey"])
    if sort == "noise":
        return sort, (rng.random((height, width)) < rng.random()).astype(np.uint8) * 255
    if sort == "sparse":
        mask = np.zeros((height, width), np.uint8)
        mask[rng.integers(0, height, 3), rng.integers(0, width, 3)] = 255
        return sort, mask
    if sort == "thin":  # along one side: the centroid may leave a quadrant empty
        mask = np.zeros((height, width), np.uint8)
        side = mask if rng.random() < 0.5 else mask.T
        side[rng.choice([0, -1, len(side) // 2])] = 255
        return sort, mask
    if sort == "full":
        return sort, np.full((height, width), 255, np.uint8)
    if sort == "empty":
        return sort, np.zeros((height, width), np.uint8)
    mask = blobs(rng, height, width)
    if sort == "soft":
        mask = cv2.GaussianBlur(mask, (0, 0), 1.5)
    if sort == "grey":  # neither black nor white: the two protocols cut it differently
        mask = (40 + mask.astype(np.int64) * int(rng.integers(60, 215)) // 255).clip(0, 255).astype(np.uint8)
    return sort, mask


def a_map(rng: np.random.Generator, mask: np.ndarray) -> tuple[str, np.ndarray]:
    """A map for that mask, of a random sort."""
    height, width = mask.shape
    sorts = ("blur", "blur", "real", "random", "binary", "threshold")
    sort = rng.choice([*sorts, "few", "patches", "constant", "zero", "one", "same", "inverse"])
    if sort == "random":
        return sort, rng.integers(0, 256, (height, width)).astype(np.uint8)
    if sort == "binary":
        return sort, (rng.random((height, width)) < 0.5).astype(np.uint8) * 255
    if sort == "few":  # few levels: ties with the adaptive threshold are common
        return sort, rng.choice([0, 64, 128, 192], (height, width)).astype(np.uint8)
    if sort == "patches":  # quadrants of one value
        coarse = rng.integers(0, 256, (2, 2)).astype(np.uint8)
        return sort, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    if sort == "constant":
        return sort, np.full((height, width), rng.integers(1, 256), np.uint8)
    if sort == "zero":
        return sort, np.zeros((height, width), np.uint8)
    if sort == "one":
        return sort, np.full((height, width), 255, np.uint8)
    if sort == "same":
        return sort, mask.copy()
    if sort == "inverse":  # the S-measure's region part is negative
        return sort, 255 - mask
    blurred = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.5, 1 + width / 20)))
    if sort == "threshold":
        return sort, np.where(blurred >= rng.integers(1, 255), 255, 0).astype(np.uint8)
    if sort == "real":  # shifted, noisy and of less than the full range, as a network's
        shifted = np.roll(blurred, tuple(rng.integers(-3, 4, 2)), (0, 1)).astype(np.float64)
        noise = cv2.GaussianBlur(rng.random((height, width)), (0, 0), 3.0) - 0.5
        return sort, (shifted * rng.uniform(0.5, 1) + 60 * noise + 10).clip(0, 255).astype(np.uint8)
    return sort, blurred


def a_size(rng: np.random.Generator) -> tuple[int, int]:
    """1x1 to 8x8, or up to about 120 px, odd and even."""
    high = 9 if rng.random() < 0.4 else 120
    return int(rng.integers(1, high)), int(rng.integers(1, high))


def pairs(count: int, seed: int, size: tuple[int, int] | None = None) -> Iterator[Pair]:
    """``count`` pairs with a name that says of which sort they are."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        mask_sort, mask = a_mask(rng, *(size or a_size(rng)))
        map_sort, saliency = a_map(rng, mask)
        yield f"{number} {map_sort} map, {mask_sort} mask, {mask.shape}", saliency, mask
