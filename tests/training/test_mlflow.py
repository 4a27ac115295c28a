"""What MLflow is told: read back from the store of real runs, whose client is MLflow's own."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import cv2
import pytest
import yaml
from tests.commands.runs import train
from tests.training.test_loggers import chosen

from qefpn.errors import UserError
from qefpn.experiments.loggers import check_loggers, open_loggers

pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def _nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def client_of(store: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient((store / "mlruns").resolve().as_uri())


def runs_of(store: Path, experiment: str = "qefpn") -> list[Any]:
    client = client_of(store)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A run that MLflow followed. Not to be written to."""
    directory = tmp_path_factory.mktemp("mlflow") / "run é"
    words = ["logger.pictures=2", "logger.tags=[first,'part=one']", "logger.group=sweep_a", "data.val_fraction=0.3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return train(directory, data_root, "logger=mlflow", "report=false", *words)


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in content.items():
        out |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": str(value)[:250]}
    return out


def test_it_knows_the_run_and_its_configuration(followed: Path) -> None:
    (run,) = runs_of(followed)
    written = yaml.safe_load((followed / "config.yaml").read_text())
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run é"
    assert run.data.params == flat(written)
    assert {key: run.data.tags[key] for key in ("first", "part", "group")} == {
        **{"first": "true", "part": "one", "group": "sweep_a"}
    }
    path = client_of(followed).download_artifacts(run.info.run_id, "config.yaml")
    assert yaml.safe_load(Path(path).read_text(encoding="utf-8")) == written


def test_it_gets_every_column_of_the_log_by_step(followed: Path) -> None:
    (run,) = runs_of(followed)
    with (followed / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {key for row in rows for key in row if row[key]} - {"step", "seconds", "epoch"}
    assert columns >= {"loss", "loss_edge", "lr", "solver_residual", "backward_steps", "val_weighted_f", "memory_mb"}
    client = client_of(followed)
    for key in columns:
        found = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, key)]
        assert sorted(found) == [(int(r["step"]), pytest.approx(float(r[key]), rel=1e-6)) for r in rows if r[key]], key


def test_it_gets_pictures_figures_and_curves(followed: Path, tmp_path: Path) -> None:
    (run,) = runs_of(followed)
    client = client_of(followed)
    metrics = json.loads((followed / "metrics.json").read_text())["SYN-TE"]
    assert {key: run.data.metrics[f"test/SYN-TE/{key}"] for key in metrics} == pytest.approx(metrics)
    got = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    pictures = sorted((got / "images").glob("val_pictures*.png"))
    with (followed / "log.csv").open(newline="") as file:
        validated = [row["step"] for row in csv.DictReader(file) if row.get("val_mae")]
    assert len(pictures) == 2 * len(validated)
    assert {path.name.split("+step+")[1].split("+")[0] for path in pictures} == set(validated)
    assert {cv2.imread(str(path)).shape for path in pictures} == {(64, 4 * 64 + 3 * 4, 3)}
    curves = json.loads((followed / "curves.json").read_text())["SYN-TE"]
    kept = json.loads((got / "curves" / "SYN-TE.json").read_text())
    assert kept.keys() == curves.keys() == {"model", "gaussian", "untrained"}
    assert kept["model"]["f_curve"] == pytest.approx(curves["model"]["f_curve"])
    for name in ("precision_recall", "f_measure"):
        drawn = cv2.imread(str(got / "curves" / f"SYN-TE_{name}.png"))
        assert drawn.shape[1] > 300 and drawn.std() > 5


def test_a_resumed_run_stays_one_run(tmp_path: Path, data_root: Path) -> None:
    words = ["logger=mlflow", "logger.pictures=0", "report=false", "evaluate=false"]
    run = train(tmp_path / "run", data_root, *words, "trainer.max_steps=2")
    last = run / "checkpoints" / "last.ckpt"
    train(tmp_path / "run", data_root, *words, "trainer.max_steps=4", f"resume={last}")
    (one,) = runs_of(run)
    client = client_of(run)
    steps = [metric.step for metric in client.get_metric_history(one.info.run_id, "loss")]
    assert sorted(steps) == [0, 1, 2, 3]
    assert one.info.status == "FINISHED"
    assert one.data.params["trainer/max_steps"] == "2"  # what it was begun with; config.yaml has what it ended with
    path = client.download_artifacts(one.info.run_id, "config.yaml")
    assert yaml.safe_load(Path(path).read_text())["trainer"]["max_steps"] == 4
    other = train(tmp_path / "other", data_root, *words, "trainer.max_steps=3", f"resume={last}")
    assert [run.info.run_id for run in runs_of(other)] != [one.info.run_id]  # in another directory it is another run


def test_a_store_of_one_s_own_takes_several_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = f"+logger.mlflow.synchronous=true logger.mlflow.tracking_uri={(tmp_path / 'mlruns').as_uri()}".split()
    for name in ("a", "b"):
        with open_loggers(chosen("logger=mlflow", "logger.project=mine", *store), tmp_path / name):
            pass
    with pytest.raises(RuntimeError), open_loggers(chosen("logger=mlflow", "logger.project=mine", *store), Path("c")):
        raise RuntimeError("out of memory")
    found = {run.info.run_name: run.info.status for run in runs_of(tmp_path, "mine")}
    assert found == {"a": "FINISHED", "b": "FINISHED", "c": "FAILED"}


def test_the_server_that_mlflow_s_variable_names_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    with open_loggers(chosen("logger=mlflow"), tmp_path / "run"):
        pass
    assert len(runs_of(tmp_path)) == 1
    assert [path.name for path in (tmp_path / "run" / "mlruns").iterdir()] == ["run_id"]


def test_a_run_that_the_store_has_not_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run" / "mlruns").mkdir(parents=True)
    (tmp_path / "run" / "mlruns" / "run_id").write_text("0" * 32)
    config = chosen("logger=mlflow")
    config.resume = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match="MLflow starts no run") as told, open_loggers(config, tmp_path / "run"):
        pass
    assert "\n" not in str(told.value)


def test_mistakes_are_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_loggers(chosen("logger=mlflow"))
    check_loggers(chosen("logger=[wandb,mlflow]", "logger.offline=true"))
    assert list(tmp_path.iterdir()) == []  # nothing is begun by a check
    for words, said in (
        (["+logger.mlflow.levle=1"], "logger.mlflow has no option 'levle'"),
        (["logger.mlflow.tracking_uri=nosuch://x"], "logger.mlflow: "),
    ):
        with pytest.raises(UserError) as told:
            check_loggers(chosen("logger=mlflow", *words))
        assert said in str(told.value) and "\n" not in str(told.value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(UserError, match=r"logger=mlflow needs the package mlflow: pip install 'qefpn\[mlflow\]'"):
        check_loggers(chosen("logger=mlflow"))
