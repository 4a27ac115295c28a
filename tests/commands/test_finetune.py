"""Fine-tuning on pictures of one's own: what the experiment sets, and the network before beside the one after."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from scipy import stats
from tests.commands.runs import TINY
from tests.data.pictures import blob, picture

from qefpn.cli import main
from qefpn.experiments.composition import compose_config
from qefpn.reporting.before_after import changes, compared, sentences


def draw(folder: Path, count: int, first: int = 0) -> Path:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(first, first + count):
        Image.fromarray(picture(number, 48, 64)).save(folder / "images" / f"{number:03d}.png")
        Image.fromarray(blob(number, 48, 64)).save(folder / "masks" / f"{number:03d}.png")
    return folder


def scores(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        (row.pop("dataset"), row.pop("name")): {key: float(value) for key, value in row.items() if value}
        for row in rows
    }


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> Path:
    """A run that began with the tiny one's weights; own pictures, some held out, and a set of another domain."""
    folder = tmp_path_factory.mktemp("tuned")
    own, old = draw(folder / "own pictures", 24), draw(folder / "old", 4, first=100)
    keys = [word for word in TINY if not word.startswith("data.")]
    given = ["data=folder", f"data.root={own}", "data.test_fraction=0.2", "data.val_fraction=0.1"]
    given += ["data.image_size=64", "data.scales=[64]", "data.batch_size=4", "data.num_workers=0"]
    given += [f"data.extra_test=[{old}]", f"init={tiny_run}/checkpoints/best.ckpt", "warmup.steps=0"]
    assert main(["train", *keys, *given, "trainer.max_steps=4", f"hydra.run.dir={folder}/run"]) == 0
    return folder / "run"


def test_the_network_before_is_scored_as_evaluate_scores_it(tuned: Path, tiny_run: Path, tmp_path: Path) -> None:
    config = OmegaConf.load(tuned / "config.yaml")
    floors = json.loads((tuned / "floors.json").read_text())
    assert list(floors) == ["own pictures", "old"] and all("before" in found for found in floors.values())
    root = Path(config.data.root)
    before = scores(tuned / "before.csv")
    assert {dataset: sum(key[0] == dataset for key in before) for dataset in floors} == {"own pictures": 5, "old": 4}
    given = [f"checkpoint={tiny_run}/checkpoints/best.ckpt", f"data.root={root.parent}/old"]
    assert main(["evaluate", *given, f"data.test=[{root.parent}/old]", f"output={tmp_path}/out", "floors=false"]) == 0
    expected = scores(tmp_path / "out" / "scores.csv")
    for key, record in expected.items():
        for name, value in record.items():
            assert before["old", key[1]][name] == pytest.approx(value, abs=1e-6), name
    for name, value in floors["old"]["before"].items():
        assert json.loads((tmp_path / "out" / "metrics.json").read_text())["old"][name] == pytest.approx(
            value, abs=1e-6
        )


def test_before_and_after_are_paired_by_picture(tuned: Path) -> None:
    before, after = scores(tuned / "before.csv"), scores(tuned / "scores.csv")
    assert before.keys() == after.keys() and before != after
    found = changes(tuned)
    assert [(one.dataset, one.metric.key) for one in found[:2]] == [("own pictures", "mae"), ("own pictures", "mean_f")]
    assert len(found) == 10
    for one in found:
        pairs = [(before[key][one.metric.key], after[key][one.metric.key]) for key in after if key[0] == one.dataset]
        pairs = [pair for pair in pairs if not math.isnan(sum(pair))]
        assert one.before == pytest.approx(np.mean([first for first, _ in pairs]))
        assert one.after == pytest.approx(np.mean([second for _, second in pairs]))
        assert one.interval.difference == pytest.approx(one.after - one.before) and one.interval.pictures == len(pairs)
        differences = np.array([second - first for first, second in pairs])
        drawn = stats.bootstrap((differences,), np.mean, n_resamples=9999, method="percentile", rng=1)
        width = differences.std() / len(differences) ** 0.5
        assert one.interval.low == pytest.approx(drawn.confidence_interval.low, abs=0.2 * width + 1e-12)
        assert one.interval.high == pytest.approx(drawn.confidence_interval.high, abs=0.2 * width + 1e-12)
        lower, upper = one.interval.low, one.interval.high
        better = upper < 0 if one.metric.key == "mae" else lower > 0
        told = better or (lower > 0 if one.metric.key == "mae" else upper < 0)
        assert one.verdict == ("better" if better else "worse" if told else "not told apart")


def test_terminal_and_page_say_what_was_forgotten(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own, old) = sentences(tuned)
    assert own.startswith("own pictures, weighted F: ") and old.startswith("old, weighted F: ")
    assert " before, " in old and "95 % interval" in old and "4 pictures)" in old
    page = (tuned / "report.html").read_text(encoding="utf-8")
    assert "Before and after" in page and "<code>init</code>" in page
    assert page.count('<th scope="row">old</th>') == 5
    assert main(["report", f"run={tuned}", f"output={tuned.parent}/again.html"]) == 0
    capsys.readouterr()


def test_a_run_without_init_has_no_before(tiny_run: Path) -> None:
    assert not (tiny_run / "before.csv").exists() and changes(tiny_run) == []
    assert "Before and after" not in (tiny_run / "report.html").read_text(encoding="utf-8")
    assert [one.verdict for one in compared(tiny_run / "scores.csv", tiny_run / "scores.csv")] == ["not told apart"] * 5


def test_mobile_is_gentler_where_it_begins_with_weights() -> None:
    fresh, tuned = (
        compose_config("train", ["experiment=mobile", "data.root=x", *more]) for more in ([], ["init=mobile"])
    )
    assert (fresh.trainer.max_steps, tuned.trainer.max_steps) == (12000, 400)
    assert fresh.optimizer.lr == 2e-3 and tuned.optimizer.lr < fresh.optimizer.lr
    assert (fresh.warmup.steps, tuned.warmup.steps) == (300, 0)
    assert fresh.callbacks.early_stopping is None and tuned.callbacks.early_stopping.monitor == "val_weighted_f"
    assert list(fresh.data.scales)[0] == 128 and list(tuned.data.scales) == [192, 208, 224]
    given = compose_config("train", ["experiment=mobile", "data.root=x", "init=mobile", "optimizer.lr=0.1"])
    assert given.optimizer.lr == 0.1


def test_folders_named_outright_are_the_own_ones(tmp_path: Path) -> None:
    """``data.images`` does not say where the pictures of ``data.extra_test`` are."""
    from qefpn.data import SaliencyDataModule

    own, old = draw(tmp_path / "own", 12), draw(tmp_path / "old", 3, first=50)
    (own / "images").rename(tmp_path / "photographs")
    (own / "masks").rename(tmp_path / "cut")
    data = SaliencyDataModule(
        None, train=None, test=None, images=tmp_path / "photographs", masks=tmp_path / "cut", extra_test=[str(old)]
    )
    data.setup("test")
    assert [len(pairs) for pairs in data.test_pairs.values()] == [1, 3] and data.test_names[1] == "old"
    only = SaliencyDataModule(own, train=None, test=[], extra_test=str(old))
    only.setup("test")
    assert only.test_names == ["old"]
