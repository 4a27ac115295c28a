"""What loggers show beside numbers: a few pictures at each validation, figures and curves of each test set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import Tensor

from qefpn.losses import edges
from qefpn.losses.filters import Kernel
from qefpn.reporting.charts import Series, axis_floor, curves_figure
from qefpn.text import one_line
from qefpn.training.evaluation import curves, summary
from qefpn.training.module import SaliencyModule
from qefpn.training.run_log import RunLog
from qefpn.training.test_files import TestFiles

LONGEST = 256
"""Longest side of a shown picture in pixels."""

DRAWING = (WandbLogger, TensorBoardLogger, MLFlowLogger)
"""Loggers that are shown pictures and curves."""

PARTS = ("picture", "mask", "prediction", "edges")

THRESHOLDS = 127
"""Points of a PR curve in TensorBoard: what its format takes at most."""

Curves = Mapping[str, Mapping[str, Sequence[float]]]
"""Entrant ("model", "gaussian", "untrained") → ``precision``, ``recall``, ``f_curve``, ``e_curve`` and those asked
for beside, 256 values each, index 0 = threshold 255."""


@dataclass(frozen=True)
class Panel:
    """What is shown of one validation picture; all uint8 of one size (h, w), no side above ``LONGEST``.

    Attributes:
        picture: RGB (h, w, 3), as the network saw it, in the picture's own proportions.
        mask: (h, w).
        prediction: (h, w), 0 to 255.
        edges: (h, w) of the prediction, by the filter of the run's edge loss; a straight step from black to white
            is white.
    """

    name: str
    picture: np.ndarray
    mask: np.ndarray
    prediction: np.ndarray
    edges: np.ndarray


def make_panel(
    name: str, image: Tensor, mask: Any, prediction: np.ndarray, edge_filter: str | Kernel = "sobel"
) -> Panel:
    """Shrink and draw one picture.

    Args:
        name: of the picture.
        image: uint8 (3, S, S), any device.
        mask: uint8 (H, W), array or tensor.
        prediction: uint8 (H, W).
        edge_filter: as :class:`qefpn.losses.EdgeExtractor` takes it.
    """
    height, width = prediction.shape
    scale = min(1.0, LONGEST / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def shrunk(array: np.ndarray) -> np.ndarray:
        shrinks = array.shape[0] >= size[1] and array.shape[1] >= size[0]
        return np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))

    picture = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    small = shrunk(prediction)
    # √2: the loss reads 1/√2 on a straight step, so that diagonal ones stay within 1
    drawn = edges(torch.from_numpy(small)[None, None].float() / 255, edge_filter) * 2**0.5
    return Panel(
        name,
        shrunk(picture),
        shrunk(np.asarray(torch.as_tensor(mask).cpu())),
        small,
        (drawn[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy(),
    )


def side_by_side(panel: Panel, gap: int = 4) -> np.ndarray:
    """The four of ``PARTS`` from left to right, uint8 (h, 4 w + 3 gaps, 3), white between."""
    parts = [getattr(panel, part) for part in PARTS]
    coloured = [part if part.ndim == 3 else np.repeat(part[..., None], 3, axis=2) for part in parts]
    white = np.full((panel.mask.shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([piece for part in coloured for piece in (white, part)][1:], axis=1)


def chosen_places(seen: int, count: int) -> list[int]:
    """``count`` places (or all) among ``seen`` pictures at equal distances: the same at each validation."""
    count = min(count, seen)
    return [int((place + 0.5) * seen / count) for place in range(count)]


class ShowPictures(Callback):
    """Shows in wandb, TensorBoard and MLflow the same few pictures of each validation, and what a test finds, in every
    logger.

        pl.Trainer(logger=WandbLogger(...), callbacks=[ShowPictures(4)]).fit(SaliencyModule(...), data)

    At a validation a table ``val_pictures`` in wandb, an image a picture in TensorBoard and MLflow, of what
    ``validation_step`` returned in the first process: nothing is predicted a second time. After a test the curves of
    the network, and of the floors that a :class:`TestFiles` before it scored. The figures are the module's to log;
    where that leaves it to callbacks (``logs_tests``), ``test/SET/METRIC`` everywhere but in log.csv.

    Args:
        count: how many pictures; 0 for none.
        edge_filter: that draws the edges of a prediction.
    """

    def __init__(self, count: int = 4, edge_filter: str | Kernel = "sobel") -> None:
        self.count = count
        self.edge_filter = edge_filter
        self._places: set[int] = set()
        self._seen = 0
        self._panels: list[Panel] = []

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loaders: Any = trainer.val_dataloaders
        loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
        shows = trainer.is_global_zero and any(isinstance(x, DRAWING) for x in trainer.loggers)
        seen = min(len(loader.sampler), int(trainer.num_val_batches[0] * loader.batch_size)) if shows else 0
        self._places = set(chosen_places(seen, self.count))
        self._seen, self._panels = 0, []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for position, prediction in enumerate(outputs["maps"] if dataloader_idx == 0 else ()):
            if self._seen in self._places:
                name, image, mask = (batch[key][position] for key in ("name", "image", "mask"))
                self._panels.append(make_panel(name, image, mask, prediction, self.edge_filter))
            self._seen += 1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        panels, self._panels = self._panels, []
        for logger in trainer.loggers if panels and not trainer.sanity_checking else ():
            show_panels(logger, panels, _step(trainer))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, SaliencyModule)
        callbacks: Iterable[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        drawn: Mapping[str, Curves] = next((c.curves for c in callbacks if isinstance(c, TestFiles)), {})
        for dataset, values in pl_module.test_scores.items() if trainer.is_global_zero else ():
            figures = {} if pl_module.logs_tests else summary(values)
            found = drawn.get(dataset) or {"model": curves(values)}
            for logger in trainer.loggers:
                show_scores(logger, dataset, figures, found, _step(trainer))


def _step(trainer: pl.Trainer) -> int:
    """The optimizer step that led here."""
    return max(0, trainer.global_step - 1)


def show_panels(logger: Logger, panels: Sequence[Panel], step: int) -> None:
    """``val_pictures``: a table with a row a picture in wandb, images in TensorBoard and MLflow, nothing
    elsewhere."""
    if isinstance(logger, WandbLogger):
        import wandb
        from PIL import Image

        def drawn(panel: Panel, part: str) -> Any:
            kind = "jpg" if part == "picture" else "png"
            return wandb.Image(Image.fromarray(getattr(panel, part)), file_type=kind)

        rows = [[step, panel.name, *(drawn(panel, part) for part in PARTS)] for panel in panels]
        logger.log_table("val_pictures", columns=["step", "name", *PARTS], data=rows, step=step)
    elif isinstance(logger, TensorBoardLogger):
        for panel in panels:
            tag = f"val_pictures/{one_line(panel.name)}"  # its files hold UTF-8 alone
            logger.experiment.add_image(tag, side_by_side(panel), step, dataformats="HWC")
    elif isinstance(logger, MLFlowLogger):
        for panel in panels:
            _show_in_mlflow(logger, panel.name, side_by_side(panel), step)


def show_scores(logger: Logger, dataset: str, figures: Mapping[str, float], found: Curves, step: int) -> None:
    """``test/SET/METRIC`` in every logger but log.csv's, curves in wandb, TensorBoard and MLflow.

    Args:
        logger: of a trainer.
        dataset: a test set.
        figures: its entry of metrics.json.
        found: its entry of curves.json.
        step: the optimizer step that led to the network.
    """
    named = {f"test/{one_line(dataset)}/{key}": float(value) for key, value in figures.items()}
    if isinstance(logger, WandbLogger):
        logger.log_metrics(named | _plots(dataset, found), step)
        return
    if named and not isinstance(logger, RunLog):
        logger.log_metrics(named, step)
    if isinstance(logger, MLFlowLogger):
        _curves_in_mlflow(logger, dataset, found)
    if isinstance(logger, TensorBoardLogger):
        if named and logger.hparams:  # beside which it shows them
            logger.log_hyperparams(logger.hparams, named, step)
        # Precision and recall are means over pictures, which no counts belong to: they stay 0. Its first threshold is
        # 0, ours 255.
        none, chosen = np.zeros(THRESHOLDS), np.linspace(0, 255, THRESHOLDS).round().astype(int)
        for entrant, curve in found.items():
            precision, recall = (np.asarray(curve[key])[::-1][chosen] for key in ("precision", "recall"))
            tag, counts = f"{one_line(dataset)}/{entrant}", (none, none, none, none)
            logger.experiment.add_pr_curve_raw(tag, *counts, precision, recall, step, num_thresholds=THRESHOLDS)


def _plots(dataset: str, found: Curves) -> dict[str, Any]:
    """Under ``curves/SET`` precision over recall and F-measure over threshold."""
    import wandb

    names, drawn = list(found), list(found.values())
    thresholds = [[*range(len(curve["f_curve"]) - 1, -1, -1)] for curve in drawn]
    return {
        f"curves/{dataset}/precision_recall": wandb.plot.line_series(
            xs=[curve["recall"] for curve in drawn],
            ys=[curve["precision"] for curve in drawn],
            keys=names,
            title=f"{dataset}: precision over recall",
            xname="recall",
        ),
        f"curves/{dataset}/f_measure": wandb.plot.line_series(
            xs=thresholds,
            ys=[curve["f_curve"] for curve in drawn],
            keys=names,
            title=f"{dataset}: F-measure over threshold",
            xname="threshold",
        ),
    }


def _show_in_mlflow(logger: MLFlowLogger, name: str, drawn: np.ndarray, step: int) -> None:
    """One picture, RGB uint8 (h, w, 3), of a step under ``val_pictures/NAME``."""
    key = re.sub(r"[^a-zA-Z0-9_\-. ]", "_", one_line(name))[:100]  # all that it takes, of names of files
    logger.experiment.log_image(logger.run_id, drawn, key=f"val_pictures/{key}", step=step)


def _curves_in_mlflow(logger: MLFlowLogger, dataset: str, found: Curves) -> None:
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
