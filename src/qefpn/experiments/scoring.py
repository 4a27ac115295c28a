"""A checkpoint scored on test sets: maps, figures, a table and the report in a directory."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from qefpn.atomic import write_json
from qefpn.data import SaliencyDataModule
from qefpn.data.files import file_key
from qefpn.experiments.fitting import Fitted, test, untrained_module
from qefpn.experiments.prepare import Reporter
from qefpn.experiments.runtime import choose_device, console, progress_bar
from qefpn.experiments.schema import TrainConfig
from qefpn.inference.record import made_by
from qefpn.metrics.figures import Figures
from qefpn.models.budgets import EXACT, checked_budget
from qefpn.models.loading import load_model, load_trained
from qefpn.reporting import load_published, run_tables, terminals, write_run_report
from qefpn.reporting.before_after import sentences
from qefpn.reporting.tables import BEFORE
from qefpn.text import one_line
from qefpn.training.callbacks import Float32Precision
from qefpn.training.evaluation import Predictor, gaussian_predictor, network_predictor
from qefpn.training.failures import library_errors, quiet_lightning
from qefpn.training.module import SaliencyModule
from qefpn.training.test_files import TestFiles

NO_SETS = "there are no test sets: nothing is scored"


def score(config: TrainConfig, fitted: Fitted, data: SaliencyDataModule, directory: Path, *, floors: bool) -> None:
    """Test what training chose, on all of its devices, and tell of it."""

    if not data.test_pairs or config.trainer.limit_test_batches == 0:
        print(NO_SETS)
        return
    with progress_bar() as progress:
        beside = floors_of(config, fitted.trainer.strategy.root_device) if floors else None
        metrics = test(config, fitted, data, directory, floors=beside, progress=Reporter(progress))
    if fitted.trainer.is_global_zero:
        tell_scores(data, directory, metrics, report=config.report)


def evaluate_run(
    config: TrainConfig,
    checkpoint: Path,
    data: SaliencyDataModule,
    directory: Path,
    *,
    report: bool = True,
    device: str = "auto",
    floors: bool = True,
    save_maps: bool = True,
    metrics: Figures | None = None,
    budget: str | None = None,
) -> None:
    """Score a checkpoint on the test sets of ``data``; files go to ``directory``, the table to the terminal.

    ``metrics``, of ``metrics.choose``, are measured beside the figures that are always there.
    """
    metrics = metrics or Figures()
    loaded = load_trained(checkpoint, budget)
    place = choose_device(device)
    if not data.test_pairs:
        print(NO_SETS)
        return
    kept = save_maps and metrics.quantize  # floats are not in a map's file
    made = made_before(directory, checkpoint, place, data, budget) if kept else set()
    with progress_bar() as progress, _kept_when_stopped(directory if save_maps else None), quiet_lightning():
        files = TestFiles(
            directory,
            floors=floors_of(config, place, metrics.quantize) if floors else None,
            save_maps=save_maps,
            made=made,
            progress=Reporter(progress),
        )
        trainer = pl.Trainer(
            accelerator="gpu" if place.type == "cuda" else place.type,
            devices=1 if place.index is None else [place.index],
            callbacks=[Float32Precision(config.trainer.fp32_precision), files],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        module = SaliencyModule(loaded.network, protocol=config.protocol)
        module.tests_for = metrics
        with library_errors(trainer, timeout=0.0, last=checkpoint):
            trainer.test(module, datamodule=data, verbose=False)
    tell_scores(data, directory, files.metrics, report=report)


def floors_of(config: TrainConfig, device: torch.device, quantize: bool = True) -> dict[str, Predictor]:
    """What is scored beside a network: a centred Gaussian, and the same network with fresh weights; after a fine-tuning
    the network that it began with."""
    untrained = untrained_module(config).network.eval().to(device)
    floors: dict[str, Predictor] = {
        "gaussian": functools.partial(gaussian_predictor, quantize=quantize),
        "untrained": network_predictor(untrained, device, quantize),
    }
    if config.init is not None:
        floors[BEFORE] = network_predictor(load_model(config.init).to(device), device, quantize)
    return floors


def tell_scores(
    data: SaliencyDataModule, directory: Path, metrics: dict[str, dict[str, float]], *, report: bool
) -> None:
    """The table to the terminal, and the report, of what :class:`TestFiles` wrote."""
    write_json(directory / "samples.json", test_samples(data, {name: int(m["images"]) for name, m in metrics.items()}))
    floors_found = json.loads((directory / "floors.json").read_text(encoding="utf-8"))
    for part in terminals(run_tables(metrics, floors_found, load_published()), console().width):
        console().print(part)
    for line in sentences(directory):
        print(line)
    print(f"metrics: {directory / 'metrics.json'}   scores a picture: {directory / 'scores.csv'}")
    if report:
        print(f"report: {write_run_report(directory).resolve()}")


def made_before(
    directory: Path, checkpoint: Path, device: torch.device, data: SaliencyDataModule, budget: str | None = None
) -> set[Path]:
    """Maps of a run that was stopped, of the same checkpoint, budget, size, device and pictures: they need not be made
    again.

    ``maps/made_by.json`` says what maps were made of; where it says otherwise all are made again.
    """
    pictures = hashlib.sha256()
    for dataset, pairs in data.test_pairs.items():
        for pair in pairs:
            pictures.update(repr((dataset, pair.name, file_key(pair.image))).encode(errors="backslashreplace"))
    size: dict[str, Any] = {
        "image_size": data.image_size,
        "device": device.type,
        "batch": [data.eval_batch_size, data.batch_size],
    }
    if checked_budget(budget) != EXACT:
        size |= {"budget": str(budget)}
    own = {"made_by": made_by(checkpoint, size | {"pictures": pictures.hexdigest()})}
    record = directory / "maps" / "made_by.json"
    try:
        same = json.loads(record.read_text(encoding="utf-8")) == own
    except (OSError, ValueError):
        same = False
    if not same:
        write_json(record, own)
        return set()
    return {Path(folder, name) for folder, _, names in os.walk(record.parent) for name in names if name[-4:] == ".png"}


@contextlib.contextmanager
def _kept_when_stopped(directory: Path | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if directory is not None:
            where = one_line(directory / "maps")
            print(f"the maps that are done stay in {where}: the same command makes the others", file=sys.stderr)
        raise


@dataclass(frozen=True)
class FirstBatches:
    """The first batches of a loader."""

    loader: DataLoader[Any]
    batches: int

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self.loader), self.batches)

    def __len__(self) -> int:
        """Pictures."""
        return min(len(self.loader.dataset), self.batches * int(self.loader.batch_size or 1))  # type: ignore[arg-type]


def test_loaders(data: SaliencyDataModule, limit: float | int = 1.0) -> dict[str, FirstBatches]:
    """A loader a test set, by name; those of which nothing is left are left out."""
    loaders = {}
    for name, loader in zip(data.test_names, data.test_dataloader(), strict=True):
        batches = int(limit * len(loader)) if isinstance(limit, float) else min(limit, len(loader))
        if batches:
            loaders[name] = FirstBatches(loader, batches)
    return loaders


def test_samples(data: SaliencyDataModule, counts: Mapping[str, int]) -> list[dict[str, str]]:
    """Where the report finds picture, mask and map of each test picture; ``counts`` of each set were scored."""
    return [
        {
            "dataset": dataset,
            "name": pair.name,
            "image": os.path.abspath(str(pair.image)),
            "mask": os.path.abspath(str(pair.mask)),
            "map": f"maps/{dataset}/{pair.name}.png",
        }
        for dataset, count in counts.items()
        for pair in data.test_pairs[dataset][:count]
    ]
