"""What wandb and TensorBoard are told: read back from the files of real runs."""

from __future__ import annotations

import csv
import importlib.util
import json
import mmap
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from tests.commands.runs import train, words

from qefpn import QEFPN, SaliencyDataModule
from qefpn.errors import UserError
from qefpn.experiments.checks import check
from qefpn.experiments.command_line import compose_config
from qefpn.experiments.config_files import config_of
from qefpn.experiments.fitting import fit
from qefpn.experiments.loggers import check_loggers, open_loggers
from qefpn.experiments.prepare import prepare_data
from qefpn.experiments.schema import TrainConfig, typed
from qefpn.experiments.scoring import score
from qefpn.losses import edges
from qefpn.reporting.sweep_tables import build_report
from qefpn.training import memory
from qefpn.training.evaluation import CURVES, SUMMARY
from qefpn.training.module import SaliencyModule, Warmup
from qefpn.training.pictures import LONGEST, ShowPictures, chosen_places, make_panel, side_by_side

BLOCK = 2**15
ABLATION = {"name": "solver", "table": "IV", "row": "quasi", "place": 4}


def settings(directory: Path, data: Path, *more: str) -> TrainConfig:
    """The configuration of a tiny run, checked."""
    given = [word for word in words(directory, data, *more)[1:] if not word.startswith("hydra.")]
    config = typed(compose_config("train", given))
    check(config)
    return config


def run(directory: Path, config: TrainConfig) -> Path:
    """As `qefpn train` runs a job: trained, scored, followed to the end."""
    data = prepare_data(config, directory)
    config.report = False
    with open_loggers(config, directory, ABLATION) as loggers:
        score(config, fit(config, data, directory, ABLATION, loggers), data, directory, floors=True)
    return directory


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: 7 bytes of head, then LevelDB's log format in blocks of 32 KiB."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = pb.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def wandb_records(directory: Path) -> list[Any]:
    """Of the one offline run below a run directory, whole: wandb's own process writes the end when it likes."""
    (folder,) = (directory / "wandb").glob("offline-run-*")
    (path,) = folder.glob("*.wandb")
    ends = time.monotonic() + 60
    while not exit_codes(found := list(records(path))) and time.monotonic() < ends:
        time.sleep(0.2)
    return found


def history(found: list[Any]) -> list[dict[str, Any]]:
    """What was logged, a dictionary a call."""
    out = []
    for record in found:
        if record.WhichOneof("record_type") == "history":
            items = {("/".join(i.nested_key) or i.key): json.loads(i.value_json) for i in record.history.item}
            out.append(items)
    return out


def configuration(found: list[Any]) -> dict[str, Any]:
    """wandb's configuration of the run, its own entries left out."""
    out: dict[str, Any] = {}
    for record in found:
        update = record.run.config if record.HasField("run") else record.config if record.HasField("config") else None
        for item in update.update if update is not None else ():
            key = "/".join(item.nested_key) or item.key
            if not key.startswith("_wandb"):
                out[key] = json.loads(item.value_json)
    return out


def exit_codes(found: list[Any]) -> list[int]:
    return [record.exit.exit_code for record in found if record.WhichOneof("record_type") == "exit"]


def read_events(folder: Path) -> Any:
    """TensorBoard's reader of the files in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    return events.Reload()


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
        assert [event.value for event in events.Scalars(key)] == pytest.approx(columns[key], rel=1e-5), key
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
    training = report.blocks[0].training
    row = dict(zip(training.columns, training.rows[0], strict=True))
    assert (row["data"], row["pictures"], row["size"], row["steps"]) == ("SYN-TR", "8", "64, tested at 64", "3")
    job = dict(zip(report.jobs.columns, report.jobs.rows[0], strict=True))
    assert float(job["memory MB"].replace(",", "")) == pytest.approx(max(logged(followed)["memory_mb"]), abs=0.51)


def test_memory_is_a_column_of_a_plain_run_and_counts_from_its_start(tiny_run: Path) -> None:
    values = logged(tiny_run)["memory_mb"]
    assert len(values) == 3
    assert values == sorted(values)
    assert 50 < values[-1] < 20_000  # an interpreter with torch takes more than 50 MiB


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux forgets a peak, others do not")
def test_a_peak_of_memory_is_forgotten_at_the_start_of_a_run() -> None:
    cpu = torch.device("cpu")
    held = mmap.mmap(-1, 200 * 2**20)  # of the system's own, which an allocator cannot keep
    for page in range(0, len(held), mmap.PAGESIZE):
        held[page] = 1
    high = memory.peak_memory_mb(cpu)
    held.close()
    memory.reset_peak_memory(cpu)
    low = memory.peak_memory_mb(cpu)
    assert high is not None and low is not None
    assert high - low > 190


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
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(config, prepare_data(config, directory), directory)
    import wandb

    assert wandb.run is None  # the next job gets a run of its own
    assert "WANDB_DATA_DIR" not in os.environ
    assert exit_codes(wandb_records(directory)) == [1]


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
    return typed(compose_config("train", ["data.root=x", *words]))


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
        (["+logger.mine={_target_:pytorch_lightning.loggers.CSVLogger,level:1}"], "logger.mine: TypeError"),
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


def test_a_plain_trainer_with_loggers_and_the_callback(tmp_path: Path, tiny_run: Path, data_root: Path) -> None:
    """As docs/tracking.md has it, without a configuration."""
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


def test_several_loggers_and_one_s_own_by_name(tmp_path: Path, data_root: Path) -> None:
    """`logger=[wandb,tensorboard]`, beside one that a package brings; the log is what it is without them."""
    pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    plain = train(tmp_path / "plain", data_root, "report=false")
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
    logs = [list(csv.DictReader((folder / "log.csv").open())) for folder in (run, plain)]
    one, other = [[{k: v for k, v in row.items() if k not in varying} for row in rows] for rows in logs]
    assert one == other


class Kept(Heard):
    """Writes all that it heard into its ``save_dir``."""

    def finalize(self, status: str) -> None:
        content = {"status": status, "config": self.config, "figures": self.figures}
        Path(self.save_to, "kept.json").write_text(json.dumps(content))


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
