"""One synthetic picture: where its salient objects lie, what surrounds them, and how light falls on both.

Salient here is an object with a closed outline and one coherent surface, set off from what surrounds it by
colour, lightness or texture, and clearly larger than the clutter. Clutter (specks, lines, faint blobs without
an outline, regions that run across the picture) is drawn in the objects' own tones as often as not, so that
neither colour nor lightness alone finds the objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from qefpn.data.synthetic.shapes import SUPERSAMPLING, Shape, area, coverage, draw_shape, ellipse, rasterise
from qefpn.data.synthetic.textures import (
    Colour,
    Field,
    colourise,
    draw_hue,
    draw_palette,
    draw_texture,
    grid,
    noise,
)

Picture = NDArray[np.float32]  # (size, size, 3) RGB in [0, 1]
Palette = tuple[Colour, Colour]

OBJECT_COUNTS = (0.52, 0.30, 0.18)  # of one, two and three objects
SHARE_RANGE = (0.02, 0.50)  # of the picture's area, all objects together
_LEAST_OBJECT = 0.014  # share of the picture that each object shows, at least
_LEAST_VISIBLE = 0.45  # share of each object that neither border nor neighbour hides, at least
_PLAN_SIDE = 128
_ATTEMPTS = 24


@dataclass(frozen=True)
class Plan:
    """The geometry of a picture: its objects from back to front, in the unit square."""

    shapes: tuple[Shape, ...]

    def mask_coverage(self, size: int) -> Field:
        """Share of each pixel that any object covers: (size, size) in [0, 1]."""
        union = np.zeros((size * SUPERSAMPLING,) * 2, np.uint8)
        for shape in self.shapes:
            union |= rasterise(shape, size * SUPERSAMPLING)
        return coverage(union, size)


def _scaled(rng: np.random.Generator, share: float) -> Shape:
    """A random shape about the origin that covers `share` of the unit square."""
    shape = draw_shape(rng)
    tilt = rng.normal(0, 0.5) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    return shape.placed((0.0, 0.0), float(np.sqrt(share / area(shape))), tilt)


def _centre(rng: np.random.Generator, shape: Shape) -> tuple[float, float]:
    """Anywhere inside the picture, or now and then across one of its sides."""
    x0, y0, x1, y1 = shape.bounds()
    low, high = (-x0 + 0.02, -y0 + 0.02), (0.98 - x1, 0.98 - y1)
    centre = [float(rng.uniform(min(a, b), max(a, b))) for a, b in zip(low, high, strict=True)]
    if rng.random() < 0.2:
        axis, far = int(rng.integers(2)), rng.random() < 0.5
        near, reach = ((x0, x1), (y0, y1))[axis]
        hidden = rng.uniform(0.08, 0.4) * (reach - near)
        centre[axis] = 1 - reach + hidden if far else -near - hidden
    return centre[0], centre[1]


def _attempt(rng: np.random.Generator) -> Plan | None:
    """A random arrangement, or None if it leaves the ranges that the module promises."""
    count = 1 + int(np.searchsorted(np.cumsum(OBJECT_COUNTS), rng.random(), side="right"))
    count = min(count, len(OBJECT_COUNTS))
    lowest = (SHARE_RANGE[0] if rng.random() < 0.25 else 0.06) * (1 + 0.4 * (count - 1))
    total = float(np.exp(rng.uniform(np.log(lowest), np.log(0.52))))
    parts = rng.uniform(0.3, 1.0, count)
    overlap = rng.random() < 0.4
    shapes: list[Shape] = []
    rasters: list[NDArray[np.uint8]] = []
    for part in total * parts / parts.sum():
        outline = _scaled(rng, float(part))
        for _ in range(8):
            placed = outline.placed(_centre(rng, outline), 1.0, 0.0)
            raster = rasterise(placed, _PLAN_SIDE)
            shares = [float((raster & other).sum()) / max(int(other.sum()), 1) for other in rasters]
            hidden = max(shares, default=0.0)
            if hidden == 0 or (overlap and hidden < 0.4):
                break
        else:
            return None
        if raster.mean() < _LEAST_VISIBLE * part:
            return None
        shapes.append(placed)
        rasters.append(raster)
    union = np.zeros_like(rasters[0])
    for raster, part in zip(reversed(rasters), reversed(total * parts / parts.sum()), strict=True):
        shown = float((raster & ~union & 1).mean())
        if shown < max(_LEAST_OBJECT, _LEAST_VISIBLE * part):
            return None
        union |= raster
    # A polygon's raster is half a pixel too wide all round, which matters to thin parts: hence the margin.
    return Plan(tuple(shapes)) if SHARE_RANGE[0] * 1.15 <= union.mean() <= SHARE_RANGE[1] else None


def plan(rng: np.random.Generator) -> Plan:
    """A random arrangement of one to three objects that covers 2 % to 50 % of the picture."""
    for _ in range(_ATTEMPTS):
        found = _attempt(rng)
        if found is not None:
            return found
    outline = ellipse(rng)
    outline = outline.placed((0.0, 0.0), float(np.sqrt(rng.uniform(0.04, 0.2) / area(outline))), 0.0)
    return Plan((outline.placed(_centre(rng, outline), 1.0, 0.0),))


def _surface(rng: np.random.Generator, size: int, cycles: float, palette: Palette) -> Picture:
    return colourise(draw_texture(rng, size, cycles), palette)


def _split(rng: np.random.Generator, size: int, sharpness: float) -> Field:
    """A soft wavy division of the whole picture in two: 0 on one side, 1 on the other."""
    x, y = grid(size)
    angle = rng.normal(np.pi / 2, 0.25) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    along = (x - 0.5) * np.float32(np.cos(angle)) + (y - 0.5) * np.float32(np.sin(angle))
    bend = np.float32(rng.uniform(0, 0.035)) * noise(rng, size, 3, 3)
    along = along - np.float32(rng.uniform(-0.3, 0.3)) + bend
    return np.clip(0.5 + along * np.float32(sharpness), 0, 1)


def _background(rng: np.random.Generator, size: int, palettes: list[Palette]) -> Picture:
    """One to three textured regions that run from border to border, or patches, and broad faint blobs."""
    cycles = float(np.exp(rng.uniform(np.log(3.0), np.log(16.0))))
    picture = _surface(rng, size, cycles, palettes[0])
    for palette in palettes[1:]:
        other = _surface(rng, size, float(np.exp(rng.uniform(np.log(3.0), np.log(16.0)))), palette)
        if rng.random() < 0.75:
            share = _split(rng, size, float(np.exp(rng.uniform(np.log(3.0), np.log(60.0)))))
        else:
            share = np.clip(0.5 + noise(rng, size, int(rng.integers(2, 4)), 3) * rng.uniform(0.4, 1.5), 0, 1)
        picture += share[..., None].astype(np.float32) * (other - picture)
    broad = noise(rng, size, 3, 2) * np.float32(rng.uniform(0.01, 0.06))
    return picture + broad[..., None]


def _clutter(rng: np.random.Generator, picture: Picture, tones: list[Colour]) -> Picture:
    """Specks, small shards, lines and faint blobs: each far smaller than an object, or without an outline."""
    size = len(picture)
    side = size * 2
    layer = cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR)

    def tone() -> tuple[float, float, float]:
        colour = tones[int(rng.integers(len(tones)))] + rng.normal(0, 0.05, 3)
        return float(colour[0]), float(colour[1]), float(colour[2])

    x, y = grid(size)
    if rng.random() < 0.5:
        faint = np.zeros((size, size, 3), np.float32)
        for _ in range(int(rng.integers(1, 5))):
            centre, radius = rng.random(2), rng.uniform(0.05, 0.22)
            bump = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / np.float32(2 * (radius / 2) ** 2))
            strength = rng.uniform(0.1, 0.35)
            faint += (bump * np.float32(strength))[..., None] * (np.array(tone(), np.float32) - picture)
        layer += cv2.resize(faint, (side, side), interpolation=cv2.INTER_LINEAR)

    def corners(points: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.rint((points * side - 0.5) * 16).astype(np.int32)

    if rng.random() < 0.45:
        width = max(1, round(side * rng.uniform(0.004, 0.009)))
        for _ in range(int(rng.integers(2, 12))):
            ends = rng.uniform(-0.1, 1.1, (2, 2))
            if rng.random() < 0.6:
                ends[1] = ends[0] + rng.normal(0, 0.2, 2)
            middle = ends.mean(axis=0) + rng.normal(0, 0.06, 2)
            t = np.linspace(0, 1, 10)[:, None]
            curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * middle + t**2 * ends[1]
            cv2.polylines(layer, [corners(curve)], False, tone(), width, cv2.LINE_8, 4)
    if rng.random() < 0.75:
        largest = rng.uniform(0.012, 0.034)
        nest = rng.random(2) if rng.random() < 0.4 else None
        for _ in range(int(rng.integers(3, 42))):
            where = rng.random(2) if nest is None else nest + rng.normal(0, 0.16, 2)
            count = int(rng.integers(3, 9))
            turn = np.sort(rng.uniform(0, 2 * np.pi, count)) if count < 6 else np.linspace(0, 2 * np.pi, 12)
            reach = largest * rng.uniform(0.35, 1.0) * np.array([1.0, rng.uniform(0.5, 1.0)])
            points = where + reach * np.stack([np.cos(turn), np.sin(turn)], axis=1)
            cv2.fillPoly(layer, [corners(points)], tone(), cv2.LINE_8, 4)
    return cv2.resize(layer, (size, size), interpolation=cv2.INTER_AREA)


def _relief(alpha: Field, light: tuple[float, float], strength: float) -> Field:
    """Shading of a surface that bulges from its outline, lit from `light` (x, y): a factor about 1."""
    size = len(alpha)
    depth = cv2.distanceTransform((alpha >= 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    top = float(depth.max()) + 1e-6
    rise = min(top, size * 0.12)
    height = np.sqrt(np.clip(1 - (1 - np.clip(depth / rise, 0, 1)) ** 2, 0, 1)) * np.float32(rise)
    height = cv2.GaussianBlur(height, (0, 0), size / 90)
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    facing = -(slope_x * np.float32(light[0]) + slope_y * np.float32(light[1]))
    return 1 + np.float32(strength) * np.clip(facing, -0.9, 0.9)


def _set_off(rng: np.random.Generator, surface: Picture, behind: Picture, alpha: Field, least: float) -> Picture:
    """Shifts a surface's colour as a whole until its mean is at least `least` from its surroundings' mean."""
    size = len(alpha)
    reach = max(3, size // 10) | 1
    inside = (alpha >= 0.5).astype(np.uint8)
    around = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))) - inside
    if not around.any():
        return surface
    within = np.array(cv2.mean(surface, inside)[:3], np.float32)
    outside = np.array(cv2.mean(behind, around)[:3], np.float32)
    difference = within - outside
    distance = float(np.linalg.norm(difference))
    fallback = rng.normal(0, 1, 3).astype(np.float32)
    if distance >= least:
        return surface
    if distance < 1e-3:
        difference, distance = fallback, float(np.linalg.norm(fallback))
    direction = difference / distance
    if np.any(outside + direction * least < 0.04) or np.any(outside + direction * least > 0.96):
        direction = np.full(3, 1 if outside.mean() < 0.5 else -1, np.float32) / np.float32(np.sqrt(3))
    return np.asarray(surface + (outside + direction * np.float32(least) - within), np.float32)


def _object(
    rng: np.random.Generator,
    alpha: Field,
    behind: Picture,
    palette: Palette,
    light: tuple[float, float],
    least: float,
) -> Picture:
    """The surface of one object: one or two textures, set off from what lies behind it, and shaded."""
    size = len(alpha)
    extent = float(np.sqrt(max(float(alpha.mean()), 1e-4)))
    surface = _surface(rng, size, rng.uniform(1.5, 5.0) / extent, palette)
    if rng.random() < 0.25:
        second = _surface(rng, size, rng.uniform(1.5, 5.0) / extent, draw_palette(rng))
        surface += 0.7 * _split(rng, size, 40.0)[..., None] * (second - surface)
    surface = _set_off(rng, surface, behind, alpha, least)
    strength = rng.uniform(0.25, 0.8) if rng.random() < 0.8 else 0.0
    surface = surface * _relief(alpha, light, strength)[..., None]
    if rng.random() < 0.3:
        rim = cv2.GaussianBlur(alpha, (0, 0), size / 100)
        surface = surface * (1 - np.float32(rng.uniform(0.2, 0.6)) * np.clip(2 - 2 * rim, 0, 1))[..., None]
    return surface


def _shadow(rng: np.random.Generator, alpha: Field, light: tuple[float, float]) -> Field:
    """Soft shadow thrown away from the light: a factor of at most 1 for what lies behind."""
    size = len(alpha)
    reach = rng.uniform(0.01, 0.06) * size
    move = np.array([[1, 0, -light[0] * reach], [0, 1, -light[1] * reach]], np.float32)
    moved = cv2.warpAffine(alpha, move, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    blurred = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.008, 0.03) * size)
    return 1 - np.float32(rng.uniform(0.15, 0.55)) * blurred


def _exposed(rng: np.random.Generator, picture: Picture) -> NDArray[np.uint8]:
    """The camera: uneven illumination, slight blur, sensor noise, 8 bits."""
    size = len(picture)
    x, y = grid(size)
    if rng.random() < 0.6:
        angle, fall = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.7)
        along = (x - 0.5) * np.float32(np.cos(angle)) + (y - 0.5) * np.float32(np.sin(angle))
        picture = picture * (1 + np.float32(fall) * along)[..., None]
    if rng.random() < 0.25:
        radius = (x - 0.5) ** 2 + (y - 0.5) ** 2
        picture = picture * (1 - np.float32(rng.uniform(0.2, 0.8)) * radius)[..., None]
    if rng.random() < 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.002, 0.005) * size)
    grain = rng.standard_normal((size, size, 3), dtype=np.float32) * np.float32(rng.uniform(0.003, 0.035))
    picture = np.clip(picture + grain, 0, 1)
    return np.rint(picture * 255).astype(np.uint8)


def paint(rng: np.random.Generator, geometry: Plan, size: int) -> NDArray[np.uint8]:
    """The picture of a plan: (size, size, 3) uint8 RGB."""
    turn = rng.uniform(0, 2 * np.pi)
    light = (float(np.cos(turn)), float(np.sin(turn)))
    regions = 1 + int(rng.random() < 0.5) + int(rng.random() < 0.2)
    hue = draw_hue(rng)
    contrast = rng.uniform(0.25, 0.85)
    related = rng.random() < 0.6
    palettes = [draw_palette(rng, hue if related else None, contrast) for _ in range(regions)]
    faint = rng.random() < 0.15
    object_palettes: list[Palette] = []
    for _ in geometry.shapes:
        near = rng.random() < (0.6 if faint else 0.25)
        source = palettes[int(rng.integers(len(palettes)))]
        if object_palettes and rng.random() < 0.5:
            object_palettes.append(object_palettes[-1])
        elif near:
            object_palettes.append((source[0] + np.float32(rng.normal(0, 0.1)), source[1]))
        else:
            object_palettes.append(draw_palette(rng))
    tones = [tone for palette in palettes + 2 * object_palettes for tone in palette]
    picture = _clutter(rng, _background(rng, size, palettes), tones)
    if rng.random() < 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.004, 0.012) * size)
    picture = np.clip(picture, 0, 1)
    casts = rng.random() < 0.55
    for shape, palette in zip(geometry.shapes, object_palettes, strict=True):
        alpha = coverage(rasterise(shape, size * SUPERSAMPLING), size)
        if casts:
            picture = picture * _shadow(rng, alpha, light)[..., None]
        least = rng.uniform(0.16, 0.24) if faint else rng.uniform(0.34, 0.6)
        surface = np.clip(_object(rng, alpha, picture, palette, light, least), 0.01, 0.99)
        picture = picture + alpha[..., None] * (surface - picture)
    return _exposed(rng, picture)


def render(
    seed: int, index: int, size: int = 128, *, split: str = "train"
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One picture and its mask, a pure function of its arguments.

    Args:
        seed: Of the whole data set, at least 0.
        index: Of the picture within its split, at least 0.
        size: Side in pixels. The scene stays the same at every size; sensor noise is drawn a pixel.
        split: "train" or "test": two streams that share no picture.

    Returns:
        The picture, (size, size, 3) uint8 RGB, and the mask, (size, size) uint8, 255 where the objects cover
        at least half of the pixel and 0 elsewhere.

    Raises:
        KeyError: for another split.
        ValueError: for a negative seed or index.
    """
    key = ({"train": 0, "test": 1}[split], index)
    layout, look = np.random.SeedSequence(seed, spawn_key=key).spawn(2)
    geometry = plan(np.random.Generator(np.random.PCG64(layout)))
    mask = np.where(geometry.mask_coverage(size) >= 0.5, np.uint8(255), np.uint8(0))
    return paint(np.random.Generator(np.random.PCG64(look)), geometry, size), mask
