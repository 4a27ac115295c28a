"""Weighted F-measure (Margolin et al., CVPR 2014): exact distances where they matter, and nothing stored of them.

Distances come from two passes. Along the columns, a running count up and one down give each pixel's distance ``g`` to
the foreground of its column. Along a row, ``d^2(x) = min over c of g(c)^2 + (x - c)^2``. Its argument grows with x: of
the smallest ``c`` that reaches the minimum, that of a pixel is never left of that of a pixel further left. So the
argument at every 32nd pixel bounds those between, and trying all of these, 32 pixels at once, costs about one vector
operation a pixel. Everything is an integer; from 256 px on a distance is ``FAR``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np
import numpy.typing as npt

from qefpn.metrics.compiled import BYTES, compiled
from qefpn.metrics.histogram import JointHistogram
from qefpn.metrics.inputs import Picture, UInt8
from qefpn.metrics.protocol import EPS, Float, Protocol

REACH = 3
"""How far, in Chebyshev distance, background can lie from the foreground whose window it enters."""

FAR = 65535
"""Stands for the squared distance of every pixel that is 256 px or more away."""

_NEAR = 2 * REACH * REACH  # the largest squared distance within that reach
_SIGMA = 5.0
_GAUSS = np.exp(-(np.arange(-REACH, REACH + 1.0) ** 2) / (2 * _SIGMA**2))
_GAUSS /= _GAUSS.sum()  # (7,) one side of the separable window


def _weights(single: bool) -> Float:
    """(65536,) the weight of an error in the background by squared distance; 0 in the foreground. From 256 px on it is
    2 to within 4e-16. In single precision every operation rounds once, as octave's do."""
    kind = np.float32 if single else np.float64
    exponent = kind(np.log(0.5) / 5) * np.sqrt(np.arange(FAR + 1)).astype(kind)
    decay = np.exp(exponent.astype(np.float64)).astype(kind)
    return (kind(2) - decay).astype(np.float64) - (np.arange(FAR + 1) == 0)


WEIGHTS = {single: _weights(single) for single in (False, True)}
"""By whether distances are single precision."""


def _nearest_offsets() -> npt.NDArray[np.int64]:
    """(19, 8, 2) for each squared distance up to 18 the (row, column) offsets of that length.

    They come in the order in which scipy prefers equally near pixels: by column, then by row. Places left over repeat
    the first offset.
    """
    pad = int(_NEAR**0.5)
    table = np.zeros((_NEAR + 1, 8, 2), np.int64)
    reach = range(-pad, pad + 1)
    for length in range(1, _NEAR + 1):
        offsets = [(row, column) for column in reach for row in reach if row**2 + column**2 == length]
        if offsets:
            table[length] = offsets + offsets[:1] * (8 - len(offsets))
    return table


_OFFSETS = _nearest_offsets()

_BLOCK = 32
_LIMIT = 256  # px from which on a distance is FAR
_SPAN = _LIMIT + 2 * _BLOCK  # the tables reach further than any pair of a block's pixel and a candidate
_BITS = 10  # of a candidate's place within the at most 513 looked at
_PLACE = (1 << _BITS) - 1
_STEPS = np.arange(-_SPAN, _SPAN + 1)
_SQUARES = np.minimum(_STEPS**2, FAR).astype(np.uint16)
_PACKED = (_STEPS**2 << _BITS).astype(np.int32)
_UNROLL = 4


@compiled()
def _count_down(mask, below):  # type: ignore[no-untyped-def]
    """Distance to the foreground below in the same column, at most _LIMIT: (H + 1, W), the last row outside."""
    height, width = mask.shape
    below[height, :] = _LIMIT
    for row in range(height - 1, -1, -1):
        inside, former, line = mask[row], below[row + 1], below[row]
        for c in range(width):
            further = np.uint16(former[c] + 1)
            further = further if further < _LIMIT else np.uint16(_LIMIT)
            line[c] = further if inside[c] == 0 else np.uint16(0)


@compiled()
def _column_distances(inside, below, above, g, squares, packed):  # type: ignore[no-untyped-def]
    """One row's ``g``, its square, and that square with room for a place; ``above`` is carried from row to row."""
    for c in range(len(inside)):
        further = np.uint16(above[c] + 1)
        further = further if further < _LIMIT else np.uint16(_LIMIT)
        further = further if inside[c] == 0 else np.uint16(0)
        above[c] = further
        distance = min(further, below[c])
        g[c] = distance
        square = np.int32(distance) * np.int32(distance)
        squares[c] = np.uint16(square) if square < FAR else np.uint16(FAR)
        packed[c] = np.int32(square << _BITS)


@compiled()
def _nearest(packed, x, low, high):  # type: ignore[no-untyped-def]
    """The smallest squared distance of pixel x over the candidates low..high, and the first that reaches it."""
    values, steps = packed[low : high + 1], _PACKED[low - x + _SPAN : high - x + _SPAN + 1]
    best = np.int32(0x7FFFFFFF)
    for k in range(len(values)):
        best = min(best, np.int32(values[k] + steps[k] + np.int32(k)))
    return best >> _BITS, low + (best & _PLACE)


@compiled()
def _bounds(g, packed, x, known, lowest):  # type: ignore[no-untyped-def]
    """Squared distance at pixel x, and between which candidates those of its neighbours on both sides begin and end.

    ``known`` is an upper bound of the distance, ``lowest`` the first candidate that can count.
    """
    radius = min(np.int64(g[x]), known)
    low, high = max(x - radius, lowest), min(x + radius, len(g) - 1)
    squared, place = _nearest(packed, x, low, high)
    if squared < _LIMIT * _LIMIT:
        return squared, place, place
    return squared, max(x - _LIMIT, lowest), min(x + _LIMIT, len(g) - 1)


@compiled()
def _fill(squares, first, low, high, out):  # type: ignore[no-untyped-def]
    """Squared distances of the pixels from ``first`` on over the candidates low..high (and a few more, which do no
    harm); ``squares`` has ``_UNROLL`` places more than the row."""
    out[:] = FAR
    for c in range(low, high + 1, _UNROLL):
        start = first - c + _SPAN - _UNROLL + 1
        steps = _SQUARES[start : start + _BLOCK + _UNROLL]
        a0, a1, a2, a3 = squares[c], squares[c + 1], squares[c + 2], squares[c + 3]
        for i in range(_BLOCK):
            d0, d1 = np.uint16(a0 + steps[i + 3]), np.uint16(a1 + steps[i + 2])
            d2, d3 = np.uint16(a2 + steps[i + 1]), np.uint16(a3 + steps[i])
            d0 = d0 if d0 >= a0 else np.uint16(FAR)  # 16 bits have overflown
            d1 = d1 if d1 >= a1 else np.uint16(FAR)
            d2 = d2 if d2 >= a2 else np.uint16(FAR)
            d3 = d3 if d3 >= a3 else np.uint16(FAR)
            out[i] = min(out[i], min(min(d0, d1), min(d2, d3)))


@compiled()
def _wanted(values, inside, g, first, last, lowest):  # type: ignore[no-untyped-def]
    """Whether a block has false pixels, and whether it has background in reach of the foreground."""
    false = np.uint8(0)
    furthest = np.uint16(0)
    for c in range(first, last):
        false |= np.uint8(values[c] >= lowest) & np.uint8(inside[c] == 0)
        furthest = max(furthest, g[c])
    nearest = np.uint16(_LIMIT)
    for c in range(max(first - REACH, 0), min(last + REACH, len(g))):
        nearest = min(nearest, g[c])
    return false != 0, furthest > 0 and nearest <= REACH


@compiled()
def _weighted_sum(values, squared, levels, weights):  # type: ignore[no-untyped-def]
    """Sum of level times weight; four sums, since an addition waits for the one before it."""
    s0 = s1 = s2 = s3 = 0.0
    whole = len(values) // 4 * 4
    for i in range(0, whole, 4):
        s0 += levels[values[i]] * weights[squared[i]]
        s1 += levels[values[i + 1]] * weights[squared[i + 1]]
        s2 += levels[values[i + 2]] * weights[squared[i + 2]]
        s3 += levels[values[i + 3]] * weights[squared[i + 3]]
    for i in range(whole, len(values)):
        s0 += levels[values[i]] * weights[squared[i]]
    return (s0 + s1) + (s2 + s3)


@compiled()
def _lend(saliency, mask, row, first, last, squared, top, errors):  # type: ignore[no-untyped-def]
    """The error that background in reach of the foreground takes from the nearest pixel, by scipy's rule."""
    height, width = mask.shape
    for i in range(last - first):
        length = squared[i]
        if length == 0 or length > _NEAR:
            continue
        for k in range(_OFFSETS.shape[1]):
            r, c = row + _OFFSETS[length, k, 0], first + i + _OFFSETS[length, k, 1]
            if 0 <= r < height and 0 <= c < width and mask[r, c]:
                errors[row + REACH, first + i + REACH] = top - saliency[r, c]
                break


@compiled(fastmath={"reassoc", "contract", "nsz"})
def _mean_errors(errors, inside, row, first, number, gauss, across):  # type: ignore[no-untyped-def]
    """Sum over a block's foreground of the smaller of its own error and the window's mean."""
    top, bottom = errors[row, first:], errors[row + 6, first:]
    upper, lower = errors[row + 1, first:], errors[row + 5, first:]
    above, below, own = errors[row + 2, first:], errors[row + 4, first:], errors[row + 3, first:]
    g0, g1, g2, g3 = gauss[3], gauss[2], gauss[1], gauss[0]
    for i in range(number + 2 * REACH):
        far, middle = np.int32(top[i]) + np.int32(bottom[i]), np.int32(upper[i]) + np.int32(lower[i])
        near = np.int32(above[i]) + np.int32(below[i])
        across[i] = g0 * np.int32(own[i]) + g1 * np.int32(near) + g2 * np.int32(middle) + g3 * np.int32(far)
    total = 0.0
    for i in range(number):
        mean = g0 * across[i + 3] + g1 * (across[i + 2] + across[i + 4])
        mean += g2 * (across[i + 1] + across[i + 5]) + g3 * (across[i] + across[i + 6])
        smaller = min(mean, np.float64(np.int32(own[i + 3])))
        total += smaller if inside[i] else 0.0
    return total


@compiled()
def _missed(errors, mask, gauss):  # type: ignore[no-untyped-def]
    """Sum over the foreground of the smaller error, block by block where one is not 0."""
    height, width = mask.shape
    across = np.empty(_BLOCK + 2 * REACH)
    total = 0.0
    for row in range(height):
        inside, own = mask[row], errors[row + REACH, REACH:]
        for first in range(0, width, _BLOCK):
            last = min(first + _BLOCK, width)
            wrong = np.uint8(0)
            for c in range(first, last):
                wrong |= inside[c] & own[c]
            if wrong:
                total += _mean_errors(errors, inside[first:last], row, first, last - first, gauss, across)
    return total


@compiled(
    numba.types.UniTuple(numba.float64, 2)(
        *(BYTES, BYTES, numba.float64[::1], numba.types.Array(numba.float64, 1, "C", readonly=True)),
        *(numba.int64, numba.int64),
    )
)
def _errors(saliency, mask, levels, weights, lowest, top):  # type: ignore[no-untyped-def]
    """Sum over the foreground of the values that an error is short of ``top``, and over the background of level times
    weight; ``lowest`` is the smallest value whose level is not 0."""
    height, width = mask.shape
    below = np.empty((height + 1, width), np.uint16)
    _count_down(mask, below)
    above = np.full(width, _LIMIT, np.uint16)
    g, packed = np.empty(width, np.uint16), np.empty(width, np.int32)
    squares = np.full(width + _UNROLL, FAR, np.uint16)
    squared = np.empty(_BLOCK, np.uint16)
    errors = np.zeros((height + 2 * REACH, width + 2 * REACH), np.uint8)
    false_sum = 0.0
    for row in range(height):
        values, inside = saliency[row], mask[row]
        own = errors[row + REACH, REACH:]
        for c in range(width):
            own[c] = np.uint8(top - values[c]) & inside[c]
        _column_distances(inside, below[row], above, g, squares, packed)
        at, known, start = -1, _LIMIT, 0  # the last pixel whose nearest candidate is known
        for first in range(0, width, _BLOCK):
            last = min(first + _BLOCK, width)
            false, near = _wanted(values, inside, g, first, last, lowest)
            if not (false or near):
                continue
            if at != first:
                bound = _LIMIT if at < 0 else known + first - at
                found, start, _ = _bounds(g, packed, first, bound, start)
                at, known = first, int(math.sqrt(found)) + 1
            end = min(first + _BLOCK, width - 1)
            found, following, stop = _bounds(g, packed, end, known + end - at, start)
            _fill(squares, first, start, stop, squared)
            at, known, start = end, int(math.sqrt(found)) + 1, following
            if false:
                false_sum += _weighted_sum(values[first:last], squared, levels, weights)
            if near:
                _lend(saliency, mask, row, first, last, squared, top, errors)
    return _missed(errors, mask, _GAUSS), false_sum


def _errors_of_floats(levels: Float, mask: UInt8, weights: Float) -> tuple[float, float]:
    """The same two sums of a map that is not of 8 bits, the first as levels, by scipy."""
    from scipy.ndimage import convolve1d, distance_transform_edt

    truth = mask > 0
    distances, nearest = distance_transform_edt(~truth, return_indices=True)
    error = np.abs(levels - truth)
    lent = error[tuple(nearest)]
    mean = convolve1d(convolve1d(lent, _GAUSS, axis=0, mode="constant"), _GAUSS, axis=1, mode="constant")
    squared = np.minimum(np.rint(distances**2), FAR).astype(np.int64)
    return float(np.minimum(error, mean)[truth].sum()), float((error * weights[squared])[~truth].sum())


def weighted_f_measure(picture: Picture, levels: Float, ends: Sequence[float], protocol: Protocol) -> float:
    """``2 P R / (P + R + eps)`` with precision and recall from weighted errors.

    The error of a pixel of foreground is the smaller of its own, ``E = |S - G|``, and the Gaussian mean (7 x 7, sigma
    5, zero outside the picture) of its neighbours', where a pixel of background lends the error of the foreground
    nearest to it (ties by scipy's rule). An error in the background weighs ``2 - exp(ln(0.5) / 5 * d)``, d its distance
    to the foreground. So only background within 3 px of the foreground has to know which pixel is nearest, and
    distances matter only where the map is not 0 in the background.

    Args:
        picture: map and mask.
        levels: (256,) the level in [0, 1] of each 8-bit value; (K,) of each of the values of another map.
        ends: the map's smallest and largest value.
        protocol: of the levels.

    Returns:
        a score in [0, 1]; 0 for an empty mask.
    """
    positives = int(np.count_nonzero(picture.mask))
    if positives == 0:
        return 0.0
    weights = WEIGHTS[protocol.single_distances]
    if picture.values is not None:
        missed, false_sum = _errors_of_floats(levels[picture.saliency], picture.mask, weights)
    else:
        low, high = int(ends[0]), int(ends[1])
        if low == high:  # its levels are 1 from 1 on, or v / 255
            bottom, (top, span) = 0, (high, 1) if protocol.constant_map == "one" and high else (255, 255)
        elif protocol.levels == "maximum":
            bottom, (top, span) = 0, (high, high)
        else:
            bottom, (top, span) = low, (high, high - low)
        missed, false_sum = _errors(picture.saliency, picture.mask, levels, weights, bottom + 1, top)
        missed /= span
    recall = 1 - missed / positives
    hits = positives * recall
    precision = hits / (hits + false_sum + EPS)
    return 2 * recall * precision / (recall + precision + EPS)


def weighted_scores(histogram: JointHistogram, pictures: Sequence[Picture], protocol: Protocol) -> Float:
    """(B,) weighted F-measure; 0 for a blank picture."""
    of_map = zip(pictures, histogram.levels, histogram.ends.tolist(), strict=True)
    scores = [
        0.0 if picture.blank else weighted_f_measure(picture, levels, ends, protocol)
        for picture, levels, ends in of_map
    ]
    return np.array(scores, np.float64)
