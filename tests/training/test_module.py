"""What the module does in a step: warm-up, parameter groups, schedules."""

from __future__ import annotations

import itertools
import math
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import timer
from tests.commands.runs import log, train, words

from qefpn import QEFPN
from qefpn.cli import main
from qefpn.training.module import SaliencyModule
from qefpn.training.optimizers import adamw, parameter_groups, sgd
from qefpn.training.run_log import RunLog
from qefpn.training.schedule import build_schedule


def tiny_network() -> QEFPN:
    return QEFPN("resnet18", channels=8, expansion=1)


def test_warm_up_counts_optimizer_steps(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two batches a step: two steps of warm-up are four batches."""
    seen: list[int | None] = []
    layers = SaliencyModule.unrolled_layers

    def unrolled_layers(self: SaliencyModule) -> int | None:
        if self.trainer.training:
            seen.append(layers(self))
        return layers(self)

    monkeypatch.setattr(SaliencyModule, "unrolled_layers", unrolled_layers)
    options = [
        "trainer.accumulate_grad_batches=2",
        "trainer.max_steps=3",
        "warmup.steps=2",
        "warmup.layers=3",
    ]
    train(tmp_path / "run", data_root, *options, "evaluate=false")
    assert seen == [3, 3, 3, 3, None, None]


@pytest.mark.parametrize("workers", [0, 1])
def test_sizes_grow_by_the_batch_whatever_the_workers(
    workers: int, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches a step, five steps: batch b is at (b / 2 + 1) / 6 of training; the sizes change at 1/4 and 1/2."""
    seen: list[int] = []
    step = SaliencyModule.training_step

    def training_step(self: SaliencyModule, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        seen.append(batch["image"].shape[-1])
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SaliencyModule, "training_step", training_step)
    options = [
        "data.scales=[32,48,64]",
        "data.progressive=0.5",
        f"data.num_workers={workers}",
        "trainer.accumulate_grad_batches=2",
        "trainer.max_steps=5",
        "trainer.max_epochs=9",
    ]
    train(tmp_path / "run", data_root, *options, "evaluate=false")
    assert seen == [32, 48, 48, 48, 64, 64, 64, 64, 64, 64]


def test_the_stem_stays_out_and_the_backbone_is_slower() -> None:
    network = tiny_network()
    optimizer = sgd(parameter_groups(network), lr=0.05, backbone_lr_scale=0.1, pyramid_lr_scale=0.5, weight_decay=5e-4)
    groups = optimizer.param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert groups[0]["lr"] == 0.05  # the head's, which is logged
    assert all(group["weight_decay"] == 5e-4 for group in groups)
    given = [id(p) for group in groups for p in group["params"]]
    assert len(given) == len(set(given))
    stem = {id(p) for p in network.backbone.stem_parameters()}
    assert len(stem) == 3  # a convolution without bias, and its norm
    assert set(given) == {id(p) for p in network.parameters()} - stem
    assert all(p.requires_grad for p in network.parameters())
    backbone = {id(p) for p in network.backbone.parameters()} - stem
    pyramid = {id(p) for p in network.pyramid.parameters()}
    for parameter in set(given):
        share = 0.1 if parameter in backbone else 0.5 if parameter in pyramid else 1.0
        assert rates[parameter] == pytest.approx(0.05 * share)


def test_all_parameters_and_no_decay_of_norms() -> None:
    network = tiny_network()
    groups = adamw(parameter_groups(network), lr=1e-3, weight_decay=1e-2).param_groups
    given = {id(p) for group in groups for p in group["params"]}
    assert given == {id(p) for p in network.parameters()}
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])
    backbone = {id(p) for p in network.backbone.parameters()}
    assert not any(id(p) in backbone for p in groups[0]["params"])  # its rate is what is logged


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_gradients_are_clipped_in_half_precision(
    optimizer: str, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `trainer.precision=auto` comes to where the processor has bfloat16."""
    norms: list[float] = []

    def on_train_batch_end(self: SaliencyModule, *_: Any) -> None:
        parameters = [p for group in self.trainer.optimizers[0].param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    monkeypatch.setattr(SaliencyModule, "on_train_batch_end", on_train_batch_end)
    options = ["trainer.precision=bf16-mixed", "trainer.gradient_clip_val=0.01", "trainer.max_steps=2"]
    train(tmp_path / "run", data_root, *options, f"optimizer={optimizer}", "evaluate=false")
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)


def test_linear_schedule_is_the_paper_s() -> None:
    factor = build_schedule("linear", peak=0.5)
    assert [factor(x) for x in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert build_schedule("linear", peak=0.0)(0.0) == 1.0
    assert build_schedule("linear", peak=1.0)(1.0) == 1.0


def test_cosine_and_constant_schedules() -> None:
    factor = build_schedule("cosine", peak=0.2)
    assert factor(0.1) == pytest.approx(0.5)
    assert factor(0.2) == pytest.approx(1.0)
    assert factor(0.4) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert factor(1.0) == pytest.approx(0.0, abs=1e-12)
    assert {build_schedule("constant")(x) for x in (0.0, 0.5, 1.0)} == {1.0}


@pytest.mark.parametrize("options", [{"peak": 1.5}, {"peak": -0.1}, {"peek": 0.5}])
def test_impossible_schedules(options: dict[str, float]) -> None:
    with pytest.raises((ValueError, TypeError), match="pe[ae]k"):
        build_schedule("linear", **options)


def test_rates_of_the_paper_s_schedule_step_each_iteration(tmp_path: Path, data_root: Path) -> None:
    options = [
        "optimizer=sgd",
        "optimizer.lr=0.01",
        "schedule=linear",
        "trainer.max_steps=4",
        "evaluate=false",
    ]
    run = train(tmp_path / "run", data_root, *options)
    shares = [(i + 1) / 5 for i in range(4)]
    wanted = [0.01 * min(s / 0.5, (1 - s) / 0.5) for s in shares]
    assert [float(row["lr"]) for row in log(run)] == pytest.approx(wanted)


def test_a_run_bounded_by_time_ends_its_schedule(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = itertools.count(step=0.02)  # a clock that goes on when it is read: no machine is too slow for it
    monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: next(readings)))
    options = [
        "trainer.max_time=00:00:00:06",
        "trainer.max_steps=-1",
        "warmup.steps=100000",
        "evaluate=false",
    ]
    run = train(tmp_path / "run", data_root, *options, "schedule=linear", "optimizer.lr=1e-3")
    rates = [float(row["lr"]) for row in log(run)]
    assert 10 < len(rates) < 120
    assert 0 < rates[0] < 1e-4
    assert max(rates) > 0.9e-3
    assert 0 <= rates[-1] < 0.1e-3


@pytest.fixture(autouse=True)
def default_sigint() -> Iterator[None]:
    """Python's own handler, whatever the test before left or the shell ignores."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def test_the_log_takes_new_columns_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    first = RunLog(path)
    first.log_metrics({"loss": 1.5, "epoch": 0}, step=0)
    first.finalize("success")
    second = RunLog(path)
    second.log_metrics({"val_mae": 0.25}, step=1)
    second.log_metrics({"loss": 1.25, "solver_steps": 3.0}, step=2)
    second.save()
    second.log_metrics({"extra": 1}, step=3)
    second.save()
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    assert len(set(header)) == len(header)
    named = [{k: v for k, v in zip(header, row, strict=True) if v and k != "seconds"} for row in rows]
    assert named == [
        {"step": "0", "epoch": "0", "loss": "1.5"},
        {"step": "1", "val_mae": "0.25"},
        {"step": "2", "loss": "1.25", "solver_steps": "3"},
        {"step": "3", "extra": "1"},
    ]


def test_each_batch_has_a_seed_of_its_own(tmp_path: Path) -> None:
    """What a step draws depends on run, epoch and batch, not on what was drawn before."""
    module = SaliencyModule(tiny_network(), seed=2**40)

    def drawn(index: int) -> torch.Tensor:
        module.on_train_batch_start({}, index)
        return torch.rand(3)

    first, second = drawn(0), drawn(1)
    torch.rand(7)
    assert torch.equal(drawn(0), first)
    assert not torch.equal(first, second)


def test_terms_of_the_pyramid_are_added_and_logged(tmp_path: Path, data_root: Path) -> None:
    options = [
        "warmup.steps=0",
        "trainer.max_steps=2",
        "evaluate=false",
        "pyramid.weight_norm=true",
        "pyramid.jacobian_weight=2.0",
        "pyramid.correction_weight=0.5",
        "pyramid.spectral_radius_every=2",
    ]
    rows = log(train(tmp_path / "run", data_root, *options))
    assert len(rows) == 2
    for row in rows:
        terms = {name: float(row[f"loss_{name}"]) for name in ("jacobian", "correction")}
        assert all(value > 0 for value in terms.values())
        assert float(row["solver_norm"]) > 0
        own = sum(
            float(value) for name, value in row.items() if name.startswith("loss_") and value and name[5:] not in terms
        )
        assert float(row["loss"]) == pytest.approx(own + 2.0 * terms["jacobian"] + 0.5 * terms["correction"], rel=1e-4)
    assert 0 < float(rows[0]["spectral_radius"]) <= float(rows[0]["spectral_radius_max"])
    assert rows[1]["spectral_radius"] == rows[0]["spectral_radius"], "a log row shows the last measurement"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("pyramid.start=last", "pyramid.start is gone: training solves start from zero; leave it out"),
        ("pyramid.jacobian_weight=-1", "pyramid.jacobian_weight must be a number from 0 on"),
        ("pyramid.jacobian_samples=0", "pyramid.jacobian_samples must be at least 1"),
        ("pyramid.correction_gamma=0", r"pyramid.correction_gamma must be in \(0, 1\]"),
        ("pyramid.spectral_radius_every=-1", "pyramid.spectral_radius_every must be at least 0"),
    ],
)
def test_impossible_terms(
    option: str, message: str, tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path / "run", data_root, option)) != 0
    assert re.search(message, capsys.readouterr().err)
