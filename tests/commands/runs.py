"""Tiny runs of the commands, for the tests of training and commands."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from qefpn.cli import main

TINY = [
    "backbone=timm",
    "backbone.model=resnet10t",
    "backbone.options={channels:[8,8,16,16],stem_width:8}",
    "pyramid.channels=8",
    "pyramid.expansion=1",
    "solver.max_steps=2",
    "optimizer=adamw",
    "schedule=cosine",
    "trainer=cpu",
    "data.val_fraction=0.1",
]
SYNTHETIC = [
    "data.image_size=64",
    "data.scales=[64]",
    "data.batch_size=4",
    "data.num_workers=0",
    "data.synthetic.size=64",
    "data.synthetic.train=12",
    "data.synthetic.test=3",
]
SHORT = ["trainer.max_steps=3", "warmup.steps=1"]


def words(directory: Path, data: Path, *more: str) -> list[str]:
    """`qefpn train` of a tiny network on tiny synthetic pictures; a key of ``more`` wins."""
    given = [
        *TINY,
        *SYNTHETIC,
        *SHORT,
        f"data.root={data}",
        f"hydra.run.dir={directory}",
    ]
    keys = {word.partition("=")[0] for word in more}
    # another option of a group has other keys
    belongs = {"data": "data.synthetic", "backbone": "backbone."}
    gone = tuple(prefix for group, prefix in belongs.items() if group in keys)
    kept = [word for word in given if word.partition("=")[0] not in keys and not word.startswith(gone)]
    return ["train", *kept, *more]


def train(directory: Path, data: Path, *more: str) -> Path:
    """Run it; the run directory."""
    assert main(words(directory, data, *more)) == 0
    return directory


def log(directory: Path) -> list[dict[str, str]]:
    """Rows of log.csv that hold a loss, one a step."""
    with (directory / "log.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row.get("loss")]


def losses(directory: Path) -> list[float]:
    return [float(row["loss"]) for row in log(directory)]


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the synthetic pictures of all tiny runs lie; drawn by the first."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A run directory as `qefpn train` leaves it. Not to be written to."""
    return train(tmp_path_factory.mktemp("run") / "tiny", data_root)
