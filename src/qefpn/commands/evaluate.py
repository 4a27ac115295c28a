"""`qefpn evaluate`: saliency maps, a score a picture, metrics and a table from a checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from qefpn.commands.overrides import command_config, command_help
from qefpn.commands.predict_record import made_by
from qefpn.commands.prepare import Reporter, prepare_data
from qefpn.commands.run_config import run_config, run_directory
from qefpn.commands.runtime import choose_device, console, progress_bar, quiet_libraries
from qefpn.data import SaliencyDataModule
from qefpn.data.files import file_key
from qefpn.data.registry import normalize_name
from qefpn.data.survey import locate
from qefpn.errors import UserError
from qefpn.reporting import load_published, terminal_table, write_run_report
from qefpn.text import one_line
from qefpn.training.build import check
from qefpn.training.checkpoint import load_trained
from qefpn.training.config import DataConfig, LoggerConfig, TrainConfig, TrainerConfig, settle_root
from qefpn.training.evaluation import Predictor, gaussian_predictor, network_predictor, write_json
from qefpn.training.failures import library_errors, quiet
from qefpn.training.module import SaliencyModule
from qefpn.training.run import untrained_module
from qefpn.training.test_files import TestFiles

SUMMARY = """
qefpn evaluate - saliency maps, scores.csv, metrics.json, a table and a report from a checkpoint

qefpn evaluate checkpoint=RUN/checkpoints/best.ckpt data.root=DIR
qefpn evaluate checkpoint=RUN/checkpoints/best.ckpt data.root=DIR data.test=[ECSSD,DUTS-TE] protocol=pysod
"""


NO_SETS = "there are no test sets: nothing is scored"


def main(argv: Sequence[str]) -> int:
    """0 when every picture was scored, 1 when some were left out (and listed), 2 for a user's mistake."""
    if any(word in ("-h", "--help") for word in argv):
        print(command_help("evaluate", SUMMARY))
        return 0
    quiet_libraries()
    options = command_config("evaluate", argv)
    if OmegaConf.is_missing(options, "checkpoint"):
        raise UserError("checkpoint is not set: give checkpoint=RUN/checkpoints/best.ckpt")
    checkpoint = Path(str(options.checkpoint)).expanduser()
    config = run_config(checkpoint)
    config.data = evaluation_data(config.data, options.data)
    config.protocol = options.protocol or config.protocol
    config.init = config.resume = config.backbone.weights = None  # what the run started from need not be there
    config.data.augment = None  # training alone does it
    config.trainer, config.logger = TrainerConfig(), LoggerConfig()  # nor the machine that it ran on
    config.trainer.max_epochs = 1
    check(config)
    directory = Path(str(options.output)).expanduser() if options.output else run_directory(checkpoint) / "evaluation"
    directory.mkdir(parents=True, exist_ok=True)
    data = prepare_data(config, directory, train=False)
    source = run_directory(checkpoint) / "log.csv"
    if source.is_file() and not (directory / "log.csv").exists():
        shutil.copyfile(source, directory / "log.csv")  # the report shows how the network was trained
    evaluate_run(
        config,
        checkpoint,
        data,
        directory,
        report=options.report,
        device=options.device,
        floors=options.floors,
        save_maps=options.save_maps,
    )
    return 1 if data.report().errors else 0


def evaluation_data(data: DataConfig, options: DictConfig) -> DataConfig:
    """Where and what to evaluate: the run's own test pictures, unless options say otherwise.

    At another root nothing is drawn, the run's test sets are looked for by name, and where the run held out a
    share of its own pictures, or none of its sets is there, all pictures at that root are scored.
    """
    given = {str(key): value for key, value in options.items() if value is not None and value != {}}
    if "lists" in given:
        given["lists"] = {str(name): str(file) for name, file in given["lists"].items()}
    if ("images" in given or "masks" in given) and "root" not in given:
        settle_root(options)
        given["root"] = options.root
    root = Path(str(given.pop("root", data.root)))
    moved = root.expanduser().resolve() != Path(data.root).expanduser().resolve()
    test = given.pop("test", None)
    names = data.test if test is None else [str(name) for name in ([test] if isinstance(test, str) else test)]
    changed = dataclasses.replace(data, root=str(root), test=names, **given)
    outright = "images" in given or "masks" in given
    if moved or test is not None or outright:
        changed = dataclasses.replace(changed, name="folder", synthetic=None)  # nothing is drawn
    if outright and test is None:
        changed.test = ["."]
    elif moved and test is None:
        there = [name for name in names or [] if _is_there(root, name)]
        absent = [name for name in names or [] if name not in there]
        if absent:
            print(f"not at {root}: {', '.join(absent)}" + ("" if there else "; all pictures there are scored"))
        changed.test = there or ["."]
    if moved or outright or "layout" in given:
        for key in ("layout", "images", "masks"):  # the run's own place, unless it was given anew
            setattr(changed, key, given.get(key))
    if "lists" not in given and (moved or test is not None):
        kept = {normalize_name(name) for name in changed.test or []}
        changed.lists = {name: file for name, file in data.lists.items() if normalize_name(name) in kept}
    return changed


def _is_there(root: Path, name: str) -> bool:
    try:
        locate(root, name)
    except UserError:
        return False
    return True


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
) -> None:
    """Score a checkpoint on the test sets of ``data``; files go to ``directory``, the table to the terminal."""
    loaded = load_trained(checkpoint)
    place = choose_device(device)
    if not data.test_pairs:
        print(NO_SETS)
        return
    made = made_before(directory, checkpoint, place, data) if save_maps else set()
    with progress_bar() as progress, _kept_when_stopped(directory if save_maps else None), quiet():
        files = TestFiles(
            directory,
            floors=floors_of(config, place) if floors else None,
            save_maps=save_maps,
            made=made,
            progress=Reporter(progress),
        )
        trainer = pl.Trainer(
            accelerator="gpu" if place.type == "cuda" else place.type,
            devices=1 if place.index is None else [place.index],
            callbacks=[files],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        module = SaliencyModule(loaded.network, protocol=config.protocol)
        with library_errors(trainer, timeout=0.0, last=checkpoint):
            trainer.test(module, datamodule=data, verbose=False)
    tell_scores(data, directory, files.metrics, report=report)


def floors_of(config: TrainConfig, device: torch.device) -> dict[str, Predictor]:
    """What is scored beside a network: a centred Gaussian, and the same network with fresh weights."""
    untrained = untrained_module(config).network.eval().to(device)
    return {"gaussian": gaussian_predictor, "untrained": network_predictor(untrained, device)}


def tell_scores(
    data: SaliencyDataModule, directory: Path, metrics: dict[str, dict[str, float]], *, report: bool
) -> None:
    """The table to the terminal, and the report, of what :class:`TestFiles` wrote."""
    write_json(directory / "samples.json", test_samples(data, {name: int(m["images"]) for name, m in metrics.items()}))
    floors_found = json.loads((directory / "floors.json").read_text(encoding="utf-8"))
    console().print(terminal_table(metrics, floors_found, load_published()))
    print(f"metrics: {directory / 'metrics.json'}   scores a picture: {directory / 'scores.csv'}")
    if report:
        print(f"report: {write_run_report(directory).resolve()}")


def made_before(directory: Path, checkpoint: Path, device: torch.device, data: SaliencyDataModule) -> set[Path]:
    """Maps of a run that was stopped, of the same checkpoint, size, device and pictures: they need not be made again.

    ``maps/made_by.json`` says what maps were made of; where it says otherwise all are made again.
    """
    pictures = hashlib.sha256()
    for dataset, pairs in data.test_pairs.items():
        for pair in pairs:
            pictures.update(repr((dataset, pair.name, file_key(pair.image))).encode(errors="backslashreplace"))
    size = {"image_size": data.image_size, "device": device.type, "batch": [data.eval_batch_size, data.batch_size]}
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
