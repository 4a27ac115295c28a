"""The files that a test leaves behind: maps, a row a picture, figures, curves and floors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from qefpn.atomic import write_json
from qefpn.metrics import SaliencyMetrics
from qefpn.reporting.tables import BEFORE
from qefpn.training.evaluation import Batch, Predictor, curves, read_png, save_png, summary, write_scores
from qefpn.training.module import SaliencyModule

Progress = Callable[[str, int, int], None]
Rows = list[tuple[int, int, tuple[Any, ...]]]
"""Of pictures: place of the set, place in the set, name and scores."""


class TestFiles(pl.Callback):
    """Writes what ``Trainer.test`` finds of a :class:`SaliencyModule` into a directory: ``maps/<set>/<name>.png``,
    ``scores.csv``, ``metrics.json``, ``floors.json``, ``curves.json`` and ``samples.json``; ``before.csv``, as
    ``scores.csv``, where one of the floors is :data:`BEFORE`.

    Floors are scored on the batches that the network has seen, so that a picture is decoded once for all. Every process
    writes the maps that it made, the first one everything else.

    Args:
        directory: of the files.
        floors: what is scored beside the network, by name.
        save_maps: whether maps are kept.
        made: maps below ``directory`` that this network made before, and that are read instead of made again.
        progress: called as ``progress(what, done, total)``, with the pictures of a set.

    Attributes:
        metrics, curves: the content of metrics.json and of curves.json, once the test is over; empty in other processes
            than the first.
    """

    __test__ = False  # for pytest, which takes it for a test

    def __init__(
        self,
        directory: Path,
        *,
        floors: Mapping[str, Predictor] | None = None,
        save_maps: bool = True,
        made: Collection[Path] = (),
        progress: Progress | None = None,
    ) -> None:
        self.directory = directory
        self.floors = dict(floors or {})
        self.save_maps, self.made, self.progress = save_maps, made, progress
        self.metrics: dict[str, dict[str, float]] = {}
        self.curves: dict[str, dict[str, dict[str, list[float]]]] = {}
        self._rows: Rows = []
        self._before: Rows = []
        self._keys: tuple[str, ...] = ()
        self._floors: dict[tuple[str, str], SaliencyMetrics] = {}
        self._done: dict[str, int] = {}

    def map_path(self, dataset: str, name: str) -> Path:
        """Where the map of a picture lies."""
        return self.directory / "maps" / dataset / f"{name}.png"

    def kept_maps(self, dataset: str, batch: Batch) -> list[np.ndarray] | None:
        """The maps of a batch that were made before; None where one is missing."""
        paths = [self.map_path(dataset, name) for name in batch["name"]]
        return [read_png(path) for path in paths] if self.made and all(path in self.made for path in paths) else None

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, SaliencyModule)
        self._rows, self._before, self._floors, self._done, self.metrics, self.curves = [], [], {}, {}, {}, {}
        pl_module.logs_tests = False
        pl_module.kept_maps = self.kept_maps if self.save_maps and self.made else None

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(pl_module, SaliencyModule)
        dataset = pl_module.test_names[dataloader_idx]
        self._rows += self._batch_rows(dataloader_idx, batch, outputs["records"])
        for name, saliency in zip(batch["name"], outputs["maps"], strict=True):
            path = self.map_path(dataset, name)
            if self.save_maps and path not in self.made:
                save_png(path, saliency)
        masks = [np.asarray(mask) for mask in batch["mask"]]
        for floor, predict in self.floors.items():
            metric = self._floors.setdefault(
                (dataset, floor),
                SaliencyMetrics(pl_module.val_metrics.protocol, pl_module.tests_for).to(pl_module.device),
            )
            records = metric.score_batch(predict(batch), masks)
            if floor == BEFORE:
                self._before += self._batch_rows(dataloader_idx, batch, records)
        self._done[dataset] = self._done.get(dataset, 0) + len(masks) * trainer.world_size
        if self.progress is not None and trainer.is_global_zero:
            total = max(self._done[dataset], self._total(trainer, dataloader_idx))
            self.progress(f"{dataset} · model", min(self._done[dataset], total), total)

    @staticmethod
    def _total(trainer: pl.Trainer, dataloader_idx: int) -> int:
        loaders: Any = trainer.test_dataloaders
        loader = loaders[dataloader_idx] if isinstance(loaders, (list, tuple)) else loaders
        batches, size = trainer.num_test_batches[dataloader_idx], getattr(loader, "batch_size", None) or 1
        return min(len(loader.dataset), int(batches) * size * trainer.world_size)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, SaliencyModule)
        pl_module.kept_maps = None
        found = pl_module.test_scores
        floors: dict[str, dict[str, dict[str, float]]] = {name: {} for name in found}
        drawn = {name: {"model": curves(values)} for name, values in found.items()}
        for (dataset, floor), metric in self._floors.items():
            values = metric.compute()
            floors[dataset][floor], drawn[dataset][floor] = summary(values), curves(values)
        rows, before = self._gathered(trainer, self._rows), self._gathered(trainer, self._before)
        self._rows, self._before = [], []
        if not trainer.is_global_zero:
            return
        write_scores(self.directory / "scores.csv", self._records(rows, pl_module.test_names))
        if BEFORE in self.floors:
            write_scores(self.directory / "before.csv", self._records(before, pl_module.test_names))
        write_json(self.directory / "floors.json", floors)
        write_json(self.directory / "curves.json", drawn)
        self.curves = drawn
        self.metrics = {name: summary(values) for name, values in found.items()}
        write_json(self.directory / "metrics.json", self.metrics)

    def _batch_rows(self, number: int, batch: Batch, records: Sequence[Mapping[str, Any]]) -> Rows:
        """What is kept of the scores of a batch: tuples, which take half the memory of dictionaries."""
        self._keys = self._keys or tuple(records[0])
        places = batch["index"].tolist()
        return [
            (number, place, (name, *(record[key] for key in self._keys)))
            for place, name, record in zip(places, batch["name"], records, strict=True)
        ]

    def _records(self, rows: Rows, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The rows as ``scores.csv`` has them."""
        for number, _, (name, *scores) in rows:
            yield {"dataset": names[number], "name": name, **dict(zip(self._keys, scores, strict=True))}

    def _gathered(self, trainer: pl.Trainer, rows: Rows) -> Rows:
        """The rows of all processes in the order of the sets and their pictures; in the first process."""
        if trainer.world_size > 1:
            shares: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, (self._keys, rows))
            rows = [row for _, share in shares for row in share]
            self._keys = next((some for some, _ in shares if some), ())
        return sorted(rows, key=lambda one: one[:2])
