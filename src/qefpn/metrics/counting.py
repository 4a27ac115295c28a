"""From pictures to their joint histogram."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qefpn.metrics.histogram import JointHistogram, of_counts
from qefpn.metrics.inputs import Picture
from qefpn.metrics.kernels import kernels
from qefpn.metrics.protocol import Protocol


def joint_histogram(pictures: Sequence[Picture], protocol: Protocol) -> JointHistogram:
    """Read the pixels of B pictures, of any sizes, into one :class:`JointHistogram`."""
    batch, count = len(pictures), kernels().count
    counts = np.empty((batch, 2, 4, 256), np.int64)
    sizes = np.array([picture.mask.shape for picture in pictures], np.int64).reshape(batch, 2)
    split = np.empty((batch, 2), np.int64)
    for i, picture in enumerate(pictures):
        split[i] = count(picture.saliency, picture.mask, protocol.matlab_centroid, counts[i])
    blank = np.array([picture.blank for picture in pictures], np.bool_)
    return of_counts(counts, sizes, split, blank, lambda i: pictures[i].saliency)
