"""The module and the data module with a plain Lightning trainer, as a notebook has it."""

from __future__ import annotations

import csv
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from qefpn import QEFPN, SaliencyDataModule, SaliencyModule, load_model
from qefpn.cli import main
from qefpn.errors import UserError
from qefpn.metrics import combine, saliency_scores
from qefpn.training.module import Warmup
from qefpn.training.optimizers import adamw

SCORES = ("mae", "mean_f", "weighted_f", "max_f", "s_measure", "e_measure", "binary_ratio")


@pytest.fixture
def drawn(tiny_run: Path, data_root: Path) -> Path:
    """Twelve training pictures and three for testing, which the run drew."""
    return data_root


def network() -> QEFPN:
    torch.manual_seed(0)
    return QEFPN("resnet18", channels=8, expansion=1, decoder="sum", solver={"name": "broyden", "max_steps": 3})


def data_of(root: Path) -> SaliencyDataModule:
    return SaliencyDataModule(
        root, train=["SYN-TR"], test=["SYN-TE"], image_size=64, batch_size=4, num_workers=0, val_fraction=0.2
    )


def trainer(folder: Path, devices: int = 1) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_steps=2,
        default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def all_four(folder: Path, data: SaliencyDataModule, devices: int) -> dict[str, Any]:
    """Fit, validate, test and predict; what the first process found."""
    module = SaliencyModule(network(), warmup=Warmup(steps=1, layers=2), image_size=64)
    run = trainer(folder, devices)
    run.fit(module, data)
    (validated,) = run.validate(module, data, verbose=False)
    (tested,) = run.test(module, data, verbose=False)
    run.save_checkpoint(folder / "end.ckpt")
    maps = None if devices > 1 else run.predict(module, data)
    return {"validated": validated, "tested": tested, "maps": maps}


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_fit_validate_test_and_predict(devices: int, tmp_path: Path, drawn: Path) -> None:
    """With the trainer's own samplers left on: three test pictures in two processes are still three."""
    data = data_of(drawn)
    if devices == 1:
        found = all_four(tmp_path, data, devices)
        assert {key for key in found["validated"]} >= {"val_mae", "val_weighted_f"}
        (batch,) = found["maps"]
        assert len(batch) == 3 and all(one.dtype == np.uint8 and one.ndim == 2 for one in batch)
    else:
        script = tmp_path / "script.py"
        script.write_text(
            "import pathlib, sys\n"
            f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
            "from tests.training.test_lightning import all_four, data_of\n"
            "if __name__ == '__main__':\n"
            f"    found = all_four(pathlib.Path({str(tmp_path)!r}), data_of(pathlib.Path({str(drawn)!r})), 2)\n"
            "    import json, os\n"
            f"    path = pathlib.Path({str(tmp_path)!r}, 'found' + os.environ.get('LOCAL_RANK', '0'))\n"
            "    path.write_text(json.dumps(found))\n"
        )
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found, other = (json.loads((tmp_path / f"found{rank}").read_text()) for rank in range(2))
        assert found["tested"] == other["tested"]
    scores = {key: found["tested"][f"SYN-TE/{key}"] for key in SCORES}
    given = load_model(tmp_path / "end.ckpt")
    assert given.options == network().options
    again = trainer(tmp_path / "again").test(SaliencyModule(given, image_size=64), data_of(drawn), verbose=False)
    assert {key: again[0][f"SYN-TE/{key}"] for key in SCORES} == scores  # to the last bit


def test_a_test_measures_what_is_asked_for(tmp_path: Path, drawn: Path) -> None:
    module, data, asked = SaliencyModule(network(), image_size=64), data_of(drawn), ("iou", "biou")
    module.tests_for = asked
    run = trainer(tmp_path)
    (tested,) = run.test(module, data, verbose=False)
    (maps,) = run.predict(module, data)
    (batch,) = data.test_dataloader()[0]
    expected = combine(saliency_scores(maps, list(batch["mask"]), curves=True, metrics=asked), metrics=asked)
    for key in ("mae", "f_mean", "e_max", "iou_adaptive", "iou_binary", "iou_mean", "iou_max", "biou"):
        assert module.test_scores["SYN-TE"][key].item() == pytest.approx(expected[key], rel=1e-12), key
        assert tested[f"SYN-TE/{key}"] == pytest.approx(expected[key], rel=1e-6), key  # what Lightning logs is float32
    module.tests_for = "iuo"
    with pytest.raises(UserError, match="there is no metric 'iuo'; did you mean 'iou'"):
        run.test(module, data, verbose=False)


def test_parts_are_objects(tmp_path: Path, drawn: Path) -> None:
    """An optimizer and a scheduler of torch, as any Lightning module takes them; a checkpoint makes a module again."""
    module = SaliencyModule(
        network(),
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-2),
        scheduler=functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
        warmup=Warmup(steps=9, layers=1),
        image_size=64,
    )
    run = trainer(tmp_path)
    run.fit(module, data_of(drawn))
    groups = run.optimizers[0].param_groups
    assert {group["part"] for group in groups} == {"head", "pyramid", "backbone", "stem"}
    assert all(group["lr"] == pytest.approx(1e-2 * 0.5**2) for group in groups)
    run.save_checkpoint(tmp_path / "end.ckpt")
    content = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert content["hyper_parameters"]["network"]["solver"] == {"name": "broyden", "max_steps": 3}
    restored = SaliencyModule.load_from_checkpoint(tmp_path / "end.ckpt", optimizer=adamw)
    assert all(torch.equal(value, restored.state_dict()[key]) for key, value in module.state_dict().items())


def test_train_and_evaluate_score_alike(tiny_run: Path, tmp_path: Path) -> None:
    """What `qefpn train` tested at its end is what `qefpn evaluate` finds in its checkpoint, to the last bit."""
    checkpoint = tiny_run / "checkpoints" / "best.ckpt"
    assert main(["evaluate", f"checkpoint={checkpoint}", f"output={tmp_path}/out", "device=cpu"]) == 0
    for name in ("metrics.json", "curves.json", "floors.json"):
        assert json.loads((tmp_path / "out" / name).read_text()) == json.loads((tiny_run / name).read_text()), name
    rows = [list(csv.reader((folder / "scores.csv").open())) for folder in (tiny_run, tmp_path / "out")]
    assert rows[0] == rows[1]


def test_a_test_ends_when_told_to_and_leaves_the_log_alone(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any("SYN-TE" in column for column in (tiny_run / "log.csv").read_text().splitlines()[0].split(","))
    step = SaliencyModule.test_step

    def test_step(self: SaliencyModule, *given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *given)

    monkeypatch.setattr(SaliencyModule, "test_step", test_step)
    given = [
        f"checkpoint={tiny_run}/checkpoints/best.ckpt",
        f"output={tmp_path}/out",
        "device=cpu",
        "data.batch_size=1",
    ]
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *given, "device=cpu", "floors=false"])
    assert ended.value.code == 128 + signal.SIGTERM
    assert len(list((tmp_path / "out" / "maps").rglob("*.png"))) == 1
