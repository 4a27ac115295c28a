"""Two processes (gloo) train and validate as one does: same losses, same scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule
from tests.commands.runs import losses, words

from qefpn.cli import main
from qefpn.training.module import SaliencyModule

pytestmark = pytest.mark.slow

FREEZE = """
import torch

def freeze(module):
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.eval()
"""
"""Batch norm sees a rank's share of a batch alone: the one thing that may differ, so it is held still."""

IN_RANKS = """
import json, os, pathlib, sys
from freeze import freeze

if "RANK" in os.environ and "qefpn.sweeps.ranks" in sys.orig_argv:
    from qefpn.training.module import SaliencyModule

    directory, rank = pathlib.Path(sys.orig_argv[-1]), os.environ["RANK"]
    start, scored = SaliencyModule.on_train_batch_start, SaliencyModule.on_validation_epoch_end

    def on_train_batch_start(self, batch, batch_idx):
        freeze(self)
        with (directory / ("seen" + rank)).open("a") as file:
            file.write(json.dumps([self.trainer.world_size, *batch["name"]]) + "\\n")
        return start(self, batch, batch_idx)

    def on_validation_epoch_end(self):
        scored(self)
        values = {key: float(value) for key, value in self.trainer.callback_metrics.items() if key.startswith("val_")}
        (directory / ("scores" + rank + ".json")).write_text(json.dumps(values))

    SaliencyModule.on_train_batch_start = on_train_batch_start
    SaliencyModule.on_validation_epoch_end = on_validation_epoch_end
"""

TRAIN = [
    *("trainer.max_steps=20", "warmup.steps=6", "warmup.layers=3", "solver.max_steps=6", "residual.p=0"),
    *("data.synthetic.train=24", "data.val_fraction=0.3", "data.batch_size=4", "evaluate=false", "seed=3"),
    *("optimizer=sgd", "optimizer.lr=0.02"),
]

DOUBLE = "trainer.precision=64-true"
"""With batch norm held still at its start, 20 steps enlarge a difference in the last digit by 10⁵: in float32 rounding
alone gives losses that differ by 1e-2, in float64 only a real difference could."""


def job(folder: Path, data: Path, devices: int, *more: str) -> Path:
    """Train in one process, here, or as the one job of a sweep on two ranks; the run's directory."""
    given = words(folder, data, *TRAIN, *more)
    if devices == 1:
        assert main(given) == 0
        return folder
    given = [word for word in given if not word.startswith(("hydra.run.dir", "trainer=cpu"))]
    ranks = ["trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={devices}", "-m"]
    assert main([*given, *ranks, f"hydra.sweep.dir={folder}"]) == 0
    return folder / "0"


@pytest.fixture
def frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm held still in this process and in the ranks that it starts; each writes what it saw."""
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "freeze.py").write_text(FREEZE)
    (tmp_path / "spy" / "sitecustomize.py").write_text(IN_RANKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "spy"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    start, scored = SaliencyModule.on_train_batch_start, SaliencyModule.on_validation_epoch_end

    def on_train_batch_start(self: SaliencyModule, batch: dict[str, list[str]], batch_idx: int) -> None:
        freeze(self)
        with (Path(self.trainer.default_root_dir) / "seen").open("a") as file:
            file.write(json.dumps([self.trainer.world_size, *batch["name"]]) + "\n")
        start(self, batch, batch_idx)

    def on_validation_epoch_end(self: SaliencyModule) -> None:
        scored(self)
        values = {k: float(value) for k, value in self.trainer.callback_metrics.items() if k.startswith("val_")}
        (Path(self.trainer.default_root_dir) / "scores.json").write_text(json.dumps(values))

    monkeypatch.setattr(SaliencyModule, "on_train_batch_start", on_train_batch_start)
    monkeypatch.setattr(SaliencyModule, "on_validation_epoch_end", on_validation_epoch_end)


def freeze(module: LightningModule) -> None:
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.eval()


def seen(run: Path, name: str) -> list[list[str]]:
    """Names of the pictures of every step."""
    return [json.loads(line)[1:] for line in (run / name).read_text().splitlines()]


@pytest.mark.usefixtures("frozen")
def test_the_losses_of_two_processes_are_those_of_one(tmp_path: Path, data_root: Path) -> None:
    data = data_root.parent / f"{data_root.name}-24"
    one, two = job(tmp_path / "one", data, 1, DOUBLE), job(tmp_path / "two", data, 2, DOUBLE)
    shares = zip(seen(two, "seen0"), seen(two, "seen1"), strict=True)
    for whole, (first, second) in zip(seen(one, "seen"), shares, strict=True):
        assert len(first) == len(second) == 2
        assert sorted(whole) == sorted([*first, *second])
    alone, together = losses(one), losses(two)
    assert len(alone) == len(together) == 20
    assert max(alone) - min(alone) > 0.1  # it learns: the curves could differ
    differences = [abs(a - b) for a, b in zip(alone, together, strict=True)]
    print("largest difference of a loss:", max(differences), differences)
    assert max(differences) <= 1e-6  # the exchange of what is logged is in float32


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(("batch", "tolerance"), [(1, 1e-9), (3, 1e-6)])
def test_the_scores_of_two_processes_are_those_of_one(
    batch: int, tolerance: float, tmp_path: Path, data_root: Path, tiny_run: Path
) -> None:
    """Of the same weights: the rate is so small that a step leaves them as they are."""
    data = data_root.parent / f"{data_root.name}-24"
    still = ["optimizer.lr=1e-30", "trainer.max_steps=1", f"data.eval_batch_size={batch}"]
    still += [f"init={tiny_run}/checkpoints/last.ckpt", "warmup.steps=0"]
    one, two = (job(tmp_path / name, data, n, *still) for n, name in ((1, "one"), (2, "two")))
    weights = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (one, two)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    expected = json.loads((one / "scores.json").read_text())
    assert len(expected) >= 6
    for rank in (0, 1):
        found = json.loads((two / f"scores{rank}.json").read_text())
        assert found.keys() == expected.keys()
        print("largest difference of a score:", max(abs(found[key] - expected[key]) for key in expected))
        for key, value in expected.items():
            assert found[key] == pytest.approx(value, abs=tolerance)
