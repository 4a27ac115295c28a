"""A run that stops and goes on is the run that never stopped."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands.runs import log, losses, train, words

from qefpn.cli import main
from qefpn.training.module import SaliencyModule

# Two batches an epoch, so that the third step lies inside one; stochastic depth draws random numbers.
RUN = ["warmup.steps=4", "evaluate=false", "trainer.max_steps=6", "data.cache=none"]
RANDOM = "backbone.options={channels:[8,8,16,16],stem_width:8,drop_path_rate:0.5}"


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Makes training raise ``error`` before optimizer step ``at``."""
    plan: dict[str, Any] = {"at": None, "error": KeyboardInterrupt}
    step = SaliencyModule.training_step

    def training_step(self: SaliencyModule, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        if self.global_step == plan["at"]:
            raise plan["error"]()
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SaliencyModule, "training_step", training_step)
    return plan


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    return train(tmp_path_factory.mktemp("unbroken") / "run", data_root, *RUN, RANDOM)


SLOW = pytest.mark.slow
# Step 2 lies between two epochs; 3 and 5 in the middle of one, before and after the warm-up's end.


@pytest.mark.parametrize("at", [pytest.param(2, marks=SLOW), 3, pytest.param(5, marks=SLOW)])
def test_stopped_by_ctrl_c_and_resumed(
    tmp_path: Path, data_root: Path, unbroken: Path, stops: dict[str, Any], at: int
) -> None:
    stops["at"] = at
    assert main(words(tmp_path / "first", data_root, *RUN, RANDOM)) == 130
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == at
    before = last.read_bytes()
    stops["at"] = None
    train(tmp_path / "second", data_root, *RUN, RANDOM, f"resume={last}")
    assert losses(tmp_path / "first") + losses(tmp_path / "second") == pytest.approx(losses(unbroken), abs=1e-5)
    assert last.read_bytes() == before  # a resumed run writes its own directory
    both = log(tmp_path / "first") + log(tmp_path / "second")
    assert [row["step"] for row in both] == [row["step"] for row in log(unbroken)]
    assert [row["lr"] for row in both] == [row["lr"] for row in log(unbroken)]
    assert [bool(row.get("backward_steps")) for row in both] == [False] * 4 + [True] * 2

    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (tmp_path / "second", unbroken)
    ]
    assert states[0]["global_step"] == states[1]["global_step"] == 6
    for key, value in states[1]["state_dict"].items():
        torch.testing.assert_close(states[0]["state_dict"][key], value, rtol=1e-4, atol=1e-6)
    moments = [s["optimizer_states"][0]["state"] for s in states]
    for index, state in moments[1].items():
        torch.testing.assert_close(moments[0][index]["exp_avg"], state["exp_avg"], rtol=1e-3, atol=1e-6)


def test_a_finished_run_goes_on_with_a_later_end(tmp_path: Path, data_root: Path, unbroken: Path) -> None:
    constant = [*RUN, "schedule=constant", "optimizer=sgd"]
    whole = train(tmp_path / "whole", data_root, *constant)
    half = train(tmp_path / "half", data_root, *constant, "trainer.max_steps=3")
    rest = train(tmp_path / "rest", data_root, *constant, f"resume={half}/checkpoints/last.ckpt")
    assert losses(half) + losses(rest) == pytest.approx(losses(whole), abs=1e-5)


def test_a_run_that_ended_with_an_epoch_goes_on_with_the_next(tmp_path: Path, data_root: Path) -> None:
    constant = ["evaluate=false", "schedule=constant", "warmup.steps=1"]
    whole = train(tmp_path / "whole", data_root, *constant, "trainer.max_steps=5")
    half = train(tmp_path / "half", data_root, *constant, "trainer.max_steps=2")
    rest = train(tmp_path / "rest", data_root, *constant, "trainer.max_steps=5", f"resume={half}/checkpoints/last.ckpt")
    rows = log(half) + log(rest)
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in log(whole)]
    assert losses(half) + losses(rest) == pytest.approx(losses(whole), abs=1e-5)


@pytest.mark.slow
def test_a_run_that_broke_keeps_its_last_step(tmp_path: Path, data_root: Path, stops: dict[str, Any]) -> None:
    stops.update(at=2, error=ZeroDivisionError)
    with pytest.raises((ZeroDivisionError, SystemExit)):
        main(words(tmp_path / "run", data_root, *RUN))
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


def test_resumed_into_its_own_directory(tmp_path: Path, data_root: Path) -> None:
    """The log goes on, with the columns of the backward solve added to those of the warm-up."""
    constant = [*RUN, "schedule=constant"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run = train(tmp_path / "run", data_root, *constant, "trainer.max_steps=2")
        assert "backward_steps" not in log(run)[0]
        train(run, data_root, *constant, f"resume={run}/checkpoints/last.ckpt")
    assert [str(one.message) for one in told if str(run) in str(one.message)] == []  # nothing is said to be lost there
    rows = log(run)
    assert [int(row["step"]) for row in rows] == list(range(6))
    assert [row["backward_steps"] != "" for row in rows] == [False] * 4 + [True] * 2


def test_another_network_is_refused(
    tmp_path: Path, data_root: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("resume", "init"):
        last = tiny_run / "checkpoints" / "last.ckpt"
        assert main(words(tmp_path / "run", data_root, "pyramid.channels=16", f"{key}={last}")) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert key in line
        assert "another shape" in line


def test_init_starts_a_fresh_run_from_trained_weights(tmp_path: Path, data_root: Path, tiny_run: Path) -> None:
    last = tiny_run / "checkpoints" / "last.ckpt"
    run = train(
        tmp_path / "run",
        data_root,
        f"init={last}",
        "trainer.max_steps=1",
        "optimizer.lr=1e-12",
        "evaluate=false",
    )
    started = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    source = torch.load(last, weights_only=True)["state_dict"]
    assert started["global_step"] == 1
    for name in ("network.head.weight", "network.fusion.up.0.weight"):
        if name in source:
            torch.testing.assert_close(started["state_dict"][name], source[name], atol=1e-6, rtol=0)
    torch.testing.assert_close(started["state_dict"]["network.head.weight"], source["network.head.weight"])
