"""What MLflow is shown beside numbers: pictures over the steps of a run, and the curves of its test sets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from pytorch_lightning.loggers import MLFlowLogger

from qefpn.reporting.charts import Series, axis_floor, curves_figure
from qefpn.text import one_line


def show_picture(logger: MLFlowLogger, name: str, drawn: np.ndarray, step: int) -> None:
    """One picture, RGB uint8 (h, w, 3), of a step under ``val_pictures/NAME``."""
    key = re.sub(r"[^a-zA-Z0-9_\-. ]", "_", one_line(name))[:100]  # all that it takes, of names of files
    logger.experiment.log_image(logger.run_id, drawn, key=f"val_pictures/{key}", step=step)


def show_curves(logger: MLFlowLogger, dataset: str, found: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """``curves/SET.json`` with all 256 values, index 0 = threshold 255, and precision over recall and F over the
    threshold as PNG."""
    name = re.sub(r"[^\w\-.]", "_", one_line(dataset))[:100]
    client, run = logger.experiment, logger.run_id
    plain = {
        entrant: {key: [float(value) for value in values] for key, values in curve.items()}
        for entrant, curve in found.items()
    }
    client.log_dict(run, plain, f"curves/{name}.json")
    floor = axis_floor([curve["f_curve"] for curve in plain.values()])
    for kind, labels, x_range, y_range in (
        ("precision_recall", ("recall", "precision"), (0.0, 1.0), (0.0, 1.02)),
        ("f_measure", ("threshold", "F (β² = 0.3)"), (0.0, 255.0), (floor, 1.0)),
    ):
        series = []
        for entrant, curve in plain.items():
            thresholds = [float(value) for value in range(len(curve["f_curve"]) - 1, -1, -1)]
            pairs = (
                (curve["recall"], curve["precision"]) if kind == "precision_recall" else (thresholds, curve["f_curve"])
            )
            series.append(Series(entrant, list(zip(*pairs, strict=True)), dashed=entrant != "model"))
        with curves_figure(series, labels, x_range, y_range, title=dataset) as figure:
            client.log_figure(run, figure, f"curves/{name}_{kind}.png")
