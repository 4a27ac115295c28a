"""`qefpn evaluate`: the run's own scores again, other roots, other protocols."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.commands.runs import train

from qefpn.cli import main
from qefpn.data import SaliencyDataModule, synthesize
from qefpn.inference.predictor import Predictor, predict_maps
from qefpn.metrics import combine, saliency_scores, to_uint8
from qefpn.reporting.tables import metric
from qefpn.training import module as training_module


def scores(directory: Path) -> list[dict[str, str]]:
    with (directory / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def metrics(directory: Path) -> dict[str, dict[str, float]]:
    return json.loads((directory / "metrics.json").read_text())


def evaluate(run: Path, output: Path, *more: str) -> int:
    return main(["evaluate", f"checkpoint={run}/checkpoints/best.ckpt", f"output={output}", *more])


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one's own, of mixed sizes, side by side in one folder."""
    folder = tmp_path_factory.mktemp("my pictures (é)")
    drawn = tmp_path_factory.mktemp("drawn")
    synthesize(drawn, train=12, test=1, size=64, seed=5)
    for index, path in enumerate(sorted((drawn / "SYN-TR" / "SYN-TR-Image").iterdir())):
        mask = drawn / "SYN-TR" / "SYN-TR-Mask" / f"{path.stem}.png"
        size = (64 + 4 * (index % 3), 64)
        Image.open(path).convert("RGB").resize(size).save(folder / f"pic{index}.jpg")
        Image.open(mask).convert("L").resize(size, Image.Resampling.NEAREST).save(folder / f"pic{index}.png")
    return folder


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory, elsewhere: Path) -> Path:
    """A network trained on them."""
    run = tmp_path_factory.mktemp("own") / "run"
    return train(run, elsewhere, "data=folder", "data.test_fraction=0.25", "trainer.max_steps=1")


def test_the_same_scores_as_train_wrote(tiny_run: Path, tmp_path: Path) -> None:
    assert evaluate(tiny_run, tmp_path) == 0
    for name in ("scores.csv", "metrics.json", "floors.json", "curves.json", "samples.json"):
        assert (tmp_path / name).read_text() == (tiny_run / name).read_text(), name
    maps = [sorted(p.read_bytes() for p in (root / "maps" / "SYN-TE").iterdir()) for root in (tmp_path, tiny_run)]
    assert maps[0] == maps[1]
    assert (tmp_path / "report.html").is_file()


def test_beside_the_run_by_default_and_without_extras(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    words = ["report=false", "floors=false", "save_maps=false"]
    assert main(["evaluate", f"checkpoint={run}/checkpoints/last.ckpt", *words]) == 0
    assert metrics(run / "evaluation")["SYN-TE"]["images"] == 3
    assert not (run / "evaluation" / "maps").exists()
    assert not (run / "evaluation" / "report.html").exists()
    assert json.loads((run / "evaluation" / "floors.json").read_text()) == {"SYN-TE": {}}
    assert metrics(run) == metrics(tiny_run)


def test_the_same_pictures_at_another_root(tiny_run: Path, data_root: Path, tmp_path: Path) -> None:
    """The test set alone: the training set need not be there, and nothing is drawn."""
    shutil.copytree(data_root / "SYN-TE", tmp_path / "moved [1]" / "SYN-TE")
    assert evaluate(tiny_run, tmp_path / "out", f"data.root={tmp_path}/moved [1]") == 0
    assert scores(tmp_path / "out") == scores(tiny_run)
    assert [p.name for p in (tmp_path / "moved [1]").iterdir()] == ["SYN-TE"]


def test_other_pictures_are_scored_whole(
    tiny_run: Path, elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(elsewhere.iterdir())
    assert evaluate(tiny_run, tmp_path, f"data.root={elsewhere}", "report=false") == 0
    ((name, found),) = metrics(tmp_path).items()
    assert (name, found["images"]) == (elsewhere.name, 12)
    assert sorted(elsewhere.iterdir()) == before
    assert "SYN-TE" in capsys.readouterr().out  # that it is not there is said


def test_pictures_that_are_not_there_are_not_drawn(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert evaluate(tiny_run, tmp_path / "out", f"data.root={tmp_path}/empty") == 2
    assert "empty" in capsys.readouterr().err
    assert not list((tmp_path / "empty").iterdir())


def test_another_protocol_gives_other_figures(tiny_run: Path, tmp_path: Path) -> None:
    assert evaluate(tiny_run, tmp_path, "protocol=pysod", "floors=false", "report=false") == 0
    ours, theirs = metrics(tmp_path)["SYN-TE"], metrics(tiny_run)["SYN-TE"]
    assert ours["images"] == theirs["images"]
    assert ours["max_f"] != theirs["max_f"]


@pytest.mark.slow
def test_a_size_of_one_s_own(tiny_run: Path, tmp_path: Path) -> None:
    assert evaluate(tiny_run, tmp_path, "data.image_size=96", "floors=false", "report=false") == 0
    assert metrics(tmp_path)["SYN-TE"]["mae"] != metrics(tiny_run)["SYN-TE"]["mae"]


@pytest.mark.slow
def test_what_a_run_started_from_need_not_be_there(tiny_run: Path, data_root: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.ckpt"
    shutil.copyfile(tiny_run / "checkpoints" / "last.ckpt", start)
    run = train(tmp_path / "run", data_root, f"init={start}", "trainer.max_steps=1")
    start.unlink()
    assert evaluate(run, tmp_path / "out", "report=false") == 0
    assert scores(tmp_path / "out") == scores(run)


def test_a_bad_picture_fails_or_is_left_out(
    tiny_run: Path, elsewhere: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(elsewhere, tmp_path / "data")
    (tmp_path / "data" / "pic3.jpg").write_text("no picture")
    assert evaluate(tiny_run, tmp_path / "out", f"data.root={tmp_path}/data") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "pic3" in line
    assert "data.on_error=skip" in line
    assert evaluate(tiny_run, tmp_path / "out", f"data.root={tmp_path}/data", "data.on_error=skip") == 1
    out = capfd.readouterr()
    assert "pic3" in out.out + out.err
    assert metrics(tmp_path / "out")["data"]["images"] == 11


def test_pictures_of_one_s_own(own_run: Path, elsewhere: Path, tmp_path: Path) -> None:
    ((name, found),) = metrics(own_run).items()
    assert (name, found["images"]) == (elsewhere.name, 3)
    assert evaluate(own_run, tmp_path, "report=false") == 0  # the share held out, not what was trained on
    assert scores(tmp_path) == scores(own_run)


def test_trained_on_one_folder_evaluated_on_another(own_run: Path, elsewhere: Path, tmp_path: Path) -> None:
    shutil.copytree(elsewhere, tmp_path / "new")
    assert evaluate(own_run, tmp_path / "out", f"data.root={tmp_path}/new", "report=false") == 0
    assert {name: one["images"] for name, one in metrics(tmp_path / "out").items()} == {"new": 12}


@pytest.mark.slow
def test_two_folders_and_a_zip(elsewhere: Path, tmp_path: Path) -> None:
    folders, archive = tmp_path / "folders", tmp_path / "pictures.zip"
    (folders / "images").mkdir(parents=True)
    (folders / "masks").mkdir()
    for path in sorted(elsewhere.iterdir()):
        shutil.copyfile(path, folders / ("images" if path.suffix == ".jpg" else "masks") / path.name)
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folders.rglob("*.*")):
            file.write(path, path.relative_to(folders))
    for number, root in enumerate((folders, archive)):
        run = train(tmp_path / f"run{number}", root, "data=folder", "data.test_fraction=0.25", "trainer.max_steps=1")
        assert {name: one["images"] for name, one in metrics(run).items()} == {root.stem: 3}
        assert evaluate(run, tmp_path / f"out{number}", "report=false", "floors=false") == 0
        assert scores(tmp_path / f"out{number}") == scores(run)


def test_a_plain_checkpoint_without_its_run(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own configuration is enough; one of a version that kept none is told from."""
    alone = shutil.copyfile(tiny_run / "checkpoints" / "best.ckpt", tmp_path / "best.ckpt")
    assert main(["evaluate", f"checkpoint={alone}", f"output={tmp_path}/out", "report=false"]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics(tiny_run)
    content = torch.load(alone, weights_only=True)
    del content["qefpn"]["config"]
    torch.save(content, tmp_path / "old.ckpt")
    capsys.readouterr()
    assert main(["evaluate", f"checkpoint={tmp_path}/old.ckpt"]) == 2
    assert "config.yaml" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_what_was_evaluated_before_a_stop_is_not_made_again(
    stop: type[BaseException], tiny_run: Path, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve pictures in batches of two, stopped in the fourth batch; then other weights, for which all are made."""
    given = [f"data.root={elsewhere}", "data.batch_size=2", "report=false", "floors=false"]
    assert evaluate(tiny_run, tmp_path / "whole", *given) == 0
    seen: list[int] = []
    predict = training_module.predict_maps

    def counted(network: Any, images: torch.Tensor, sizes: Any) -> Any:
        seen.append(len(sizes))
        if stopping and len(seen) == 4:
            raise stop
        return predict(network, images, sizes)

    monkeypatch.setattr(training_module, "predict_maps", counted)
    stopping = True
    with contextlib.suppress(MemoryError):
        assert evaluate(tiny_run, tmp_path / "out", *given) == 130
    stopping = False
    done = sorted((tmp_path / "out" / "maps").rglob("*.png"))
    assert len(done) == 6
    seen.clear()
    assert evaluate(tiny_run, tmp_path / "out", *given) == 0
    assert seen == [2, 2, 2]
    assert (tmp_path / "out" / "scores.csv").read_text() == (tmp_path / "whole" / "scores.csv").read_text()
    assert metrics(tmp_path / "out") == metrics(tmp_path / "whole")
    for path in sorted((tmp_path / "whole" / "maps").rglob("*.png")):
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to(tmp_path / "whole")).read_bytes()
    content = torch.load(tiny_run / "checkpoints" / "best.ckpt", weights_only=True)
    content["state_dict"]["network.head.bias"] += 1.0
    (tmp_path / "other" / "checkpoints").mkdir(parents=True)
    torch.save(content, tmp_path / "other" / "checkpoints" / "best.ckpt")
    seen.clear()
    assert evaluate(tmp_path / "other", tmp_path / "out", *given) == 0
    assert seen == [2] * 6
    assert metrics(tmp_path / "out") != metrics(tmp_path / "whole")


def test_figures_asked_for(tiny_run: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["iou", "ber_max", "si_f", "hce", "biou"]
    assert evaluate(tiny_run, tmp_path, f"metrics=[{','.join(asked)}]") == 0
    printed = capsys.readouterr().out
    rows = {row["name"]: row for row in scores(tmp_path)}
    records = []
    for path in sorted((tmp_path / "maps" / "SYN-TE").glob("*.png")):
        saliency = np.asarray(Image.open(path))
        mask = np.asarray(Image.open(data_root / "SYN-TE" / "SYN-TE-Mask" / path.name).convert("L"))
        records.append(saliency_scores(saliency, mask, metrics=asked, curves=True))
        expected = {key: value for key, value in records[-1].items() if not isinstance(value, list)}
        assert {key: float(rows[path.stem][key]) for key in expected} == pytest.approx(expected, rel=0, abs=0)
    combined = combine(records, metrics=asked)
    found = metrics(tmp_path)["SYN-TE"]
    beside = [key for key in combined if key.split("_")[0] in ("iou", "ber", "si", "hce", "biou") and key in found]
    assert len(beside) == 4 + 4 + 3 + 1 + 1
    for key in (*beside, "f_mean", "e_mean", "e_max", "f_adaptive"):
        assert found[key] == pytest.approx(combined[key], rel=1e-12)
    drawn = json.loads((tmp_path / "curves.json").read_text())["SYN-TE"]
    floors = json.loads((tmp_path / "floors.json").read_text())["SYN-TE"]
    page = (tmp_path / "report.html").read_text()
    assert {*drawn} == {"model", *floors} == {"model", "gaussian", "untrained"}
    for key in ("iou_curve", "ber_curve", "si_f_curve", "e_curve"):
        assert drawn["model"][key] == pytest.approx(combined[key].tolist(), rel=1e-12)
        assert len(drawn["gaussian"][key]) == 256
    for key in beside:
        assert all(isinstance(floor[key], float) for floor in floors.values())
        head = metric(key).head
        assert f">{head}</th>" in page
    assert "E-measure over the threshold" in page and "BER" in printed and "HCE" in printed


def test_a_figure_that_there_is_not(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(tiny_run, tmp_path / "out", "metrics=[iuo]") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "there is no metric 'iuo'; did you mean 'iou'?" in line and not (tmp_path / "out").exists()


def test_the_floats_of_a_network_scored_as_they_are(tiny_run: Path, data_root: Path, tmp_path: Path) -> None:
    words = ["quantize=false", "report=false", "metrics=[iou]"]
    assert evaluate(tiny_run, tmp_path, *words) == 0
    predictor = Predictor(tiny_run / "checkpoints" / "best.ckpt")
    rows, found = {row["name"]: row for row in scores(tmp_path)}, metrics(tmp_path)["SYN-TE"]
    data = SaliencyDataModule(data_root, train=["SYN-TR"], test=["SYN-TE"], image_size=64, batch_size=4, num_workers=0)
    data.setup("test")
    (batch,) = data.test_dataloader()[0]
    maps = predict_maps(predictor.network, batch["image"], batch["size"], quantize=False)
    masks = [np.asarray(mask) for mask in batch["mask"]]
    records = saliency_scores(maps, masks, metrics=["iou"], quantize=False, curves=True)
    for name, saliency, record in zip(batch["name"], maps, records, strict=True):
        assert saliency.dtype == np.float32 and len(np.unique(saliency)) > 256
        for key in ("mae", "weighted_f", "s_measure", "e_measure", "f_mean", "iou_max"):
            assert float(rows[name][key]) == pytest.approx(record[key], rel=1e-6), key
        saved = np.asarray(Image.open(tmp_path / "maps" / "SYN-TE" / f"{name}.png"))
        assert (saved == to_uint8(saliency)).all()
    assert found["mae"] == pytest.approx(np.mean([record["mae"] for record in records]), rel=1e-6)
    assert found["mae"] != metrics(tiny_run)["SYN-TE"]["mae"]
    floors = json.loads((tmp_path / "floors.json").read_text())["SYN-TE"]
    before = json.loads((tiny_run / "floors.json").read_text())["SYN-TE"]
    assert floors["gaussian"]["mae"] != before["gaussian"]["mae"]
    assert floors["gaussian"]["mae"] == pytest.approx(before["gaussian"]["mae"], abs=2e-3)
    assert evaluate(tiny_run, tmp_path, *words) == 0  # maps that are there hold no floats: they are made again
    assert metrics(tmp_path)["SYN-TE"] == found
