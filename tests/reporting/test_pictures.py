"""The choice of cases, and the pictures made of maps."""

from __future__ import annotations

import base64
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from qefpn.reporting.pictures import edge_picture, error_picture, histogram, panels, shrink
from qefpn.reporting.results import Sample
from qefpn.reporting.run_report import choose_samples

SAMPLES = [Sample("set", str(index)) for index in range(20)]


def test_worst_between_and_best() -> None:
    scores = {str(i): {"weighted_f": ((i * 7) % 20) / 20, "mae": 0.1} for i in range(20)}
    cases = choose_samples(SAMPLES, scores, each=3)
    levels = [round(scores[sample.name]["weighted_f"] * 20) for sample, _ in cases]
    assert [group for _, group in cases] == ["worst"] * 3 + ["between"] * 3 + ["best"] * 3
    assert levels == [0, 1, 2, 5, 10, 14, 19, 18, 17]


def test_mae_alone_ranks_the_other_way_round() -> None:
    scores = {str(i): {"mae": i / 20} for i in range(20)}
    cases = choose_samples(SAMPLES, scores, each=1)
    assert [sample.name for sample, _ in cases] == ["19", "9", "0"]


@pytest.mark.parametrize("count", range(8))
def test_few_pictures_are_never_shown_twice(count: int) -> None:
    scores = {str(i): {"weighted_f": i / 20} for i in range(count)}
    names = [sample.name for sample, _ in choose_samples(SAMPLES[:count], scores)]
    assert len(names) == len(set(names)) and (count == 0 or names)
    assert count == 0 or names[0] == "0"


def test_unscored_pictures_are_not_ranked_and_no_scores_rank_nothing() -> None:
    scores: dict[str, dict[str, float]] = {"3": {"weighted_f": 0.5}, "4": {}}
    assert [sample.name for sample, _ in choose_samples(SAMPLES, scores)] == ["3"]
    cases = choose_samples(SAMPLES, {}, each=2)
    assert [sample.name for sample, _ in cases] == ["2", "7", "12", "17"]
    assert {group for _, group in cases} == {"between"}


def test_edges_of_a_step() -> None:
    step = np.zeros((6, 8), np.uint8)
    step[:, 4:] = 255
    edges = edge_picture(step)
    assert (edges[:, 3:5] == 255).all() and (edges[:, [0, 1, 2, 5, 6, 7]] == 0).all()


def test_edges_agree_with_the_loss() -> None:
    from qefpn.losses import edges

    torch = pytest.importorskip("torch")
    saliency = np.random.default_rng(0).integers(0, 255, (9, 11), dtype=np.uint8)
    magnitude = edges(torch.from_numpy(saliency / 255.0)[None, None])[0, 0].numpy() * np.sqrt(2)
    expected = np.round(255 * np.minimum(magnitude, 1)).astype(int)
    assert np.abs(edge_picture(saliency).astype(int) - expected).max() <= 1


def test_error_colours() -> None:
    saliency = np.array([[255, 0, 0, 255]], np.uint8)
    mask = np.array([[0, 255, 0, 255]], np.uint8)
    excess, missed, right, object_ = error_picture(saliency, mask)[0].astype(int)
    assert excess[2] > excess[0] + 100  # BGR: orange
    assert missed[0] > missed[2] + 100  # blue
    assert len(set(right)) == len(set(object_)) == 1 and object_[0] > right[0]


def test_thumbnails_keep_their_shape() -> None:
    assert shrink(np.zeros((1000, 500), np.uint8), 100).shape == (100, 50)
    assert shrink(np.zeros((3000, 1), np.uint8), 100).shape == (100, 1)
    assert shrink(np.zeros((20, 30), np.uint8), 100).shape == (20, 30)


def test_panels_read_any_name_and_explain_what_is_missing(tmp_path: Path) -> None:
    picture = tmp_path / "é [1] ß.png"
    done, data = cv2.imencode(".png", np.full((8, 9), 200, np.uint8))
    assert done
    picture.write_bytes(data.tobytes())
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture")
    out = panels(Sample("set", "x", image=str(broken), mask=str(tmp_path / "gone.png"), map=str(picture)))
    assert [reason for _, reason in out] == ["cannot be read", "cannot be read", "", "", "cannot be read"]
    assert out[2][0].startswith("data:image/png;base64,")
    raw = base64.b64decode(out[2][0].split(",")[1])
    assert (cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_GRAYSCALE) == 200).all()
    assert [reason for _, reason in panels(Sample("set", "x"))] == ["not saved"] * 5


def test_pictures_inside_a_zip(tmp_path: Path) -> None:
    done, data = cv2.imencode(".png", np.full((8, 9, 3), (0, 0, 255), np.uint8))
    assert done
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("images/é.png", data.tobytes())
    root = tmp_path / "set.zip!"
    out = panels(Sample("set", "é", image=str(root / "images/é.png"), mask=str(root / "gone.png")))
    raw = np.frombuffer(base64.b64decode(out[0][0].split(",")[1]), np.uint8)
    blue, _, red = cv2.imdecode(raw, cv2.IMREAD_COLOR)[4, 4]
    assert red > 240 and blue < 15  # channels are not swapped on the way
    assert out[1] == ("", "cannot be read")


def test_histogram_keeps_both_ends() -> None:
    assert histogram([0.0, 0.05, 0.5, 0.999, 1.0, float("nan")], bins=10) == [2, 0, 0, 0, 0, 1, 0, 0, 0, 2]
