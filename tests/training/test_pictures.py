"""What the callback shows of validations and tests, with a plain Lightning trainer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from tests.training.records import history, read_events, wandb_records

from qefpn import QEFPN, SaliencyDataModule
from qefpn.losses import edges
from qefpn.metrics.figures import CURVES
from qefpn.training.evaluation import SUMMARY
from qefpn.training.module import SaliencyModule, Warmup
from qefpn.training.pictures import LONGEST, ShowPictures, chosen_places, make_panel, side_by_side


def test_a_panel_shows_all_parts_at_one_size() -> None:
    mask = np.zeros((300, 600), np.uint8)
    mask[100:200, 200:400] = 255
    black = torch.zeros((3, 64, 64), dtype=torch.uint8)
    black[0, :, 32:] = 200
    panel = make_panel("one", black, torch.from_numpy(mask), mask, "prewitt")
    assert panel.picture.shape == (LONGEST // 2, LONGEST, 3)
    assert {part.shape for part in (panel.mask, panel.prediction, panel.edges)} == {(LONGEST // 2, LONGEST)}
    assert panel.picture[:, : LONGEST // 2 - 8].max() == 0
    assert np.array_equal(panel.picture[64, -1], (200, 0, 0))  # red stays red
    assert panel.edges.max() == 255
    assert panel.edges[:20].max() == 0
    wanted = edges(torch.from_numpy(panel.prediction)[None, None] / 255, "prewitt")[0, 0] * 255 * 2**0.5
    assert np.abs(panel.edges - np.minimum(wanted.numpy(), 255)).max() <= 0.5
    strip = side_by_side(panel)
    assert strip.shape == (LONGEST // 2, 4 * LONGEST + 12, 3)
    assert np.array_equal(strip[:, -LONGEST:, 0], panel.edges)


def test_the_same_few_pictures_are_chosen_each_time() -> None:
    assert chosen_places(100, 4) == [12, 37, 62, 87]
    assert chosen_places(2, 4) == [0, 1]
    assert chosen_places(0, 4) == []


class Heard(Logger):
    """A logger of somebody's own."""

    name, version = "heard", "0"

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.save_to, self.figures, self.config = save_dir, [], {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.figures.append((step, dict(metrics)))

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.config = params

    def finalize(self, status: str) -> None:
        self.status = status


def test_a_plain_trainer_with_loggers_and_the_callback(
    tmp_path: Path, tiny_run: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/tracking.md has it, without a configuration."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    tensorboard = TensorBoardLogger(tmp_path, name="", version="tb", default_hp_metric=False)
    online = WandbLogger(project="p", save_dir=tmp_path, mode="offline")
    heard = Heard("")
    torch.manual_seed(0)
    network = QEFPN("resnet18", channels=8, expansion=1, decoder="sum", solver={"name": "broyden", "max_steps": 1})
    module = SaliencyModule(network, warmup=Warmup(steps=9, layers=1), image_size=64)
    data = SaliencyDataModule(
        data_root, train=["SYN-TR"], test=["SYN-TE"], image_size=64, batch_size=4, num_workers=0, val_fraction=0.2
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=2, logger=[tensorboard, online, heard], callbacks=[ShowPictures(2)],
        default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, data)
    (tested,) = trainer.test(module, data, verbose=False)
    online.experiment.finish()
    (found,) = [metrics for _, metrics in heard.figures if any("SYN-TE" in key for key in metrics)]  # told once
    assert found["SYN-TE/mae"] == pytest.approx(tested["SYN-TE/mae"])
    events = read_events(tmp_path / "tb")
    assert events.Scalars("SYN-TE/mae")[-1].value == pytest.approx(tested["SYN-TE/mae"])
    assert [len(events.Images(tag)) for tag in events.Tags()["images"]] == [1, 1]  # 2 pictures, 1 validation
    assert "SYN-TE/model" in events.Tags()["tensors"]
    told = wandb_records(tmp_path)
    (row,) = [row for row in history(told) if "curves/SYN-TE/f_measure_table/path" in row]
    assert row["trainer/global_step"] == 1
    assert [r for r in told if r.WhichOneof("record_type") == "artifact" and "val_pictures" in r.artifact.name]


def test_nothing_scored_is_nothing_told() -> None:
    heard = Heard("")
    module = SaliencyModule(QEFPN("resnet18", channels=8, expansion=1))
    trainer: Any = SimpleNamespace(loggers=[heard], callbacks=[], is_global_zero=True, global_step=7)
    ShowPictures().on_test_end(trainer, module)
    assert heard.figures == []
    module.test_scores = {"ECSSD": dict.fromkeys((*SUMMARY, *CURVES), torch.zeros(())) | {"images": torch.tensor(3)}}
    for key in CURVES:
        module.test_scores["ECSSD"][key] = torch.zeros(256)
    ShowPictures().on_test_end(trainer, module)
    assert heard.figures == []  # the module did
    module.logs_tests = False  # as TestFiles asks of it
    ShowPictures().on_test_end(trainer, module)
    ((step, figures),) = heard.figures
    assert (step, figures) == (6, {f"test/ECSSD/{key}": 0.0 for key in SUMMARY} | {"test/ECSSD/images": 3})
