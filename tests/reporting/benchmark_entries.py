"""Results of three methods on two small data sets: pictures, masks and maps on disk, scored by the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from qefpn.benchmark.entries import Entry
from qefpn.data.layouts import Pair
from qefpn.metrics.figures import CURVES
from qefpn.metrics.scores import combine, saliency_scores

DATASETS = ("ECSSD", "own")
METHODS = ("sharp", "blurred", "A <i>&amp;</i> é")
PICTURES = 6


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, image)
    assert done
    path.write_bytes(data.tobytes())
    return path


def make(root: Path, pictures: int = PICTURES) -> tuple[list[Entry], dict[str, list[Pair]]]:
    """Entries and pairs; the last method lacks the last map of ``own``, the second is worse than the first."""
    rng = np.random.default_rng(0)
    entries, pairs_by_dataset = [], {}
    for dataset in DATASETS:
        pairs, masks = [], []
        for index in range(pictures):
            mask = np.zeros((48, 64), np.uint8)
            top = 4 + 2 * index
            mask[top : top + 20, 10 : 30 + 3 * index] = 255
            picture = rng.integers(0, 120, (48, 64, 3), dtype=np.uint8)
            picture[mask > 0] += 100
            files = [
                save(root / dataset / f"{index}{suffix}", one) for suffix, one in ((".jpg", picture), (".png", mask))
            ]
            pairs.append(Pair(f"{index}", str(files[0]), str(files[1]), dataset))
            masks.append(mask)
        pairs_by_dataset[dataset] = pairs
        for number, method in enumerate(METHODS):
            kept = pictures - 1 if (number, dataset) == (2, "own") else pictures
            maps = [_map(number, index, mask) for index, mask in enumerate(masks[:kept])]
            paths = {
                f"{i}": save(root / "maps" / str(number) / dataset / f"{i}.png", one) for i, one in enumerate(maps)
            }
            names = list(paths)
            records: list[dict[str, Any]] = saliency_scores(maps, masks[:kept], names=names, curves=True)
            figures = combine(records)
            curves = {key: [float(x) for x in figures[key]] for key in CURVES}
            entries.append(
                Entry(
                    method=method,
                    dataset=dataset,
                    scores={key: value for key, value in figures.items() if isinstance(value, float)},
                    curves=curves,
                    pictures=[{k: v for k, v in one.items() if not isinstance(v, list)} for one in records],
                    expected=pictures,
                    missing=[f"{pictures - 1}"] if kept < pictures else [],
                    extra=[],
                    resized=[],
                    failed={},
                    maps=paths,
                )
            )
    return entries, pairs_by_dataset


def _map(method: int, index: int, mask: np.ndarray) -> np.ndarray:
    if method == 0:
        return cv2.GaussianBlur(mask, (0, 0), 1)
    if method == 1:
        return cv2.GaussianBlur(mask, (0, 0), 4 + 2 * index)  # differs most on the last picture
    return np.roll(mask, 2 + index, axis=1)
