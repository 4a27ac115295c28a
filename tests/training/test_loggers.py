"""Loggers as a configuration names them: built, started, refused, closed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning.utilities import rank_zero_only

from qefpn.errors import UserError
from qefpn.experiments.composition import compose_config
from qefpn.experiments.config_files import config_of
from qefpn.experiments.loggers import check_loggers, open_loggers
from qefpn.experiments.schema import TrainConfig, parse_config


def test_a_failure_after_training_is_one_too(tmp_path: Path) -> None:
    ends: list[str] = []
    logger = SimpleNamespace(finalize=ends.append)
    broken = SimpleNamespace(finalize=lambda status: 1 / 0)
    with pytest.raises(KeyboardInterrupt), open_loggers(TrainConfig(), tmp_path) as loggers:
        loggers.append(logger)  # type: ignore[arg-type]
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), open_loggers(TrainConfig(), tmp_path) as loggers:
        loggers += [logger, broken]  # type: ignore[list-item]
    assert ends == ["failed", "success"]  # also beside one that cannot be closed


def chosen(*words: str) -> TrainConfig:
    """The configuration of a run with these loggers; nothing of it is checked but types."""
    return parse_config(compose_config("train", ["data.root=x", *words]))


def test_other_ranks_and_trials_are_followed_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    config = chosen("logger=wandb_tensorboard", "logger.offline=true")
    with open_loggers(config, tmp_path / "run") as loggers:
        assert loggers == []
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    config.trainer.fast_dev_run = True
    with open_loggers(config, tmp_path / "run") as loggers:
        assert loggers == []
    assert not (tmp_path / "run").exists()


class FakeRun:
    """Takes what wandb's run takes."""

    def __init__(self, **given: Any) -> None:
        self.id, self.offline, self.config = given["id"], False, {}

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def test_a_run_that_goes_on_in_its_directory_stays_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **options: given.append(options) or FakeRun(**options))
    config = chosen("logger=wandb")

    def begin(resume: Path | None, offline: bool = False) -> dict[str, Any]:
        config.resume = None if resume is None else str(resume)
        config.logger["offline"] = offline
        with open_loggers(config, tmp_path / "run"):
            return given[-1]

    (tmp_path / "run").mkdir()
    first = begin(None)
    assert (first["resume"], first["mode"], first["name"]) == (None, None, "run")
    again = begin(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert (again["id"], again["resume"]) == (first["id"], "allow")
    other = begin(tmp_path / "elsewhere" / "checkpoints" / "last.ckpt")
    assert (other["id"] != first["id"], other["resume"]) == (True, None)
    assert begin(tmp_path / "run" / "checkpoints" / "last.ckpt", offline=True)["mode"] == "offline"


def test_what_names_a_wandb_run_is_given_in_the_group_or_to_the_logger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **options: given.append(options) or FakeRun(**options))
    words = ["logger.project=p", "logger.entity=e", "logger.group=g", "logger.tags=[t]"]
    words += ["logger.run_name='a \\${seed} b'"]
    with open_loggers(chosen("logger=wandb", *words, "+logger.wandb.notes=n", "+logger.wandb.name=own"), tmp_path):
        pass
    named = {key: given[-1][key] for key in ("project", "entity", "group", "name", "tags", "notes", "dir")}
    assert named == {
        **{"project": "p", "entity": "e", "group": "g", "name": "own", "tags": ["t"], "notes": "n"},
        "dir": str(tmp_path),
    }
    with open_loggers(chosen("logger=wandb", *words), tmp_path):
        assert given[-1]["name"] == "a ${seed} b"


def test_a_refusal_of_wandb_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")

    def refuses(**_: Any) -> None:
        raise wandb.errors.AuthenticationError("API key verification failed.\nmore lines")

    monkeypatch.setattr(wandb, "init", refuses)
    refused = pytest.raises(UserError, match=r"verification failed\); give logger.offline=true")
    with refused as raised, open_loggers(chosen("logger=wandb"), tmp_path):
        pass
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_what_a_logger_refuses_at_its_start_is_one_line(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    refused = pytest.raises(UserError, match=rf"logger\.{name}: .*levle")
    with refused as raised, open_loggers(chosen(f"logger={name}", f"+logger.{name}.levle=1"), tmp_path):
        pass
    assert "\n" not in str(raised.value)


def test_what_cannot_work_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    for variable in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    check_loggers(chosen("logger=csv"))
    for option, name, said in (
        ("wandb", "wandb", "logger.offline=true"),
        ("tensorboard", "tensorboard", "qefpn[tensorboard]"),
        ("wandb_tensorboard", "wandb", "logger.offline=true"),
        ("[tensorboard,wandb]", "tensorboard", "qefpn[tensorboard]"),
    ):
        with pytest.raises(UserError) as raised:
            check_loggers(chosen(f"logger={option}"))
        assert said in str(raised.value)
        assert f"logger={name}" in str(raised.value)
    check_loggers(chosen("logger=wandb", "logger.offline=true"))
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    check_loggers(chosen("logger=wandb"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["logger.pictures=65"], "logger.pictures must be within 0 to 64, not 65"),
        (["logger.pictures=many"], "logger.pictures: Value 'many'"),
        (["+logger.projct=x"], "unknown key logger.projct; did you mean logger.project"),
        (["+logger.mine={level:1}"], "logger.mine: has no _target_"),
        (["+logger.mine._target_=qefpn.training.pictures.ShowPictures"], "is no Logger"),
        (["+logger.mine._target_=pytorch_lightning.loggers.NoLogger"], "has no such class"),
        (["+logger.mine={_target_:pytorch_lightning.loggers.CSVLogger,level:1}"], "logger.mine has no option 'level'"),
    ],
)
def test_mistakes_in_loggers_are_told_before_anything_runs(words: list[str], said: str) -> None:
    pytest.importorskip("wandb")
    with pytest.raises(UserError) as raised:
        check_loggers(chosen("logger=wandb", *words))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_logger_of_a_package_that_is_not_allowed_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"allow=\[turtle\]"):
        chosen("+logger.mine._target_=turtle.Turtle")
    config = chosen()
    config.logger["mine"] = {"_target_": "turtle.Turtle"}
    with pytest.raises(UserError, match=r"allow=\[turtle\]"):
        check_loggers(config)
    assert "turtle" not in sys.modules


def test_what_was_written_with_one_logger_by_name_is_read() -> None:
    former = {"name": "wandb", "project": "p", "entity": None, "offline": True, "group": "g", "tags": ["t"]}
    config = config_of({"logger": former, "data": {"root": "x"}}, Path("config.yaml"))
    assert config.logger == {key: value for key, value in former.items() if key != "name"}
    check_loggers(config)
