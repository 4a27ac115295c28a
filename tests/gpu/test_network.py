"""Network, training, evaluation and prediction on a GPU beside the CPU."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from tests.commands.runs import log, train, words
from tests.gpu.device import DEVICE, cuda_only
from torch import Tensor

from qefpn import QEFPN, Predictor, SaliencyModule
from qefpn.cli import main
from qefpn.data import find_pairs
from qefpn.metrics import SaliencyMetrics, saliency_scores
from qefpn.training.callbacks import Float32Precision
from qefpn.training.hardware import fast_bfloat16, fp32_precision

pytestmark = pytest.mark.gpu

TRAINER = "gpu" if DEVICE.type == "cuda" else "cpu"
SMALL: dict[str, Any] = {"channels": 16, "expansion": 2, "solver": {"name": "broyden", "max_steps": 6, "rtol": 1e-4}}


def network() -> QEFPN:
    torch.manual_seed(0)
    return QEFPN("resnet18", **SMALL).eval()


def pictures(count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, 3, 96, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    folder = tmp_path_factory.mktemp("gpu") / "run"
    return train(folder, data_root, f"trainer={TRAINER}", "trainer.max_steps=4")


def test_logits_are_those_of_the_cpu() -> None:
    made, images = network(), pictures()
    with torch.no_grad(), fp32_precision("ieee"):
        expected = made(images)
        found = made.to(DEVICE)(images.to(DEVICE)).cpu()
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


def test_a_prediction_does_not_depend_on_its_batch() -> None:
    made, images = network().to(DEVICE), pictures(3).to(DEVICE)
    with torch.no_grad(), fp32_precision("ieee"):
        together, alone = made(images), made(images[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("block_dtype", ["float32", "bfloat16"])
def test_a_training_step_gives_finite_gradients_everywhere(block_dtype: str) -> None:
    torch.manual_seed(0)
    made = QEFPN("resnet18", block_dtype=block_dtype, **SMALL).to(DEVICE).train()
    output = made.run(pictures().to(DEVICE), keys=torch.arange(2))
    output.logits.square().mean().backward()
    missing = [name for name, p in made.named_parameters() if p.grad is None or not bool(torch.isfinite(p.grad).all())]
    assert not [name for name in missing if "side_heads" not in name and "edge_head" not in name]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning_trains_on_one_device(precision: str) -> None:
    module = SaliencyModule(network())
    masks = (torch.rand(4, 1, 96, 64) > 0.5).float()
    samples = [{"image": image, "mask": mask} for image, mask in zip(pictures(4), masks, strict=True)]
    trainer = pl.Trainer(
        accelerator=TRAINER, devices=1, max_steps=2, precision=precision, logger=False,  # type: ignore[arg-type]
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[Float32Precision("ieee")],
    )  # fmt: skip
    before = [p.detach().clone() for p in module.parameters()]
    trainer.fit(module, torch.utils.data.DataLoader(samples, batch_size=2))
    assert trainer.global_step == 2 and trainer.world_size == 1
    after = list(module.cpu().parameters())
    assert all(bool(torch.isfinite(p).all()) for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_run_takes_one_device_and_logs_its_memory(run: Path) -> None:
    rows = log(run)
    assert len(rows) == 4 and all(np.isfinite(float(row["loss"])) for row in rows)
    assert float(rows[-1]["memory_mb"]) > 0


def test_a_run_goes_on_to_the_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data_root: Path) -> None:
    more = (f"trainer={TRAINER}", "trainer.deterministic=true", "evaluate=false", "trainer.max_steps=5")
    whole = train(tmp_path / "whole", data_root, *more)
    step, count = SaliencyModule.training_step, 0

    def struck(self: SaliencyModule, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(SaliencyModule, "training_step", struck)
        assert main(words(tmp_path / "broken", data_root, *more)) == 128 + signal.SIGTERM
    last = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    train(tmp_path / "broken", data_root, *more, f"resume={last}")
    states = [torch.load(one / "checkpoints" / "last.ckpt", weights_only=True) for one in (whole, tmp_path / "broken")]
    assert [state["global_step"] for state in states] == [5, 5]
    assert all(torch.equal(value, states[1]["state_dict"][key]) for key, value in states[0]["state_dict"].items())


def test_evaluation_scores_as_on_the_cpu(run: Path, tmp_path: Path, data_root: Path) -> None:
    scores = {}
    for device in {DEVICE.type, "cpu"}:
        words = [f"checkpoint={run}/checkpoints/last.ckpt", f"data.root={data_root}", f"output={tmp_path / device}"]
        assert main(["evaluate", *words, f"device={device}", "floors=false", "report=false"]) == 0
        scores[device] = json.loads((tmp_path / device / "metrics.json").read_text())["SYN-TE"]
    for key, value in scores["cpu"].items():
        assert scores[DEVICE.type][key] == pytest.approx(value, abs=2e-3), key


def test_maps_are_within_a_grey_level_of_the_cpus(run: Path, data_root: Path) -> None:
    files = [pair.image for pair in find_pairs(data_root / "SYN-TE")]
    with fp32_precision("ieee"):
        here = Predictor(run / "checkpoints" / "last.ckpt", device=DEVICE)(list(files))
    there = Predictor(run / "checkpoints" / "last.ckpt")(list(files))
    assert max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(here, there, strict=True)) <= 1


def test_metrics_of_tensors_on_the_device_are_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 256, (3, 40, 30), generator=generator).to(torch.uint8)
    masks = torch.randint(0, 2, (3, 40, 30), generator=generator).to(torch.uint8) * 255
    metric = SaliencyMetrics(protocol="pysod").to(DEVICE)
    metric.update(maps.to(DEVICE), masks.to(DEVICE))
    found = metric.compute()
    records = saliency_scores(maps.numpy(), masks.numpy(), "pysod")
    assert float(found["mae"]) == pytest.approx(np.mean([record["mae"] for record in records]), abs=1e-15)


def test_bfloat16_is_chosen_where_the_hardware_has_it() -> None:
    if DEVICE.type == "cuda":
        major, _ = torch.cuda.get_device_capability()
        assert fast_bfloat16("gpu") is (major >= 8)
    else:
        assert fast_bfloat16("gpu") is False


@cuda_only
def test_float32_is_ieee_in_training_unless_asked_otherwise() -> None:
    x = torch.full((64, 64), 1 + 2**-12, device=DEVICE)  # 1 in TF32
    exact = 64 * (1 + 2**-12) ** 2
    with fp32_precision("ieee"):
        assert float((x @ x)[0, 0]) == pytest.approx(exact, rel=1e-6)
        kernel = torch.ones(32, 32, 3, 3, device=DEVICE)
        picture = torch.full((1, 32, 16, 16), 1 + 2**-12, device=DEVICE)
        convolved = float(torch.nn.functional.conv2d(picture, kernel, padding=1)[0, 0, 8, 8])
        assert convolved == pytest.approx(288 * (1 + 2**-12), rel=1e-6)
    with fp32_precision("tf32"):
        assert float((x @ x)[0, 0]) != pytest.approx(exact, rel=1e-6)


@cuda_only
def test_fixed_seeds_give_the_same_run_twice(tmp_path: Path, data_root: Path) -> None:
    more = ("trainer=gpu", "trainer.deterministic=true", "evaluate=false")
    states = []
    for name in ("one", "two"):
        folder = train(tmp_path / name, data_root, *more)
        states.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
