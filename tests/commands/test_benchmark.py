"""`qefpn benchmark` as its users run it: on folders of maps, good and bad."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.reporting.benchmark_entries import make

from qefpn.benchmark import map_scores, score_cache
from qefpn.benchmark.protocols import CHOICES
from qefpn.benchmark.score_cache import Outcome, ScoreCache, score_key
from qefpn.cli import main
from qefpn.commands import benchmark
from qefpn.metrics import PROTOCOLS, Protocol, choose, combine, saliency_scores
from qefpn.metrics.figures import CURVES

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
    results = json.loads((place / "out" / "results.json").read_text())["results"]
    for key in CURVES:
        assert {len(one[key]) for one in results} == {256}
    mean = np.mean(results[0]["e_curve"])
    assert mean == pytest.approx(float(table(place)[results[0]["method"], results[0]["dataset"]]["e_mean"]))
    page = (place / "out" / "leaderboard.html").read_text()
    with (place / "out" / "ranks.csv").open(newline="") as file:
        alike = sum(row["apart"] == "False" for row in csv.DictReader(file))
    assert page.count('class="near"') == alike > 0 and "not told from the figure of the method ranked" in page
    assert re.search(r"ECSSD, ranks by F max: 0[ |,]+[12]", printed) and "told apart" in printed


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
    mask, before = place / "data" / "ECSSD" / "3.png", table(place)
    assert cv2.imwrite(str(mask), 255 - cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE))
    run(place, *QUICK)
    assert len(scored) == 1 + UNIQUE + 1 + 3  # with the changed mask, though one process read it before
    assert all(table(place)[name, "ECSSD"]["mae"] != before[name, "ECSSD"]["mae"] for name in "012")


def test_what_was_drawn_is_kept_as_long_as_nothing_changes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    for name in ("draw_curves", "draw_grid", "write_leaderboard"):
        draw = getattr(benchmark, name)

        def counted(*words: Any, name: str = name, draw: Any = draw) -> Any:
            drawn.append(name)
            return draw(*words)

        monkeypatch.setattr(benchmark, name, counted)

    def files() -> dict[str, bytes]:
        kinds = (".png", ".pdf", ".svg", ".html")
        return {path.name: path.read_bytes() for path in (place / "out").iterdir() if path.suffix in kinds}

    words = ["attributes=false", "resamples=50"]
    run(place, *words)
    first = files()
    assert drawn == ["draw_curves", "draw_grid", "write_leaderboard"] and len(first) == 6
    shutil.rmtree(place / "out")
    run(place, *words)
    assert len(drawn) == 3 and files() == first
    for changes, expected in (
        ((*words, "pictures=[3]"), ["draw_grid"]),
        ((*words, "published=true"), ["write_leaderboard"]),
        ((*words, "aliases=['1:other']"), ["draw_curves", "draw_grid", "write_leaderboard"]),
    ):
        drawn.clear()
        run(place, *changes)
        assert drawn == expected
    drawn.clear()
    picture = next((place / "data" / "ECSSD").glob("3.jpg"))
    picture.write_bytes((place / "data" / "ECSSD" / "2.jpg").read_bytes())
    run(place, *words)
    assert drawn == ["draw_grid", "write_leaderboard"]  # curves show no pictures
    drawn.clear()
    (place / "maps" / "1" / "ECSSD" / "3.png").unlink()
    run(place, *words)
    assert drawn == ["draw_curves", "draw_grid", "write_leaderboard"] and files() != first


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
    for said in ("16-bit", "resized to their mask: 3", "belong to no picture: stray.png", "same name: 4."):
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
        (["protocol=matlab"], "protocol must be one of f3net, pysod, saleval, all, not 'matlab'"),
        (["metrics=[mae,iuo]"], "there is no metric 'iuo'; did you mean 'iou'?"),
        (["exclude=[0,1,2]"], "exclude: no method is left"),
        (["exclude=[7]"], "exclude: there are no maps of '7'; there are maps of 0, 1, 2"),
        (["aliases=[0]"], "aliases: '0' is no NAME:SHOWN"),
        (["aliases=['0:1']"], "aliases: two methods would be called '1'"),
        (["groups=true"], "groups=true: no data set has its pictures in folders"),
        (["prefix=abc_"], "not one map could be scored"),
        (["protocol=f3nett"], "did you mean f3net?"),
        (["workers=0"], "workers must be a whole number from 1 on, not 0"),
        (["methods=[0,7]"], "there are no maps of '7'; there are maps of 0, 1, 2"),
        (["pictures=[x]", "page=false"], "no data set has a picture 'x'"),
        (["data.test=[ECSD]"], "did you mean ECSSD?"),
        (["resample=3"], "did you mean resamples?"),
    ],
)
def test_mistakes(
    place: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def score_map(*_: object) -> None:
        raise AssertionError("a mistake that can be known before is told after maps were scored")

    monkeypatch.setattr(map_scores, "score_map", score_map)
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
    assert not cache.has([b"key"])
    cache.close()


def test_every_protocol(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "maps" / "0" / "ECSSD"
    cv2.imwrite(str(folder / "2.png"), np.full((48, 64), 30, np.uint8))  # a collapsed map
    small = cv2.imread(str(folder / "3.png"), cv2.IMREAD_GRAYSCALE)
    assert small is not None
    cv2.imwrite(str(folder / "3.png"), cv2.resize(small, (24, 18)))
    run(place, *QUICK, "protocol=all", "metrics=[iou]")
    with (place / "out" / "protocols.csv").open(newline="") as file:
        rows = {(row["method"], row["dataset"], row["protocol"], row["metric"]): row for row in csv.DictReader(file)}
    assert len(rows) == 3 * 2 * 2 * 6
    mae = rows["0", "ECSSD", "pysod", "mae"]
    assert mae["picture"] == "2" and mae["why"] == "what a map of one value counts as"
    assert rows["0", "ECSSD", "pysod", "max_f"]["why"].startswith("whether the F curve of a set")
    maps = [cv2.imread(str(folder / f"{i}.png"), cv2.IMREAD_GRAYSCALE) for i in range(6)]
    masks = [cv2.imread(str(place / "data" / "ECSSD" / f"{i}.png"), cv2.IMREAD_GRAYSCALE) for i in range(6)]
    for protocol in ("pysod", "saleval"):
        expected = combine(saliency_scores(maps, masks, protocol, curves=True), protocol)
        for metric in ("mae", "weighted_f", "max_f"):
            assert float(rows["0", "ECSSD", protocol, metric]["value"]) == pytest.approx(expected[metric], abs=1e-15)
    printed = capsys.readouterr().out
    assert "0 on ECSSD, pysod against f3net: " in printed and "what a map of one value counts as" in printed
    assert float(table(place)["0", "ECSSD"]["iou_max"]) > 0  # the tables are of f3net, with what was asked for
    assert json.loads((place / "out" / "results.json").read_text())["protocol"] == "f3net"


def test_every_choice_has_its_words() -> None:
    assert set(CHOICES) == {field.name for field in dataclasses.fields(Protocol)} - {"name", "source"}


def test_figures_asked_for(place: Path) -> None:
    run(place, *QUICK, "protocol=pysod", "metrics=[ber,si_f_max]", "data.test=[ECSSD]")
    with (place / "out" / "scores.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if (row["method"], row["name"]) == ("1", "3"))
    saliency, mask = (
        cv2.imread(str(place / path / "ECSSD" / "3.png"), cv2.IMREAD_GRAYSCALE) for path in ("maps/1", "data")
    )
    expected = saliency_scores(saliency, mask, "pysod", metrics=["ber", "si_f"])
    assert {key: float(row[key]) for key in expected} == pytest.approx(expected, rel=0, abs=0)
    found = {key for key in table(place)["1", "ECSSD"] if "ber" in key or "si_f" in key}
    assert found == {"ber_adaptive", "ber_binary", "ber_mean", "ber_max", "si_f_adaptive", "si_f_mean", "si_f_max"}


def outcome(number: int) -> tuple[bytes, Outcome]:
    noise = np.random.default_rng(number).random(256).tolist()
    return bytes([number]) * 20, Outcome({"mae": number / 7, "f_curve": noise}, True, "16-bit", "")


def test_the_cache_gives_back_what_it_took_and_keeps_to_its_limit(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.put(outcome(number) for number in range(40))
    cache.close()
    cache = ScoreCache(tmp_path / "scores.sqlite", limit=20 * len(score_cache.pack(outcome(1)[1])))
    cache._database.execute("UPDATE outcomes SET used = 1")  # long ago
    for number in (3, 30):
        key, expected = outcome(number)
        found = cache.get(key)
        assert found is not None and found.record["mae"] == expected.record["mae"]
        assert list(found.record["f_curve"]) == expected.record["f_curve"]
        assert (found.resized, found.remark, found.failure) == (True, "16-bit", "")
    cache.close()
    cache = ScoreCache(tmp_path / "scores.sqlite")
    there = {number for number in range(40) if cache.has([outcome(number)[0]])}
    assert {3, 30} <= there and 5 < len(there) < 35
    cache.close()


def test_the_key_holds_what_a_score_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        score_key(one, other, protocol, choose(metrics))
        for one, other in ((b"a", b"b"), (b"b", b"a"))
        for protocol in PROTOCOLS
        for metrics in ("sod", "cod", "hce", "all")
    }
    assert len(keys) == 2 * 3 * 4
    score_cache.code_version.cache_clear()
    before = score_cache.code_version()
    for package in ("numba", "pillow", "opencv-python-headless"):
        version = score_cache._version

        def other(name: str, package: str = package, version: Any = version) -> str:
            return "0" if name == package else str(version(name))

        monkeypatch.setattr(score_cache, "_version", other)
        score_cache.code_version.cache_clear()
        assert score_cache.code_version() != before
        monkeypatch.undo()
    score_cache.code_version.cache_clear()


WRITER = """
import sys
from pathlib import Path
from qefpn.benchmark.score_cache import Outcome, ScoreCache
first = int(sys.argv[2])
cache = ScoreCache(Path(sys.argv[1]))
for number in range(first, first + 100):
    cache.hash_of(Path(sys.argv[1]).parent / "file")
    cache.put([(number.to_bytes(20, "big"), Outcome({"mae": number / 7}))])
    assert cache.get(number.to_bytes(20, "big")).record["mae"] == number / 7
cache.close()
"""


def test_two_processes_write_one_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"of both")
    path = tmp_path / "scores.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first)]) for first in (0, 100)]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    cache = ScoreCache(path)
    keys = [number.to_bytes(20, "big") for number in range(200)]
    assert cache.has(keys) == {*keys}
    cache.close()


def test_a_cache_that_another_program_keeps_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache._database.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(tmp_path / "scores.sqlite")
    other.execute("BEGIN EXCLUSIVE")
    cache.put([outcome(1)])
    found = cache.get(outcome(1)[0])
    assert found is not None and found.record["mae"] == 1 / 7
    other.rollback()
    cache.close()


def test_methods_left_out_and_called_otherwise(place: Path) -> None:
    run(place, *QUICK, "exclude=[1]", "aliases=['0:F3Net é']", "data.test=[ECSSD]")
    assert list(table(place)) == [("F3Net é", "ECSSD"), ("2", "ECSSD")]


def test_maps_with_a_beginning_and_an_ending(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(place, *QUICK, "methods=[1]", "data.test=[ECSSD]")
    expected = table(place)["1", "ECSSD"]
    folder = place / "maps" / "1" / "ECSSD"
    for path in list(folder.glob("*.png")):
        shutil.copy(folder / f"{(int(path.stem) + 1) % 6}.png", folder / f"v1_{path.stem}_other.png")  # not of it
    for number in range(6):
        (folder / f"{number}.png").rename(folder / f"net_{number}_sal.png")
    capsys.readouterr()
    run(place, *QUICK, "methods=[1]", "data.test=[ECSSD]", "prefix=net_", "suffix=_sal")
    assert table(place)["1", "ECSSD"] == expected
    assert "6 maps that belong to no picture: v1_0_other.png" in capsys.readouterr().out


def test_means_over_groups(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = place / "data" / "ECSSD"
    for root in (data, *(place / "maps" / method / "ECSSD" for method in "012")):
        for path in list(root.glob("*.*")):
            kind = "" if root != data else "masks" if path.suffix == ".png" else "imgs"
            group = root / kind / ("bear" if int(path.stem) < 2 else "cow")
            group.mkdir(parents=True, exist_ok=True)
            path.rename(group / path.name)
    run(place, *QUICK, "groups=true", "data.test=[ECSSD]")
    with (place / "out" / "groups.csv").open(newline="") as file:
        rows = {(row["method"], row["group"]): row for row in csv.DictReader(file)}
    with (place / "out" / "scores.csv").open(newline="") as file:
        scores = [row for row in csv.DictReader(file) if row["method"] == "1"]
    bear, cow = (
        np.mean([float(row["mae"]) for row in scores if row["name"].startswith(group)]) for group in ("bear", "cow")
    )
    assert float(rows["1", "bear"]["mae"]) == pytest.approx(bear) and rows["1", "bear"]["images"] == "2"
    assert float(rows["1", "mean of the groups"]["mae"]) == pytest.approx((bear + cow) / 2)
    assert (bear + cow) / 2 != pytest.approx(float(table(place)["1", "ECSSD"]["mae"]))


def as_kinds(place: Path) -> dict[str, Any]:
    """Method ``kinds``: the maps of method 1 on ECSSD once more, each in another kind of file; as (H, W) floats."""
    target, found = place / "maps" / "kinds" / "ECSSD", {}
    target.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(6):
        eight = cv2.imread(str(place / "maps" / "1" / "ECSSD" / f"{number}.png"), cv2.IMREAD_GRAYSCALE)
        levels = (eight / 255 * 0.97 + 0.03 * rng.random(eight.shape)).astype(np.float32)
        deep = np.rint(levels * 65535).astype(np.uint16)
        if number == 0:
            np.save(target / "0.npy", levels)
        elif number == 1:
            np.savez_compressed(target / "1.npz", map=levels[None])
        elif number == 2:
            Image.fromarray(levels).save(target / "2.tiff")
        elif number == 3:
            cv2.imwrite(str(target / "3.png"), deep)
        elif number == 4:
            Image.fromarray(np.dstack([eight // 3, eight // 2, eight, eight])).save(target / "4.png")  # RGBA
        else:
            np.save(target / "5.npy", eight.astype(np.int64))
        found[str(number)] = {3: deep / 65535, 4: eight, 5: eight}.get(number, levels)
    return found


@pytest.mark.parametrize("quantize", [True, False])
def test_maps_of_every_kind(place: Path, quantize: bool, capsys: pytest.CaptureFixture[str]) -> None:
    given = as_kinds(place)
    words = ["methods=[kinds]", "data.test=[ECSSD]", f"quantize={str(quantize).lower()}", "metrics=[iou]", *QUICK]
    assert run(place, *words, "protocol=all") == 0
    with (place / "out" / "scores.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    records = []
    for name, saliency in given.items():
        mask = cv2.imread(str(place / "data" / "ECSSD" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        records.append(saliency_scores(saliency, mask, metrics=["iou"], quantize=quantize, curves=True))
        for key in ("mae", "weighted_f", "s_measure", "e_mean", "f_max", "iou_max", "binary_ratio"):
            assert float(rows[name][key]) == pytest.approx(records[-1][key], abs=1e-12), (name, key)
    assert float(table(place)["kinds", "ECSSD"]["max_f"]) == combine(records, metrics=["iou"])["max_f"]
    results = json.loads((place / "out" / "results.json").read_text())
    assert results["quantize"] is quantize
    how = "scaled to 8 bits" if quantize else "as they are"
    printed = capsys.readouterr().out
    assert f"3 maps floats, {how}: 0, 1, 2" in printed and f"1 maps 16-bit, {how}: 3" in printed
    run(place, *words[:2], f"quantize={str(not quantize).lower()}", *QUICK)  # not out of the cache
    assert float(table(place)["kinds", "ECSSD"]["mae"]) != pytest.approx(np.mean([r["mae"] for r in records]), abs=1e-9)


def test_arrays_that_are_no_maps(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "maps" / "bad" / "ECSSD"
    folder.mkdir(parents=True)
    np.save(folder / "0.npy", np.full((48, 64), 3.5))
    np.save(folder / "1.npy", np.zeros((3, 48, 64)))
    np.savez(folder / "2.npz", a=np.zeros((4, 4)), b=np.zeros((4, 4)))
    np.save(folder / "3.npy", np.array([{}, None], object))
    (folder / "4.npz").write_bytes(b"no archive")
    np.save(folder / "5.npy", np.full((48, 64), 0.5))
    assert run(place, "methods=[bad]", "data.test=[ECSSD]", *QUICK) == 1
    said = (place / "out" / "findings.txt").read_text()
    for words in (
        "holds floats from 3.5 to 3.5, outside [0, 1]", "has the shape (3, 48, 64); a map is (H, W)",
        "holds 2 arrays (a, b)", "3.npy holds no array that can be read", "4.npz holds no array that can be read",
    ):  # fmt: skip
        assert words in said
    assert table(place)["bad", "ECSSD"]["scored"] == "1"
