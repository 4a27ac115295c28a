"""Textures of the synthetic pictures: scalar fields in [0, 1] and the palettes that colour them.

Frequencies are in cycles a picture, never in pixels: the same seed gives the same scene at every size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]  # (size, size)
Colour = NDArray[np.float32]  # (3,) RGB in [0, 1]


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Field, Field]:
    """Pixel centres of the unit square: (x, y), each (size, size), read-only."""
    centres = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x, y = np.meshgrid(centres, centres)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 3, persistence: float = 0.55) -> Field:
    """Value noise, mean 0, deviation about 1: random grids of `cells`, 2 `cells`, ... a side, summed."""
    total = np.zeros((size, size), np.float32)
    power = 0.0
    for octave in range(octaves):
        side = max(2, cells << octave)
        weight = persistence**octave
        values = rng.standard_normal((side, side), dtype=np.float32)
        total += weight * cv2.resize(values, (size, size), interpolation=cv2.INTER_CUBIC)
        power += 0.55 * weight**2  # interpolation lowers the variance
    total -= total.mean()
    return total / np.float32(np.sqrt(power))


def _unit(field: Field) -> Field:
    """Standard-normal-like values to [0, 1]."""
    return np.clip(0.5 + 0.25 * field, 0.0, 1.0)


def _rotated(rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    x, y = grid(size)
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _soft_sign(wave: Field, sharpness: float) -> Field:
    return np.asarray(0.5 + 0.5 * np.clip(wave * np.float32(sharpness), -1.0, 1.0), np.float32)


def rough(rng: np.random.Generator, size: int, cycles: float) -> Field:
    return _unit(noise(rng, size, max(2, round(cycles * 0.7)), 3, 0.65))


def fine(rng: np.random.Generator, size: int, cycles: float) -> Field:
    return _unit(noise(rng, size, max(16, round(cycles * 3)), 2, 0.8))


def smooth(rng: np.random.Generator, size: int, cycles: float) -> Field:
    return 0.5 + 0.12 * noise(rng, size, 3, 2)


def gradient(rng: np.random.Generator, size: int, cycles: float) -> Field:
    along, _ = _rotated(rng, size)
    wave = np.sin(np.float32(np.pi * max(1.0, cycles * 0.35)) * along + np.float32(rng.uniform(0, 6.28)))
    return np.clip(0.5 + 0.42 * wave + 0.06 * noise(rng, size, 12, 2), 0, 1)


def stripes(rng: np.random.Generator, size: int, cycles: float) -> Field:
    along, _ = _rotated(rng, size)
    phase = np.float32(2 * np.pi * cycles) * along + np.float32(rng.uniform(0, 1.6)) * noise(rng, size, 3, 2)
    return _soft_sign(np.sin(phase), rng.uniform(1.0, 3.0))


def checkers(rng: np.random.Generator, size: int, cycles: float) -> Field:
    along, across = _rotated(rng, size)
    factor = np.float32(2 * np.pi * cycles * 0.8)
    return _soft_sign(np.sin(factor * along) * np.sin(factor * across), rng.uniform(2.0, 6.0))


def dots(rng: np.random.Generator, size: int, cycles: float) -> Field:
    along, across = _rotated(rng, size)
    factor = np.float32(2 * np.pi * cycles)
    wave = np.cos(factor * along) + np.cos(factor * across)
    return _soft_sign(wave - np.float32(rng.uniform(0.2, 0.9)), 1.5)


def marble(rng: np.random.Generator, size: int, cycles: float) -> Field:
    field = noise(rng, size, max(2, round(cycles * 0.4)), 3, 0.5)
    return 0.5 + 0.5 * np.sin(np.float32(rng.uniform(2.5, 5.0)) * field)


def cells(rng: np.random.Generator, size: int, cycles: float) -> Field:
    """Voronoi cells of random lightness, with the cells' borders bent by noise."""
    count = int(np.clip(cycles**2, 10, 48))
    x, y = grid(size)
    bent_x = x + 0.015 * noise(rng, size, 8, 2)
    seeds = rng.random((count, 2), dtype=np.float32)
    distance = (bent_x[..., None] - seeds[:, 0]) ** 2 + (y[..., None] - seeds[:, 1]) ** 2
    values = rng.random(count, dtype=np.float32)
    return cv2.GaussianBlur(values[distance.argmin(axis=-1)], (0, 0), size / 256)


TEXTURES: tuple[tuple[Callable[[np.random.Generator, int, float], Field], float], ...] = (
    (rough, 0.20),
    (fine, 0.10),
    (smooth, 0.17),
    (gradient, 0.10),
    (stripes, 0.13),
    (checkers, 0.06),
    (dots, 0.06),
    (marble, 0.10),
    (cells, 0.08),
)


def draw_texture(rng: np.random.Generator, size: int, cycles: float) -> Field:
    """A random texture of about `cycles` repetitions a picture: (size, size) in [0, 1]."""
    makers, weights = zip(*TEXTURES, strict=True)
    cumulative = np.cumsum(weights)
    pick = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    field = makers[min(pick, len(makers) - 1)](rng, size, min(cycles, 18.0))
    return 1 - field if rng.random() < 0.5 else field


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """RGB of a hue in turns and a saturation and value in [0, 1]."""
    sector = np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    return (value * (1 - saturation * (1 - np.clip(sector, 0, 1)))).astype(np.float32)


def draw_hue(rng: np.random.Generator) -> float:
    """A hue in turns; purples, rare in photographs, are rare."""
    return float(rng.random() if rng.random() < 0.15 else rng.uniform(-0.04, 0.72))


def draw_palette(rng: np.random.Generator, hue: float | None = None, contrast: float = 1.0) -> tuple[Colour, Colour]:
    """Two tones of one material, near `hue` if given: close in hue, a random step apart in lightness."""
    hue = draw_hue(rng) if hue is None else hue + rng.normal(0, 0.04)
    saturation = float(rng.beta(1.6, 2.6))
    value = rng.uniform(0.25, 0.9)
    step = contrast * rng.uniform(0.08, 0.4) * (1 if value < 0.55 else -1)
    nearby = float(np.clip(saturation + rng.normal(0, 0.12), 0, 1))
    first = hsv(hue, saturation, value)
    return first, hsv(hue + rng.normal(0, 0.05), nearby, float(np.clip(value + step, 0, 1)))


def colourise(field: Field, palette: tuple[Colour, Colour]) -> NDArray[np.float32]:
    """(size, size, 3): the palette's first tone where the field is 0, its second where it is 1."""
    first, second = palette
    return first + field[..., None] * (second - first)
