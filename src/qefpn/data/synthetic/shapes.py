"""Outlines of the synthetic objects: closed curves, holes and thin parts, as polygons in the unit square.

A shape is made of polygons, so one geometry gives both the anti-aliased coverage that the picture is composed
with and the mask. Coordinates are (x, y), x to the right and y down; a picture spans [0, 1] x [0, 1] whatever
its size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

SUPERSAMPLING = 4
_SHIFT = 4  # fractional bits of the polygon corners given to OpenCV
_EXTENT = 2.0  # half the side of the square in which an unplaced shape is measured


@dataclass(frozen=True)
class Shape:
    """Union of the polygons `solids` less the union of `holes`; each polygon is (N, 2) float64."""

    solids: tuple[Points, ...]
    holes: tuple[Points, ...] = ()

    def placed(self, centre: tuple[float, float], scale: float, angle: float) -> Shape:
        """Rotated by `angle` radians about the origin, scaled, and moved: the origin goes to `centre`."""
        cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
        matrix = np.array([[cos, sin], [-sin, cos]])
        offset = np.asarray(centre)
        return Shape(
            tuple(points @ matrix + offset for points in self.solids),
            tuple(points @ matrix + offset for points in self.holes),
        )

    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest and largest x and y: (x0, y0, x1, y1)."""
        corners = np.concatenate(self.solids)
        (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)


def rasterise(shape: Shape, side: int) -> NDArray[np.uint8]:
    """Binary raster of the unit square: (side, side) uint8, 1 inside the shape."""
    canvas = np.zeros((side, side), np.uint8)
    for value, polygons in ((1, shape.solids), (0, shape.holes)):
        for points in polygons:
            # A pixel's centre has integer coordinates in OpenCV, so the picture's left edge lies at -0.5.
            corners = np.rint((points * side - 0.5) * (1 << _SHIFT)).astype(np.int32)
            cv2.fillPoly(canvas, [corners], value, lineType=cv2.LINE_8, shift=_SHIFT)
    return canvas


def coverage(raster: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Share of each pixel that a raster `SUPERSAMPLING` times as large covers: (size, size) in [0, 1]."""
    return cv2.resize(raster.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)


def area(shape: Shape) -> float:
    """Area of an unplaced shape, in its own units (all of it must lie within 2 of the origin)."""
    side = 96
    raster = rasterise(shape.placed((0.5, 0.5), 0.5 / _EXTENT, 0.0), side)
    return float(raster.mean()) * (2 * _EXTENT) ** 2


def _circle(centre: tuple[float, float], radius: float, corners: int = 14) -> Points:
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([centre[0] + radius * np.cos(turn), centre[1] + radius * np.sin(turn)], axis=1)


def _ribbon(path: Points, widths: NDArray[np.float64]) -> list[Points]:
    """A stroke along a path of given half-widths: one quadrilateral a segment, one disc a joint.

    In pieces, since one outline of a curled stroke crosses itself and would be filled by the even-odd rule.
    """
    pieces = [_circle((x, y), float(w)) for (x, y), w in zip(path, widths, strict=True)]
    for (a, b), (wa, wb) in zip(
        zip(path[:-1], path[1:], strict=True), zip(widths[:-1], widths[1:], strict=True), strict=True
    ):
        along = (b - a) / max(float(np.hypot(*(b - a))), 1e-9)
        normal = np.array([-along[1], along[0]])
        pieces.append(np.stack([a + normal * wa, b + normal * wb, b - normal * wb, a - normal * wa]))
    return pieces


def _rounded(corners: Points, rounds: int) -> Points:
    """Corner cutting: each round replaces a corner by two points a quarter of the way along its edges."""
    for _ in range(rounds):
        following = np.roll(corners, -1, axis=0)
        corners = np.stack([0.75 * corners + 0.25 * following, 0.25 * corners + 0.75 * following], axis=1)
        corners = corners.reshape(-1, 2)
    return corners


def _closed_curve(rng: np.random.Generator, roughness: float) -> Points:
    """Smooth closed curve: log r(t) is a short random Fourier series, so the radius stays positive."""
    turn = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    log_radius = np.zeros_like(turn)
    for order in range(2, 7):
        log_radius += rng.normal(0, roughness / order**0.8) * np.cos(order * turn + rng.uniform(0, 2 * np.pi))
    radius = np.exp(np.clip(log_radius, -0.7, 0.6))
    stretch = rng.uniform(0.5, 1.0)
    points = np.stack([radius * np.cos(turn), stretch * radius * np.sin(turn)], axis=1)
    points[:, 1] += rng.uniform(-0.3, 0.3) * (points[:, 0] ** 2 - 0.5)
    return points * (0.9 / np.abs(points).max())


def blob(rng: np.random.Generator) -> Shape:
    return Shape((_closed_curve(rng, rng.uniform(0.15, 0.45)),))


def ellipse(rng: np.random.Generator) -> Shape:
    return Shape((_circle((0.0, 0.0), 0.9, 64) * (1.0, rng.uniform(0.4, 1.0)),))


def polygon(rng: np.random.Generator) -> Shape:
    """Three to seven corners, sharp or rounded, now and then a star."""
    count = int(rng.integers(3, 8))
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    turn += rng.uniform(-0.25, 0.25, count) * (2 * np.pi / count)
    radius = rng.uniform(0.65, 0.95, count)
    if count >= 4 and rng.random() < 0.35:
        turn = np.linspace(0, 2 * np.pi, 2 * count, endpoint=False)
        radius = np.array([0.95, rng.uniform(0.4, 0.6)] * count)
    corners = np.stack([radius * np.cos(turn), radius * np.sin(turn) * rng.uniform(0.6, 1.0)], axis=1)
    return Shape((_rounded(corners, int(rng.integers(0, 4))),))


def ring(rng: np.random.Generator) -> Shape:
    """A body with one hole, not in its middle as a rule."""
    outer = _closed_curve(rng, rng.uniform(0.02, 0.25))
    share = rng.uniform(0.4, 0.62)
    hole = outer * share + rng.uniform(-0.5, 0.5, 2) * 0.25 * (1 - share)
    return Shape((outer,), (hole,))


def pierced(rng: np.random.Generator) -> Shape:
    """A rounded body with two or three small holes."""
    outer = _closed_curve(rng, rng.uniform(0.05, 0.2))
    start = rng.uniform(0, 2 * np.pi)
    count = int(rng.integers(2, 4))
    holes = []
    for k in range(count):
        towards = outer[int((start / (2 * np.pi) + k / count) * len(outer)) % len(outer)]
        holes.append(_circle((0.52 * towards[0], 0.52 * towards[1]), rng.uniform(0.13, 0.19), 24))
    return Shape((outer,), tuple(holes))


def curl(rng: np.random.Generator) -> Shape:
    """A thick stroke that bends and tapers: crescents, worms, leaves."""
    t = np.linspace(0, 1, 26)
    turning = rng.uniform(-5.0, 5.0) * np.gradient(t) + rng.uniform(-0.1, 0.1) * np.sin(6 * t)
    heading = np.cumsum(turning)
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    path -= path.mean(axis=0)
    path *= 0.75 / np.abs(path).max()
    taper = rng.uniform(0.5, 1.5)
    widths = rng.uniform(0.13, 0.26) * (0.3 + 0.7 * np.sin(np.pi * np.clip(t, 0.04, 0.96) ** taper))
    return Shape(tuple(_ribbon(path, widths)))


def creature(rng: np.random.Generator) -> Shape:
    """A body with a head and thin limbs, some with a tail."""
    body = _closed_curve(rng, 0.12) * (0.62, 0.42)
    head = _circle((0.62, -0.3), rng.uniform(0.18, 0.28), 32) * (1.0, rng.uniform(0.8, 1.1))
    solids = [body, head, *_ribbon(np.array([[0.3, -0.1], [0.62, -0.3]]), np.array([0.17, 0.13]))]
    length = rng.uniform(0.45, 0.7)
    for x in np.linspace(-0.42, 0.42, int(rng.integers(2, 5))):
        knee, foot = x + rng.uniform(-0.08, 0.08), x + rng.uniform(-0.12, 0.12)
        limb = np.array([[x, 0.1], [knee, 0.3], [foot, 0.2 + length]])
        solids += _ribbon(limb, np.array([0.11, 0.09, 0.065]) * rng.uniform(0.8, 1.3))
    if rng.random() < 0.7:
        t = np.linspace(0, 1, 12)
        tail = np.stack([-0.45 - 0.5 * t, -0.1 - rng.uniform(-0.2, 0.7) * t**2 + 0.1 * np.sin(5 * t)], axis=1)
        solids += _ribbon(tail, 0.08 - 0.045 * t)
    mirror = (float(rng.choice((-1.0, 1.0))), 1.0)
    return Shape(tuple(points * mirror for points in solids))


def vessel(rng: np.random.Generator) -> Shape:
    """A profile turned about an axis (bottles, vases, cups), some with a handle that leaves a hole."""
    knots = rng.uniform(0.15, 0.55, 6)
    knots[0] = max(float(knots[0]), 0.25)
    height = np.linspace(-0.9, 0.9, 48)
    half = cv2.GaussianBlur(np.interp(height, np.linspace(-0.9, 0.9, 6), knots)[None], (0, 0), 2.5)[0]
    outline = np.concatenate([np.stack([half, height], 1), np.stack([-half, height], 1)[::-1]])
    solids = [outline]
    if rng.random() < 0.5:
        turn = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 14)
        middle = rng.uniform(-0.3, 0.2)
        reach = float(np.interp(middle, height, half))
        handle = np.stack([reach + 0.35 * np.cos(turn) - 0.08, middle + 0.38 * np.sin(turn)], axis=1)
        solids += _ribbon(handle, np.full(14, rng.uniform(0.055, 0.09)))
    return Shape(tuple(solids))


def tool(rng: np.random.Generator) -> Shape:
    """A slim handle with a wide head: hammers, spoons, keys, trees."""
    bend = rng.uniform(-0.25, 0.25)
    t = np.linspace(-0.85, 0.5, 10)
    handle = np.stack([bend * t**2, t], axis=1)
    head = _closed_curve(rng, rng.uniform(0.05, 0.4)) * rng.uniform(0.42, 0.6) + (bend * 0.5, 0.55)
    holes = (_circle((bend * 0.5, 0.55), 0.15, 24),) if rng.random() < 0.3 else ()
    return Shape((head, *_ribbon(handle, np.full(10, rng.uniform(0.06, 0.14)))), holes)


SHAPES: tuple[tuple[Callable[[np.random.Generator], Shape], float], ...] = (
    (blob, 0.24),
    (ellipse, 0.11),
    (polygon, 0.18),
    (ring, 0.10),
    (pierced, 0.06),
    (curl, 0.08),
    (creature, 0.08),
    (vessel, 0.09),
    (tool, 0.06),
)


def draw_shape(rng: np.random.Generator) -> Shape:
    """One random shape about the origin, inside the square of half-side 2."""
    makers, weights = zip(*SHAPES, strict=True)
    cumulative = np.cumsum(weights)
    pick = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return makers[min(pick, len(makers) - 1)](rng)
