"""How much of training is done, by steps and by the clock."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning.callbacks import Timer

from qefpn.data.progress import SharedTimer, training_share


def trainer(*callbacks: Any, steps: float = float("inf"), world_size: int = 1) -> Any:
    return SimpleNamespace(callbacks=callbacks, estimated_stepping_batches=steps, world_size=world_size)


def timer(elapsed: float, monkeypatch: pytest.MonkeyPatch) -> SharedTimer:
    own = SharedTimer(duration={"seconds": 100})
    monkeypatch.setattr(own, "time_elapsed", lambda: elapsed)
    return own


def test_share_of_the_steps() -> None:
    assert [training_share(trainer(steps=4), step) for step in range(4)] == [0.2, 0.4, 0.6, 0.8]
    assert training_share(trainer(), 10) == 1e-3  # no end in sight


def test_what_ends_training_sooner_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = timer(30.0, monkeypatch)
    assert training_share(trainer(clock), 5) == 0.3
    assert training_share(trainer(clock, steps=9), 5) == 0.6
    assert training_share(trainer(clock, steps=99), 5) == 0.3
    assert training_share(trainer(timer(170.0, monkeypatch)), 5) == 1.0
    theirs = Timer(duration={"seconds": 100})
    monkeypatch.setattr(theirs, "time_elapsed", lambda: 40.0)
    assert training_share(trainer(theirs), 5) == 0.4


def test_processes_go_by_the_clock_that_they_agreed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = timer(30.0, monkeypatch)
    two = trainer(clock, world_size=2)
    clock.on_train_start(two, None)  # type: ignore[arg-type]
    assert training_share(two, 5) == 1e-3  # none has asked yet
    clock.share = 0.25
    assert training_share(two, 5) == 0.25
    two.should_stop = False
    clock.on_train_batch_end(two)
    assert not two.should_stop
    clock.share = 1.0
    clock.on_train_batch_end(two)
    assert two.should_stop
    alone = timer(30.0, monkeypatch)
    alone.on_train_start(trainer(alone), None)  # type: ignore[arg-type]
    alone.share = 0.25
    assert training_share(trainer(alone), 5) == 0.3
