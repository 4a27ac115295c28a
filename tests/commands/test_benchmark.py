"""`qefpn benchmark` as its users run it: on folders of maps, good and bad."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.reporting.benchmark_entries import make

from qefpn.benchmark import map_scores
from qefpn.benchmark.score_cache import ScoreCache
from qefpn.cli import main
from qefpn.metrics import saliency_scores

UNIQUE = 3 * 6  # the two sets have the same masks and maps: equal pairs are scored once
QUICK = ["figures=false", "page=false", "attributes=false", "resamples=0"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``data/`` with two sets and ``maps/`` with three methods, the last of which lacks a map."""
    monkeypatch.setenv("QEFPN_CACHE", str(tmp_path / "cache"))
    make(tmp_path / "data")
    shutil.move(tmp_path / "data" / "maps", tmp_path / "maps")
    return tmp_path


def run(place: Path, *more: str) -> int:
    return main(
        ["benchmark", f"maps={place / 'maps'}", f"data.root={place / 'data'}", f"output={place / 'out'}", *more]
    )


def table(place: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (place / "out" / "table.csv").open(newline="") as file:
        return {(row["method"], row["dataset"]): row for row in csv.DictReader(file)}


def test_every_output(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "published=true") == 1  # a map is missing
    names = {path.name for path in (place / "out").iterdir()}
    assert names >= {
        "table.md", "table.tex", "table.csv", "results.json", "scores.csv", "attributes.csv", "intervals.csv",
        "curves.png", "curves.svg", "curves.pdf", "grid.png", "leaderboard.html", "findings.txt", "ranks.csv",
        "figures.csv",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "2 on own: 1 without a map: 5" in printed and "2†" in printed
    assert table(place)["2", "own"]["complete"] == "False"
    assert re.search(r"ECSSD, ranks by max F: 0[ |,]+[12]", printed) and "told apart" in printed


def test_intervals_of_every_figure(place: Path) -> None:
    run(place, *QUICK[:-1], "resamples=300")
    figures, ranks, differences = (
        list(csv.DictReader((place / "out" / name).open(newline="")))
        for name in ("figures.csv", "ranks.csv", "intervals.csv")
    )
    found = table(place)
    keys = {row["metric"] for row in figures}
    assert keys >= {"mae", "mean_f", "weighted_f", "max_f", "mean_curve_f", "s_measure", "e_measure", "max_e", "mean_e"}
    for row in figures:
        assert float(row["value"]) == float(found[row["method"], row["dataset"]][row["metric"]])
        assert float(row["low"]) <= float(row["value"]) + 1e-6 and float(row["high"]) >= float(row["value"]) - 1e-6
        assert row["interval"] == ("BCa" if row["metric"].startswith("max_") else "percentile")
    # of three whole methods there are two ranks to tell, of two and a part one
    assert sum(row["metric"] == "max_f" for row in ranks) == 2 + 1
    assert {row["method"] for row in differences if row["metric"] == "max_f" and row["dataset"] == "own"} == {"1"}
    assert {row["method"] for row in differences if row["metric"] == "mae" and row["dataset"] == "own"} == {"1", "2"}


@pytest.mark.parametrize("protocol", ["f3net", "pysod"])
def test_scores_are_those_of_the_maps(place: Path, protocol: str) -> None:
    run(place, f"protocol={protocol}", *QUICK)
    with (place / "out" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 6 - 1
    for row in rows:
        saliency, mask = (
            cv2.imread(str(place / path), cv2.IMREAD_GRAYSCALE)
            for path in (
                f"maps/{row['method']}/{row['dataset']}/{row['name']}.png",
                f"data/{row['dataset']}/{row['name']}.png",
            )
        )
        assert saliency is not None and mask is not None
        expected = saliency_scores(saliency, mask, protocol)
        assert {key: float(row[key]) for key in expected} == pytest.approx(expected, rel=0, abs=0, nan_ok=True)


def test_a_second_run_computes_only_what_changed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(place, *QUICK)
    first = table(place)
    scored: list[str] = []
    score_map = map_scores.score_map

    def counted(file: str, *rest: object) -> object:
        scored.append(Path(file).relative_to(place / "maps").as_posix())
        return score_map(file, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(map_scores, "score_map", counted)
    run(place, *QUICK)
    assert scored == [] and table(place) == first
    changed = place / "maps" / "1" / "ECSSD" / "3.png"
    assert cv2.imwrite(str(changed), np.full((48, 64), 9, np.uint8))
    run(place, *QUICK)
    assert scored == ["1/ECSSD/3.png"]
    assert table(place)["1", "ECSSD"] != first["1", "ECSSD"]
    run(place, *QUICK, "cache=false")
    assert len(scored) == 1 + UNIQUE + 1


def test_what_was_scored_before_a_stop_is_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score_map, scored = map_scores.score_map, []

    def stopped(file: str, *rest: object) -> object:
        scored.append(file)
        if len(scored) >= 10:  # from then on: the pool may begin another chunk before it is told
            raise KeyboardInterrupt
        return score_map(file, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(map_scores, "score_map", stopped)
    monkeypatch.setattr(map_scores, "_CHUNK", 4)
    assert run(place, *QUICK, "workers=1") == 130
    scored.clear()

    def counted(file: str, *rest: object) -> object:
        scored.append(file)
        return score_map(file, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(map_scores, "score_map", counted)
    run(place, *QUICK, "workers=1")
    assert len(scored) == UNIQUE - 8  # two chunks of four had been finished


def test_bad_maps_never_end_the_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "maps" / "0" / "ECSSD"
    (folder / "0.png").write_text("no picture")
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    cv2.imwrite(str(folder / "2.png"), np.full((48, 64), 30000, np.uint16))
    cv2.imwrite(str(folder / "3.png"), np.full((24, 32), 100, np.uint8))
    cv2.imwrite(str(folder / "stray.png"), np.full((4, 4), 1, np.uint8))
    shutil.copy(folder / "4.png", folder / "4.bmp")
    assert run(place, *QUICK) == 1
    text = capsys.readouterr()
    assert "0 was not scored" in text.err and "not a picture" in text.err and "truncated or damaged" in text.err
    for said in ("16-bit", "resized to their mask (bicubic): 3", "belong to no picture: stray.png", "same name: 4."):
        assert said in text.out, said
    assert table(place)["0", "ECSSD"]["scored"] == "4"
    results = json.loads((place / "out" / "results.json").read_text())["results"]
    assert set(results[0]["failed"]) == {"0", "1"}


def test_a_method_without_a_set(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(place / "maps" / "1" / "own")
    assert run(place, *QUICK) == 1
    assert "1 on own: no maps" in capsys.readouterr().out
    assert table(place)["1", "own"]["scored"] == "0" and table(place)["1", "own"].get("mae") == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["maps=nowhere"], "maps=nowhere: there is no such folder"),
        (["data.root=nowhere"], "nowhere does not exist"),
        (["protocol=matlab"], "protocol must be one of f3net, pysod, not 'matlab'"),
        (["workers=0"], "workers must be a whole number from 1 on, not 0"),
        (["methods=[0,7]"], "there are no maps of '7'; there are maps of 0, 1, 2"),
        (["pictures=[x]", "page=false"], "no data set has a picture 'x'"),
        (["data.test=[ECSD]"], "did you mean ECSSD?"),
        (["resample=3"], "did you mean resamples?"),
    ],
)
def test_mistakes(place: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, *words) == 2
    assert said in capsys.readouterr().err


def test_masks_missing_altogether(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mask in (place / "data").rglob("*.png"):
        mask.unlink()
    assert run(place, *QUICK) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.slow
def test_processes_give_what_threads_give(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run(place, *QUICK, "cache=false")
    first = table(place)
    monkeypatch.setattr(map_scores, "_FEW", 1)
    run(place, *QUICK, "cache=false", "workers=2")
    assert table(place) == first


def test_a_broken_cache_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "scores.sqlite").write_text("this is no database, but long enough to be taken for one" * 20)
    cache = ScoreCache(tmp_path / "scores.sqlite")
    assert not cache.has(b"key")
    cache.close()
