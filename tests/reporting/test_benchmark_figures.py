"""Curves and the grid of pictures: what is chosen, what is drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.reporting.benchmark_entries import METHODS, PICTURES, make, save

from qefpn.benchmark.entries import Entry
from qefpn.data.layouts import Pair
from qefpn.errors import UserError
from qefpn.reporting.benchmark_figures import draw_curves, draw_grid
from qefpn.reporting.charts import COLOURS, DASHES, axis_floor, method_styles
from qefpn.reporting.pictures import choose, picture_scores, read_looks

Results = tuple[list[Entry], dict[str, list[Pair]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return make(tmp_path_factory.mktemp("results"))


def test_curves_of_every_method_and_set(results: Results, tmp_path: Path) -> None:
    files = draw_curves(results[0], tmp_path / "new")
    assert [path.name for path in files] == ["curves.png", "curves.svg", "curves.pdf"]
    assert files[2].read_bytes().startswith(b"%PDF")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {path.name for path in files}  # no parts left
    svg = files[1].read_text(encoding="utf-8")
    words_of_all = ("ECSSD", "own", "Precision", "Recall", "Threshold", "E-measure", "sharp", "blurred", "A &lt;i&gt;")
    for words in (*words_of_all, "†"):
        assert words in svg
    # each colour: a line in six panels and one in the legend
    for style in method_styles(results[0]).values():
        assert svg.count(f"stroke: {style.colour}") == 7
    image = cv2.imread(str(files[0]))
    assert image.shape[0] > 800 and image.shape[1] > 800 and image.std() > 5


def test_equal_results_give_equal_files(results: Results, tmp_path: Path) -> None:
    first, second = (draw_curves(results[0], tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_no_curves_no_files(results: Results, tmp_path: Path) -> None:
    bare = [dataclasses.replace(entry, curves={}) for entry in results[0]]
    assert draw_curves(bare, tmp_path) == [] and draw_curves([], tmp_path) == []


def test_styles_do_not_repeat() -> None:
    class Named:
        def __init__(self, method: str) -> None:
            self.method = method

    styles = method_styles([Named(f"{i}") for i in range(28)])  # type: ignore[misc]
    assert len(set(styles.values())) == len(COLOURS) * len(DASHES) == 28


def test_axis_floor() -> None:
    assert axis_floor([[0.0] + [0.75] * 99]) == 0.7
    assert axis_floor([[0.7] * 10]) == 0.7
    assert axis_floor([[1.0] * 10]) == 0.9
    assert axis_floor([[0.01] * 10, [0.9] * 10]) == 0.0
    assert axis_floor([]) == 0.0 and axis_floor([[float("nan")]]) == 0.0


def pictures(results: Results, scores: dict[str, list[float]], key: str = "weighted_f") -> list[Any]:
    """One table a method with these scores of pictures 0, 1, ..."""
    first = results[0][0]
    return [
        picture_scores(dataclasses.replace(first, pictures=[{"name": f"{i}", key: v} for i, v in enumerate(values)]))
        for values in scores.values()
    ]


def test_pictures_are_chosen_in_turn(results: Results) -> None:
    entries = pictures(results, {"a": [0.1, 0.5, 0.9, 0.6, 0.6, 0.6], "b": [0.1, 0.5, 0.9, 0.6, 0.1, 0.5]})
    chosen = choose(entries, 6)
    assert [(one.name, one.why) for one in chosen[:3]] == [("4", "differ"), ("0", "worst"), ("2", "best")]
    assert chosen[0].spread == pytest.approx(0.5) and chosen[0].mean == pytest.approx(0.35)
    assert sorted(one.name for one in chosen) == list("012345")
    assert [one.name for one in choose(entries, 9, why=("differ",))] == ["4", "5"]
    assert choose([], 3) == []


def test_for_mae_low_is_best_and_undefined_scores_rank_nothing(results: Results) -> None:
    entries = pictures(results, {"a": [0.1, 0.9, float("nan")]}, "mae")
    chosen = choose(entries, 5)
    assert [(one.name, one.why) for one in chosen] == [("1", "worst"), ("0", "best")]


def test_pictures_that_a_method_lacks_do_not_win(results: Results) -> None:
    entries = pictures(results, {"a": [0.5, 0.5, 1.0], "b": [0.5, 0.6]})
    assert {one.name for one in choose(entries, 9)} == {"0", "1"}


def test_maps_are_read_at_the_size_of_their_mask(results: Results, tmp_path: Path) -> None:
    entries, pairs = results
    small = save(tmp_path / "small.png", np.full((12, 16), 200, np.uint8))
    deep = save(tmp_path / "deep.png", np.full((48, 64), 65535, np.uint16))
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    own = [dataclasses.replace(entries[0], maps={"0": path}) for path in (small, deep, broken)]
    own.append(dataclasses.replace(entries[0], maps={}))
    looks = read_looks(pairs["ECSSD"][0], own)
    assert looks.maps[0] is not None and looks.maps[0].shape == (48, 64) and (looks.maps[0] == 200).all()
    assert looks.maps[1] is not None and (looks.maps[1] == 255).all()
    assert looks.maps[2:] == [None, None]
    assert looks.picture is not None and looks.picture.shape == (48, 64, 3)


def test_grid_of_the_pictures_where_methods_differ(results: Results, tmp_path: Path) -> None:
    path, _ = draw_grid(*results, tmp_path, None)
    assert path == tmp_path / "grid.png" and (tmp_path / "grid.pdf").read_bytes().startswith(b"%PDF")
    image = cv2.imread(str(path))
    width = (2 + len(METHODS)) * 1.2 * 200
    assert image.shape[1] == pytest.approx(width, abs=8)
    assert image.shape[0] == pytest.approx((4 + 4) * (1.15 * 0.75 + 0.05) * 200, rel=0.1)  # ROWS over two sets


def test_grid_shows_picture_mask_and_map(results: Results, tmp_path: Path) -> None:
    entries, pairs = results
    image = cv2.imread(str(draw_grid(entries, pairs, tmp_path, ["own/5"])[0]))
    top = image.shape[0] - round((1.15 * 0.75 + 0.05) * 200)
    cells = [image[top + 20 : -20, round((0.02 + c * 1.2) * 200) :][:, 10:215] for c in range(5)]
    mask = cv2.imread(str(pairs["own"][5].mask), cv2.IMREAD_GRAYSCALE)
    assert (cells[1] > 127).mean() == pytest.approx((mask > 127).mean(), abs=0.15)
    assert (cells[4] > 200).mean() > 0.9  # the last method has no such map: an empty cell, words in grey


def test_named_pictures_in_their_order(results: Results, tmp_path: Path) -> None:
    both = cv2.imread(str(draw_grid(*results, tmp_path, ["3"])[0]))  # of both sets
    one = cv2.imread(str(draw_grid(*results, tmp_path, ["ECSSD/3"])[0]))
    assert both.shape[0] - one.shape[0] == pytest.approx((1.15 * 0.75 + 0.05) * 200, abs=3)
    with pytest.raises(UserError, match="no data set has a picture 'absent'"):
        draw_grid(*results, tmp_path, ["absent"])


def test_one_method_alone_and_nothing_at_all(results: Results, tmp_path: Path) -> None:
    entries, pairs = results
    alone = [entry for entry in entries if entry.method == METHODS[0] and entry.dataset == "ECSSD"]
    image = cv2.imread(str(draw_grid(alone, pairs, tmp_path, None)[0]))
    assert image.shape[0] == pytest.approx(PICTURES * (1.15 * 0.75 + 0.05) * 200, rel=0.1)
    with pytest.raises(UserError, match="no grid"):
        draw_grid([], pairs, tmp_path, None)
