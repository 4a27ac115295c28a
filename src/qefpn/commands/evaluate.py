"""`qefpn evaluate`: saliency maps, a score a picture, metrics and a table from a checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from qefpn.commands.overrides import command_help, compose_config
from qefpn.commands.prepare import prepare_data
from qefpn.commands.runtime import choose_device, console, progress_bar, tracker
from qefpn.data import SaliencyDataModule
from qefpn.errors import UserError
from qefpn.training.checkpoint import load_trained
from qefpn.reporting import load_published, terminal_table, write_run_report
from qefpn.training.build import check
from qefpn.training.config import TrainConfig, typed
from qefpn.training.evaluation import evaluate_sets, write_json
from qefpn.training.run import untrained_module

SUMMARY = """
qefpn evaluate - saliency maps, scores.csv, metrics.json, a table and a report from a checkpoint

qefpn evaluate checkpoint=RUN/checkpoints/best.ckpt data.root=DIR
qefpn evaluate checkpoint=RUN/checkpoints/best.ckpt data.root=DIR data.test=[ECSSD,DUTS-TE] protocol=pysod
"""


def main(argv: Sequence[str]) -> int:
    """0 when every picture was scored, 1 when some were left out (they are listed), 2 for a user's mistake."""
    if any(word in ("-h", "--help") for word in argv):
        print(command_help("evaluate", SUMMARY))
        return 0
    options = compose_config("evaluate", argv)
    if OmegaConf.is_missing(options, "checkpoint"):
        raise UserError("checkpoint is not set: give checkpoint=RUN/checkpoints/best.ckpt")
    checkpoint = Path(options.checkpoint).expanduser()
    config = run_config(checkpoint)
    changes = {k: v for k, v in OmegaConf.to_container(options.data).items() if v not in (None, "???")}  # type: ignore[union-attr]
    config.data = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config.data), changes))  # type: ignore[assignment]
    if "root" in changes and "test" not in changes and config.data.name == "synthetic":
        config.data.name = "duts"  # pictures of one's own under a demo network: nothing is drawn
    config.protocol = options.protocol or config.protocol
    check(config)
    directory = Path(options.output).expanduser() if options.output else checkpoint.parent.parent / "evaluation"
    directory.mkdir(parents=True, exist_ok=True)
    data = prepare_data(config, directory, train=False)
    source = checkpoint.parent.parent / "log.csv"
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


def run_config(checkpoint: Path) -> TrainConfig:
    """The configuration of the run that a checkpoint belongs to.

    Raises:
        UserError: where config.yaml does not lie beside the checkpoint's folder.
    """
    if not checkpoint.is_file():
        raise UserError(f"checkpoint={checkpoint}: there is no such file")
    path = checkpoint.parent.parent / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path} is missing: a checkpoint is evaluated in the run directory that train wrote")
    return typed(OmegaConf.load(path))  # type: ignore[arg-type]


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
    place = choose_device("cpu" if config.trainer.accelerator == "cpu" else device)
    untrained = untrained_module(config).network if floors else None
    with progress_bar() as progress:
        metrics = evaluate_sets(
            loaded.network,
            test_loaders(data),
            directory,
            protocol=config.protocol,
            device=place,
            untrained=untrained,
            save_maps=save_maps,
            track=tracker(progress, lambda batch: len(batch["name"])),
        )
    write_json(directory / "samples.json", test_samples(data, directory))
    floors_found = json.loads((directory / "floors.json").read_text(encoding="utf-8"))
    console().print(terminal_table(metrics, floors_found, load_published()))
    print(f"metrics: {directory / 'metrics.json'}   scores a picture: {directory / 'scores.csv'}")
    if report:
        print(f"report: {write_run_report(directory).resolve()}")


def test_loaders(data: SaliencyDataModule) -> dict[str, Any]:
    """A loader a test set, by name."""
    return dict(zip(data.test_names, data.test_dataloader(), strict=True))


def test_samples(data: SaliencyDataModule, directory: Path) -> list[dict[str, str]]:
    """Where the report finds picture, mask and map of each test picture."""
    return [
        {
            "dataset": dataset,
            "name": pair.name,
            "image": str(pair.image),
            "mask": str(pair.mask),
            "map": f"maps/{dataset}/{pair.name}.png",
        }
        for dataset, pairs in data.test_pairs.items()
        for pair in pairs
    ]
