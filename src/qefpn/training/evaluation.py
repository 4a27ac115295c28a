"""What is known of a network on a test set: its maps, a row a picture, figures and curves; floors to set beside it."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from qefpn.atomic import atomic_file
from qefpn.errors import UserError
from qefpn.inference.predictor import predict_maps
from qefpn.metrics import SaliencyMetrics
from qefpn.models import QEFPN
from qefpn.text import open_text

Batch = dict[str, Any]
Predictor = Callable[[Batch], list[np.ndarray]]

SUMMARY = ("mae", "mean_f", "weighted_f", "max_f", "s_measure", "e_measure", "binary_ratio")


def network_predictor(network: QEFPN, device: torch.device, quantize: bool = True) -> Predictor:
    """Maps of a network in evaluation mode, in 8 bits or as floats."""

    def predict(batch: Batch) -> list[np.ndarray]:
        return predict_maps(network, batch["image"].to(device), batch["size"], quantize=quantize)

    return predict


def gaussian_predictor(batch: Batch, quantize: bool = True) -> list[np.ndarray]:
    """The same centred Gaussian for every picture (σ a quarter of each side): a centre prior alone."""
    maps = []
    for height, width in batch["size"]:
        y = (np.arange(height) + 0.5) / height - 0.5
        x = (np.arange(width) + 0.5) / width - 0.5
        bump = np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * 0.25**2))
        maps.append(np.round(255 * bump).astype(np.uint8) if quantize else bump)
    return maps


def score_set(predict: Predictor, batches: Iterable[Batch], *, protocol: str) -> dict[str, float]:
    """Predict and score every picture of a set once: the figures of metrics.json.

    Args:
        predict: a batch to uint8 maps (H, W) at the pictures' own sizes.
        batches: of a test loader: ``mask`` (own sizes), and what ``predict`` needs.
        protocol: ``f3net``, ``pysod`` or ``saleval``.
    """
    metric = SaliencyMetrics(protocol=protocol)
    for batch in batches:
        metric.update(predict(batch), [np.asarray(mask) for mask in batch["mask"]])
    return summary(metric.compute())


def summary(values: Mapping[str, Any]) -> dict[str, float]:
    """What metrics.json says of a set, of what :meth:`SaliencyMetrics.compute` gives: every figure that is a number."""
    others = [key for key in values if np.ndim(values[key]) == 0 and key not in (*SUMMARY, "images", "undefined")]
    return {key: float(values[key]) for key in (*SUMMARY, *others)} | {"images": int(values["images"])}


def curves(values: Mapping[str, Any]) -> dict[str, list[float]]:
    """What curves.json says of a set, likewise: every curve."""
    return {key: [float(v) for v in value] for key, value in values.items() if np.ndim(value) == 1}


def read_png(path: Path) -> np.ndarray:
    """What :func:`save_png` wrote, uint8 (H, W)."""
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def save_png(path: Path, image: np.ndarray) -> None:
    """Write an 8-bit PNG, whole or not at all; channels in OpenCV's order."""
    done, data = cv2.imencode(".png", image)
    if not done:
        raise UserError(f"{path} could not be encoded")
    with atomic_file(path) as part:
        part.write_bytes(data.tobytes())


def write_scores(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """scores.csv: a row a picture; set, name and the figures of metrics.json come first."""
    rest = iter(records)
    first = list(itertools.islice(rest, 1))
    columns = ["dataset", "name", *SUMMARY]
    columns += [key for record in first for key in record if key not in columns]
    with atomic_file(path) as part, open_text(part) as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for record in itertools.chain(first, rest):
            writer.writerow({k: repr(v) if isinstance(v, float) else v for k, v in record.items()})
