"""Scoring a network on test sets: maps, a row a picture, set figures, curves and floors."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from qefpn.errors import UserError
from qefpn.metrics import SaliencyMetrics
from qefpn.models import QEFPN
from qefpn.text import open_text
from qefpn.training.inference import predict_maps
from qefpn.whole import whole_file, write_whole

Batch = dict[str, Any]
Predictor = Callable[[Batch], list[np.ndarray]]

SUMMARY = ("mae", "mean_f", "weighted_f", "max_f", "s_measure", "e_measure", "binary_ratio")
CURVES = ("precision", "recall", "f_curve")


@dataclass
class SetResult:
    """What one predictor reached on one data set."""

    metrics: dict[str, float]
    curves: dict[str, list[float]]
    records: list[dict[str, Any]] = field(default_factory=list)


def network_predictor(network: QEFPN, device: torch.device) -> Predictor:
    """Maps of a network in evaluation mode."""

    def predict(batch: Batch) -> list[np.ndarray]:
        return predict_maps(network, batch["image"].to(device), batch["size"])

    return predict


def gaussian_predictor(batch: Batch) -> list[np.ndarray]:
    """The same centred Gaussian for every picture (σ a quarter of each side): a centre prior alone."""
    maps = []
    for height, width in batch["size"]:
        y = (np.arange(height) + 0.5) / height - 0.5
        x = (np.arange(width) + 0.5) / width - 0.5
        bump = np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * 0.25**2))
        maps.append(np.round(255 * bump).astype(np.uint8))
    return maps


def score_set(
    predict: Predictor,
    batches: Iterable[Batch],
    *,
    protocol: str,
    dataset: str,
    maps_directory: Path | None = None,
    made: Collection[Path] = (),
    on_batch: Callable[[int], None] | None = None,
) -> SetResult:
    """Predict and score every picture of a set once.

    Args:
        predict: a batch to uint8 maps (H, W) at the pictures' own sizes.
        batches: of a test loader: ``image``, ``mask`` (own sizes), ``size``, ``name``.
        protocol: ``f3net`` or ``pysod``.
        dataset: its name, for the records.
        maps_directory: where the maps are saved as 8-bit PNG, ``<name>.png``.
        made: maps there that this predictor made before, and that are read instead of made again.
        on_batch: called with the number of pictures done, for progress.
    """
    metric = SaliencyMetrics(protocol=protocol)
    records: list[dict[str, Any]] = []
    for batch in batches:
        paths = [None if maps_directory is None else maps_directory / f"{name}.png" for name in batch["name"]]
        kept = [path is not None and path in made for path in paths]
        maps = [read_png(path) for path in paths if path is not None] if all(kept) else predict(batch)
        masks = [np.asarray(mask) for mask in batch["mask"]]
        for name, scores in zip(batch["name"], metric.score_batch(maps, masks), strict=True):
            records.append({"dataset": dataset, **{**scores, "name": name}})
        for path, one, there in zip(paths, maps, kept, strict=True):
            if path is not None and not there:
                save_png(path, one)
        if on_batch is not None:
            on_batch(len(maps))
    values = metric.compute()
    metrics = {key: float(values[key]) for key in SUMMARY}
    metrics["images"] = int(values["images"])
    return SetResult(metrics, {key: [float(v) for v in values[key]] for key in CURVES}, records)


def read_png(path: Path) -> np.ndarray:
    """What :func:`save_png` wrote, uint8 (H, W)."""
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def save_png(path: Path, image: np.ndarray) -> None:
    """Write an 8-bit PNG, whole or not at all; channels in OpenCV's order."""
    done, data = cv2.imencode(".png", image)
    if not done:
        raise UserError(f"{path} could not be encoded")
    with whole_file(path) as part:
        part.write_bytes(data.tobytes())


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all."""
    write_whole(path, json.dumps(value, indent=1))


def write_scores(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """scores.csv: a row a picture; set, name and the figures of metrics.json come first."""
    columns = ["dataset", "name", *SUMMARY]
    columns += [key for record in records[:1] for key in record if key not in columns]
    with whole_file(path) as part, open_text(part) as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for record in records:
            writer.writerow({k: repr(v) if isinstance(v, float) else v for k, v in record.items()})


@torch.no_grad()
def evaluate_sets(
    network: QEFPN,
    loaders: Mapping[str, Iterable[Batch]],
    directory: Path,
    *,
    protocol: str,
    device: torch.device,
    gaussian: bool = True,
    untrained: QEFPN | None = None,
    save_maps: bool = True,
    made: Collection[Path] = (),
    track: Callable[[str, str, Iterable[Batch]], Iterator[Batch]] | None = None,
) -> dict[str, dict[str, float]]:
    """Score a network on several sets and write maps, scores, metrics, floors and curves.

    Args:
        network: put into evaluation mode here.
        loaders: a test loader a set.
        directory: receives ``maps/<set>/<name>.png``, ``scores.csv``, ``metrics.json``, ``floors.json``,
            ``curves.json``.
        gaussian: score a centred Gaussian too, the first floor.
        untrained: a network of the same shape with fresh weights, the second floor; None leaves it out.
        made: maps below ``directory`` that this network made before and that need not be made again.
        track: wraps a loader for progress: (set, what is scored, loader).

    Returns:
        The content of ``metrics.json``.
    """
    network.eval().to(device)
    metrics: dict[str, dict[str, float]] = {}
    floors: dict[str, dict[str, dict[str, float]]] = {}
    curves: dict[str, dict[str, dict[str, list[float]]]] = {}
    records: list[dict[str, Any]] = []
    for dataset, loader in loaders.items():
        entrants: dict[str, tuple[Predictor, Path | None]] = {
            "model": (
                network_predictor(network, device),
                directory / "maps" / dataset if save_maps else None,
            ),
        }
        if gaussian:
            entrants["gaussian"] = (gaussian_predictor, None)
        if untrained is not None:
            entrants["untrained"] = (network_predictor(untrained.eval().to(device), device), None)
        curves[dataset], floors[dataset] = {}, {}
        for entrant, (predict, maps_directory) in entrants.items():
            batches = loader if track is None else track(dataset, entrant, loader)
            result = score_set(
                predict, batches, protocol=protocol, dataset=dataset, maps_directory=maps_directory, made=made
            )
            curves[dataset][entrant] = result.curves
            if entrant == "model":
                metrics[dataset] = result.metrics
                records += result.records
            else:
                floors[dataset][entrant] = result.metrics
    write_scores(directory / "scores.csv", records)
    write_json(directory / "floors.json", floors)
    write_json(directory / "curves.json", curves)
    write_json(directory / "metrics.json", metrics)
    return metrics
