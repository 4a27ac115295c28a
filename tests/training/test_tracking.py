"""What wandb and TensorBoard are told: read back from the files of real runs."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from tests.commands.runs import train, words
from tests.training.records import configuration, exit_codes, history, read_events, wandb_records
from tests.training.test_pictures import Heard

from qefpn.experiments.assemble import assemble
from qefpn.experiments.checks import check
from qefpn.experiments.composition import compose_config
from qefpn.experiments.fitting import fit
from qefpn.experiments.loggers import open_loggers
from qefpn.experiments.prepare import prepare_data
from qefpn.experiments.schema import TrainConfig, parse_config
from qefpn.experiments.scoring import score
from qefpn.reporting.sweep_tables import build_report
from qefpn.training.module import SaliencyModule

ABLATION = {"name": "solver", "table": "IV", "row": "quasi", "place": 4}


def settings(directory: Path, data: Path, *more: str) -> TrainConfig:
    """The configuration of a tiny run, checked."""
    given = [word for word in words(directory, data, *more)[1:] if not word.startswith("hydra.")]
    config = parse_config(compose_config("train", given))
    check(config)
    return config


def run(directory: Path, config: TrainConfig) -> Path:
    """As `qefpn train` runs a job: trained, scored, followed to the end."""
    config.report, config.ablation = False, ABLATION
    experiment = assemble(config, directory)
    data = prepare_data(config, directory, data=experiment.data)
    with open_loggers(config, directory) as loggers:
        score(config, fit(experiment, loggers), data, directory, floors=True)
    return directory


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A run that both wandb (offline) and TensorBoard followed. Not to be written to."""
    pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    directory = tmp_path_factory.mktemp("followed") / "run"
    names = ["logger.group=sweep_a", "logger.run_name='seed=0 solver=broyden'", "logger.pictures=2"]
    config = settings(
        directory, data_root, "logger=wandb_tensorboard", "logger.offline=true", *names, "data.val_fraction=0.3"
    )
    return run(directory, config)


@pytest.fixture(scope="module")
def told(followed: Path) -> list[Any]:
    """The records of its wandb run."""
    return wandb_records(followed)


def logged(directory: Path) -> dict[str, list[float]]:
    """Column of log.csv → its values."""
    out: dict[str, list[float]] = {}
    with (directory / "log.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if value:
                    out.setdefault(key, []).append(float(value))
    return out


def test_wandb_knows_the_run(followed: Path, told: list[Any]) -> None:
    (one,) = [record.run for record in told if record.WhichOneof("record_type") == "run"]
    assert (one.run_group, one.display_name, one.project) == ("sweep_a", "seed=0 solver=broyden", "qefpn")
    assert list(one.tags) == ["ablation=solver"]
    assert exit_codes(told) == [0]
    assert configuration(told) == yaml.safe_load((followed / "config.yaml").read_text())


def test_wandb_gets_every_column_of_the_log(followed: Path, told: list[Any]) -> None:
    columns = logged(followed)
    assert columns.keys() >= {
        *("loss", "loss_ce", "loss_iou", "loss_edge", "lr", "lr_backbone", "lr_pyramid", "memory_mb"),
        *("solver_steps", "solver_residual", "backward_steps", "backward_residual", "val_weighted_f", "val_mae"),
    }
    rows = history(told)
    for key in columns.keys() - {"step", "seconds", "epoch"}:
        assert [row[key] for row in rows if key in row] == pytest.approx(columns[key], rel=1e-6), key
    assert [row["trainer/global_step"] for row in rows if "loss" in row] == [0, 1, 2]


def test_wandb_gets_a_table_of_pictures_at_each_validation(followed: Path, told: list[Any]) -> None:
    artifacts = [record.artifact for record in told if record.WhichOneof("record_type") == "artifact"]
    tables = [artifact for artifact in artifacts if "val_pictures" in artifact.name]
    assert len(tables) == len(logged(followed)["val_mae"])
    seen = []
    for table in tables:
        files = {entry.path: Path(entry.local_path) for entry in table.manifest.contents}
        assert all(followed in path.parents for path in files.values())  # not in the home of whoever runs it
        content = json.loads(files["val_pictures.table.json"].read_text())
        assert content["columns"] == ["step", "name", "picture", "mask", "prediction", "edges"]
        assert len(content["data"]) == 2
        seen.append({row[1]: row[3]["sha256"] for row in content["data"]})
        for row in content["data"]:
            for image in row[2:]:
                drawn = cv2.imread(str(files[image["path"]]), cv2.IMREAD_UNCHANGED)
                assert drawn.shape[:2] == (64, 64)
    assert all(one == seen[0] for one in seen)  # the same pictures: the same masks


def test_wandb_gets_figures_and_curves_of_the_test_set(followed: Path, told: list[Any]) -> None:
    metrics = json.loads((followed / "metrics.json").read_text())["SYN-TE"]
    rows = history(told)
    (row,) = [row for row in rows if "test/SYN-TE/mae" in row]
    assert {key: row[f"test/SYN-TE/{key}"] for key in metrics} == pytest.approx(metrics)
    curves = json.loads((followed / "curves.json").read_text())["SYN-TE"]
    (folder,) = (followed / "wandb").glob("offline-run-*")
    (path,) = [row[key] for row in rows for key in row if key == "curves/SYN-TE/precision_recall_table/path"]
    table = json.loads((folder / "files" / path).read_text())
    points = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
    assert {point["lineKey"] for point in points} == {"model", "gaussian", "untrained"}
    own = [(point["step"], point["lineVal"]) for point in points if point["lineKey"] == "model"]
    wanted = list(zip(curves["model"]["recall"], curves["model"]["precision"], strict=True))
    assert len(own) == 256
    assert np.allclose(own, wanted)


def test_tensorboard_gets_the_same(followed: Path) -> None:
    from tensorboard.util import tensor_util

    events = read_events(followed / "tensorboard")
    columns = logged(followed)
    for key in columns.keys() - {"step", "seconds"}:
        found = sorted(events.Scalars(key), key=lambda event: event.step)  # files are read by name, and .10 before .9
        assert [event.value for event in found] == pytest.approx(columns[key], rel=1e-5), key
    pictures = [tag for tag in events.Tags()["images"] if tag.startswith("val_pictures/")]
    assert len(pictures) == 2
    shown = events.Images(pictures[0])
    assert len(shown) == len(columns["val_mae"])
    assert (shown[0].width, shown[0].height) == (4 * 64 + 3 * 4, 64)
    metrics = json.loads((followed / "metrics.json").read_text())["SYN-TE"]
    assert events.Scalars("test/SYN-TE/max_f")[-1].value == pytest.approx(metrics["max_f"])
    curve = json.loads((followed / "curves.json").read_text())["SYN-TE"]["model"]
    stored = tensor_util.make_ndarray(events.Tensors("SYN-TE/model")[-1].tensor_proto)
    assert stored.shape == (6, 127)
    assert stored[4, [0, -1]] == pytest.approx([curve["precision"][255], curve["precision"][0]])
    assert stored[5, [0, -1]] == pytest.approx([curve["recall"][255], curve["recall"][0]])
    assert "optimizer" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()


def test_the_run_directory_says_on_how_many_pictures(followed: Path) -> None:
    found = json.loads((followed / "data.json").read_text())
    assert found == {"train_pictures": 8, "val_pictures": 4, "test_pictures": {"SYN-TE": 3}}


def test_the_sweep_report_says_on_how_many_pictures_and_with_what_memory(followed: Path) -> None:
    report = build_report(followed, None)
    row, job = (
        dict(zip([table.head, *(column.head for column in table.columns)], table.texts(table.rows[0]), strict=True))
        for table in (report.blocks[0].training, report.jobs)
    )
    assert (row["data"], row["pictures"], row["size"], row["steps"]) == ("SYN-TR", "8", "64, tested at 64", "3")
    assert float(job["memory MB"].replace(",", "")) == pytest.approx(max(logged(followed)["memory_mb"]), abs=0.51)


def test_memory_is_a_column_of_a_plain_run_and_counts_from_its_start(tiny_run: Path) -> None:
    values = logged(tiny_run)["memory_mb"]
    assert len(values) == 3
    assert values == sorted(values)
    assert 50 < values[-1] < 20_000  # an interpreter with torch takes more than 50 MiB


def test_a_failed_job_ends_its_run_with_a_code(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    directory = tmp_path / "run"
    options = ["logger=wandb_tensorboard", "logger.offline=true", "logger.pictures=0", "trainer.max_steps=1"]
    config = settings(directory, data_root, *options)

    def broken(self: SaliencyModule, *_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(SaliencyModule, "on_train_batch_end", broken)
    experiment = assemble(config, directory)
    prepare_data(config, directory, data=experiment.data)
    with pytest.raises(RuntimeError, match="out of memory"), open_loggers(config, directory) as loggers:
        fit(experiment, loggers)
    import wandb

    assert wandb.run is None  # the next job gets a run of its own
    assert "WANDB_DATA_DIR" not in os.environ
    assert exit_codes(wandb_records(directory)) == [1]


def test_several_loggers_and_one_s_own_by_name(tmp_path: Path, tiny_run: Path, data_root: Path) -> None:
    """`logger=[wandb,tensorboard]`, beside one that a package brings; the log is what it is without them."""
    pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    own = ["allow=[tests]", "+logger.heard={_target_:tests.training.test_tracking.Kept,save_dir:null}"]
    run = train(tmp_path / "run", data_root, "logger=[wandb,tensorboard]", "logger.offline=true", "report=false", *own)
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert [key for key, value in written["logger"].items() if isinstance(value, dict)] == [
        "wandb",
        "tensorboard",
        "heard",
    ]
    assert "WANDB_DATA_DIR" not in os.environ
    told = wandb_records(run)
    assert exit_codes(told) == [0]
    assert configuration(told) == written
    assert any("test/SYN-TE/mae" in row for row in history(told))
    assert read_events(run / "tensorboard").Scalars("test/SYN-TE/mae")
    kept = json.loads((run / "kept.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())["SYN-TE"]
    assert kept["status"] == "success" and kept["config"] == written
    assert kept["figures"][-1] == [2, {f"test/SYN-TE/{key}": value for key, value in metrics.items()}]
    varying = ("seconds", "memory_mb")
    logs = [list(csv.DictReader((folder / "log.csv").open())) for folder in (run, tiny_run)]
    one, other = [[{k: v for k, v in row.items() if k not in varying} for row in rows] for rows in logs]
    assert one == other


class Kept(Heard):
    """Writes all that it heard into its ``save_dir``."""

    def finalize(self, status: str) -> None:
        content = {"status": status, "config": self.config, "figures": self.figures}
        Path(self.save_to, "kept.json").write_text(json.dumps(content))
