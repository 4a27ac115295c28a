"""Distances and nearest pixels against scipy, whose way to break ties the weighted F-measure follows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from tests.metrics.maps import a_mask, blobs

from qefpn.metrics.distance import FAR, REACH, lend_to_background, near_squared_distances


def masks() -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    found = [a_mask(rng, *rng.integers(1, 90, 2))[1] for _ in range(120)]
    found += [blobs(rng, 300, 411) for _ in range(4)]
    return [mask for mask in ((m > 128).astype(np.uint8) * 255 for m in found) if mask.any()]


def check(mask: np.ndarray) -> None:
    expected = np.rint(distance_transform_edt(mask == 0) ** 2)
    near = near_squared_distances(mask)
    assert near.dtype == np.uint16
    assert (near == np.minimum(expected, FAR)).all()


def test_squared_distances_are_scipys() -> None:
    for mask in masks():
        check(mask)


@pytest.mark.parametrize("threads", [1, 2])  # OpenCV may take another way on one thread
def test_far_distances_are_exact(threads: int) -> None:
    rng, former = np.random.default_rng(13), cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        for shape, points in [((1200, 810), 2), ((1200, 810), 12), ((300, 411), 3), ((40, 2000), 2)] * 3:
            mask = np.zeros(shape, np.uint8)
            mask[rng.integers(0, shape[0], points), rng.integers(0, shape[1], points)] = 255
            check(mask)
    finally:
        cv2.setNumThreads(former)


def test_intels_way_is_off_for_the_transform_only() -> None:
    former = cv2.ipp.useIPP()
    near_squared_distances(np.full((3, 3), 255, np.uint8))
    assert cv2.ipp.useIPP() == former


def test_near_background_takes_the_value_of_scipys_nearest_pixel() -> None:
    rng = np.random.default_rng(12)
    compared = 0
    for mask in masks():
        saliency = rng.integers(0, 256, mask.shape).astype(np.uint8)
        before = saliency.copy()
        rows, columns = distance_transform_edt(mask == 0, return_distances=False, return_indices=True)
        near = cv2.dilate(mask, np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)) != 0
        lent = lend_to_background(saliency, near_squared_distances(mask))
        assert (lent[near] == saliency[rows, columns][near]).all()
        assert (saliency == before).all()
        compared += int(near.sum())
    assert compared > 10_000
