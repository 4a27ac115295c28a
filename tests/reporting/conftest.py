"""A run directory with every file that a run writes, from generated arrays."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

ENTRANTS = ("model", "gaussian", "untrained")
CONFIG = """
data: {name: duts, root: /data, train: [DUTS-TR], test: [ECSSD], image_size: 112, batch_size: 16}
backbone: {name: resnet18, weights: null}
pyramid: {name: implicit, channels: 24}
solver: {name: broyden, max_steps: 8, rtol: 0.001}
residual: {name: quasi, p: 5.0e-07}
adjoint: {name: implicit, solver: {name: broyden}}
warmup: {steps: 20, layers: 5}
optimizer: {name: adamw, lr: 0.001}
trainer: {max_steps: -1, max_time: "00:00:15:00"}
edge_filter: {name: sobel}
loss: {name: paper}
protocol: f3net
seed: 0
"""


def figures(level: float, images: int = 6) -> dict[str, Any]:
    """Figures that get better with ``level`` in [0, 1]."""
    keys = ("mean_f", "weighted_f", "max_f", "s_measure", "e_measure")
    rest = {"mae": 0.5 - 0.4 * level, "binary_ratio": 90 * level, "images": images}
    return {**dict.fromkeys(keys, level), **rest}


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, image)
    assert done
    path.write_bytes(data.tobytes())


def write_run(directory: Path, datasets: tuple[str, ...] = ("ECSSD", "synthetic")) -> Path:
    """Write a complete run of six pictures a data set; the i-th picture scores i / 10."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(0)
    (directory / "config.yaml").write_text(CONFIG)
    samples, scores = [], []
    for dataset in datasets:
        for index in range(6):
            name = f"{index}"
            image = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
            mask = np.zeros((40, 60), np.uint8)
            mask[10:30, 20:45] = 255
            paths = {
                "image": directory / "source" / dataset / f"{name}.jpg",
                "mask": directory / "source" / dataset / f"{name}.png",
                "map": directory / "maps" / dataset / f"{name}.png",
            }
            for path, array in zip(paths.values(), (image, mask, np.roll(mask, index)), strict=True):
                write_image(path, array)
            samples.append({"dataset": dataset, "name": name, **{k: str(p) for k, p in paths.items()}})
            level = {"mae": 0.9 - index / 10, "weighted_f": index / 10}
            scores.append({"dataset": dataset, "name": name, **level})
    (directory / "samples.json").write_text(json.dumps(samples))
    write_csv(directory / "scores.csv", scores)
    (directory / "metrics.json").write_text(json.dumps({name: figures(0.8) for name in datasets}))
    floors = {name: {"gaussian": figures(0.4), "untrained": figures(0.2)} for name in datasets}
    (directory / "floors.json").write_text(json.dumps(floors))
    ramp = np.linspace(0, 1, 256)
    curve = {"precision": list(1 - ramp / 2), "recall": list(ramp), "f_curve": list(ramp / 2), "e_curve": list(ramp)}
    (directory / "curves.json").write_text(json.dumps({n: dict.fromkeys(ENTRANTS, curve) for n in datasets}))
    write_csv(directory / "log.csv", log_rows())
    return directory


def log_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(100):
        row: dict[str, Any] = {"step": step, "epoch": step // 10, "loss": 2 - step / 100, "loss_ce": 1.0}
        row |= {"lr": 0.001 * (100 - step), "lr_backbone": 0.0001 * (100 - step)}
        if step >= 20:
            row |= {"solver_steps": 8, "solver_residual": 0.01}
            row |= {"backward_steps": 7, "backward_residual": 0.02}
        rows.append(row)
        if step % 10 == 9:
            rows.append({"step": step, "val_mae": 0.3 - step / 1000, "val_max_f": step / 100})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a complete run: ``make_run(datasets=(...), name=...)`` gives its directory."""

    def make(datasets: tuple[str, ...] = ("ECSSD", "synthetic"), name: str = "run") -> Path:
        return write_run(tmp_path / name, datasets)

    return make
