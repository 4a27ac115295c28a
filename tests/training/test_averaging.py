"""Averaged weights: what they are, where they lie in a checkpoint, and what is validated."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.commands.runs import train, words
from tests.training.breaking import assert_same_run, forked, run_once, signalled
from torch import Tensor

from qefpn import load_model
from qefpn.cli import main
from qefpn.training.last_checkpoint import LastCheckpoint
from qefpn.training.module import SaliencyModule

RUN = ["warmup.steps=2", "evaluate=false", "trainer.max_steps=7", "callbacks=ema"]
State = dict[str, Tensor]


def state_of(module: pl.LightningModule) -> State:
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The weights after each step, and those that each validation saw, with the step before it."""
    found: dict[str, Any] = {"trained": [], "validated": []}
    batch_end = LastCheckpoint.on_train_batch_end
    validation_step = SaliencyModule.validation_step

    def on_train_batch_end(self: LastCheckpoint, trainer: Any, pl_module: Any, *rest: Any) -> None:
        found["trained"].append(state_of(pl_module))
        batch_end(self, trainer, pl_module, *rest)

    def step(self: SaliencyModule, batch: Any, batch_idx: int) -> Any:
        found["validated"].append((self.global_step, state_of(self)))
        return validation_step(self, batch, batch_idx)

    monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", on_train_batch_end)
    monkeypatch.setattr(SaliencyModule, "validation_step", step)
    return found


def assert_equal(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-5, atol=1e-7, msg=key)


def test_the_average_is_validated_and_kept_beside_what_is_trained(
    tmp_path: Path, data_root: Path, seen: dict[str, Any]
) -> None:
    run = train(tmp_path / "run", data_root, *RUN, "callbacks.ema.decay=0.4")
    # the first step starts the average; afterwards it keeps .1 (the first: 2 of 11 steps) up to .4 of itself
    averages: list[State] = []
    for number, state in enumerate(seen["trained"]):
        kept = 0.0 if number == 0 else min(0.4, (1 + number) / (10 + number))
        former = averages[-1] if averages else state
        averages.append(
            {
                key: kept * former[key] + (1 - kept) * value if value.is_floating_point() else value
                for key, value in state.items()
            }
        )
    assert len(averages) == 7
    assert {at for at, _ in seen["validated"]} == {2, 4, 6, 7}
    for at, state in seen["validated"]:
        assert_equal(state, averages[at - 1])
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert_equal(last["state_dict"], averages[-1])
    assert_equal(last["current_model_state"], seen["trained"][-1])
    different = sum(
        not torch.equal(last["state_dict"][key], value) for key, value in last["current_model_state"].items()
    )
    assert different > 50
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert_equal(best["state_dict"], averages[best["global_step"] - 1])
    network = load_model(run / "checkpoints" / "best.ckpt")  # what everybody loads
    assert_equal(network.state_dict(), {k[8:]: v for k, v in best["state_dict"].items() if k.startswith("network.")})


@pytest.mark.slow
def test_ended_while_it_validates(tmp_path: Path, data_root: Path) -> None:
    """The average is in the network then; each lies in its place all the same."""
    given = [*RUN, "data.val_fraction=0.3", "data.eval_batch_size=1"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_once(words(whole, data_root, *given), save_every=60.0) == 0

    def ended() -> int:
        step = SaliencyModule.validation_step

        def validation_step(self: SaliencyModule, batch: Any, batch_idx: int) -> Any:
            signalled(signal.SIGTERM)()  # heeded before the next picture
            return step(self, batch, batch_idx)

        SaliencyModule.validation_step = validation_step  # type: ignore[method-assign]
        return main(words(broken, data_root, *given))

    assert forked(ended) == 128 + signal.SIGTERM
    last = broken / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    assert state["global_step"] == 2 and not state["qefpn"]["validated"]
    assert run_once(words(broken, data_root, *given, f"resume={last}")) == 0
    assert_same_run(whole, broken)


@pytest.mark.slow
def test_a_run_goes_on_only_as_what_it_was(tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path / "averaged", data_root, *RUN)
    last = run / "checkpoints" / "last.ckpt"
    more = [*RUN[:2], "trainer.max_steps=9", f"resume={last}"]
    assert main(words(tmp_path / "second", data_root, *more)) == 2
    assert "averaged weights" in capsys.readouterr().err
    # averaging may begin in the middle of a run
    plain = train(tmp_path / "plain", data_root, *RUN[:2], "trainer.max_steps=4")
    last = plain / "checkpoints" / "last.ckpt"
    train(tmp_path / "late", data_root, *RUN, f"resume={last}")
    state = torch.load(tmp_path / "late" / "checkpoints" / "last.ckpt", weights_only=True)
    assert int(state["averaging_state"]["n_averaged"]) == 3


@pytest.mark.parametrize("word", [f"callbacks.ema.{word}" for word in ("decay=1.0", "decay=-0.1", "decay=a", "x=1")])
def test_impossible_values_are_one_line(
    word: str, tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path / "run", data_root, *RUN, word)) == 2
    err = capsys.readouterr().err.strip()
    assert err.count("\n") == 0 and "callbacks" in err
