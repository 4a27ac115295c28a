from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from qefpn.data.synthetic import SyntheticReport, render, synthesize
from qefpn.data.synthetic.scene import SHARE_RANGE, Plan, plan
from qefpn.data.synthetic.shapes import SHAPES, SUPERSAMPLING, Shape, area, coverage, rasterise
from qefpn.data.synthetic.textures import TEXTURES
from qefpn.errors import UserError

Sample = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [render(3, index, 96) for index in range(80)]


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    return [plan(np.random.default_rng(index)) for index in range(200)]


def _digest(pictures: Iterator[Sample]) -> str:
    return hashlib.sha256(b"".join(image.tobytes() + mask.tobytes() for image, mask in pictures)).hexdigest()


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# --- a picture is a pure function of its key ---------------------------------------------------------------


def test_types_and_values() -> None:
    image, mask = render(0, 0, 80)
    assert image.shape == (80, 80, 3) and image.dtype == np.uint8
    assert mask.shape == (80, 80) and mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}


def test_same_in_another_process_and_another_order() -> None:
    here = _digest(render(5, index, 64) for index in range(8))
    backwards = {index: render(5, index, 64) for index in reversed(range(8))}
    assert _digest(backwards[index] for index in range(8)) == here
    code = (
        "import hashlib, cv2; cv2.setNumThreads(1); from qefpn.data.synthetic import render\n"
        "parts = [p.tobytes() for i in range(8) for p in render(5, i, 64)]\n"
        "print(hashlib.sha256(b''.join(parts)).hexdigest())"
    )
    path = {"PYTHONPATH": str(Path(sys.modules["qefpn"].__path__[0]).parent), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here


def test_global_random_state_is_neither_used_nor_changed() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1]
    first = _digest(iter([render(0, 1, 64)]))
    assert np.array_equal(np.random.get_state()[1], before)
    np.random.seed(2)
    assert _digest(iter([render(0, 1, 64)])) == first


def test_seed_index_and_split_each_give_another_picture() -> None:
    keys = [(0, 0, "train"), (0, 1, "train"), (1, 0, "train"), (0, 0, "test"), (1, 1, "test")]
    digests = {_digest(iter([render(seed, index, 48, split=split)])) for seed, index, split in keys}
    assert len(digests) == len(keys)
    with pytest.raises(KeyError):
        render(0, 0, 48, split="validation")


@pytest.mark.parametrize("index", range(4))
def test_scene_does_not_depend_on_the_size(index: int) -> None:
    image, mask = render(2, index, 64)
    large_image, large_mask = render(2, index, 256)
    shrunk = cv2.resize(large_mask, (64, 64), interpolation=cv2.INTER_AREA) >= 128
    assert ((mask > 0) != shrunk).mean() < 0.012
    difference = image.astype(float) - cv2.resize(large_image, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(cv2.blur(difference, (5, 5))).mean() < 8


# --- geometry and mask -------------------------------------------------------------------------------------


def test_coverage_of_a_disc_against_its_closed_form() -> None:
    turn = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    disc = Shape((np.stack([0.43 + 0.2 * np.cos(turn), 0.58 + 0.2 * np.sin(turn)], axis=1),))
    size = 100
    covered = coverage(rasterise(disc, size * SUPERSAMPLING), size).astype(float)
    radius = np.sqrt(covered.sum() / np.pi)
    assert radius == pytest.approx(20, abs=1 / SUPERSAMPLING)
    y, x = np.mgrid[:size, :size] + 0.5
    assert (covered * x).sum() / covered.sum() == pytest.approx(43, abs=0.08)
    assert (covered * y).sum() / covered.sum() == pytest.approx(58, abs=0.08)
    assert 0.05 < covered[(covered > 0) & (covered < 1)].mean() < 0.95


def test_mask_against_point_in_polygon(plans: list[Plan]) -> None:
    """Off the outlines, the mask is what matplotlib says lies inside; on them, few pixels differ."""
    size = 128
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    for arrangement in plans[:12]:
        inside = np.zeros(size * size, bool)
        for shape in arrangement.shapes:
            own = np.zeros(size * size, bool)
            for points in shape.solids:
                own |= Outline(points, closed=False).contains_points(centres)
            for points in shape.holes:
                own &= ~Outline(points, closed=False).contains_points(centres)
            inside |= own
        expected = inside.reshape(size, size)
        mask = arrangement.mask_coverage(size) >= 0.5
        edge = cv2.morphologyEx(expected.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        wrong = mask != expected
        assert not (wrong & ~edge).any()
        assert wrong.sum() <= 0.12 * edge.sum()


def test_picture_changes_where_the_mask_does(samples: list[Sample]) -> None:
    """The mean step of colour across the mask's outline is largest where the outline is, on both axes."""
    for axis in (0, 1):
        steps = dict.fromkeys(range(-3, 4), 0.0)
        for image, mask in samples:
            colour_step = np.linalg.norm(np.diff(image.astype(float), axis=axis), axis=-1)
            outline = np.diff((mask > 0).astype(int), axis=axis) != 0
            inner = outline[4:-4, 4:-4]
            for shift in steps:
                moved = np.roll(colour_step, shift, axis=axis)[4:-4, 4:-4]
                steps[shift] += moved[inner].mean() if inner.any() else 0.0
        assert max(steps, key=lambda shift: steps[shift]) == 0, steps
        assert steps[0] > 1.3 * steps[-2] and steps[0] > 1.3 * steps[2], steps
        assert steps[-1] == pytest.approx(steps[1], rel=0.2), steps


@pytest.mark.parametrize("maker", [maker for maker, _ in SHAPES])
def test_each_shape_varies_and_fits(maker: object) -> None:
    assert callable(maker)
    rng = np.random.default_rng(0)
    shapes = [maker(rng) for _ in range(20)]
    areas = [area(shape) for shape in shapes]
    assert min(areas) > 0.05 and len({round(a, 4) for a in areas}) > 10
    for shape in shapes:
        assert max(map(abs, shape.bounds())) < 2
        solid = rasterise(Shape(shape.solids).placed((0.5, 0.5), 0.25, 0.3), 128)
        assert cv2.connectedComponents(solid)[0] == 2  # background and one piece


@pytest.mark.parametrize("maker", [maker for maker, _ in TEXTURES])
def test_each_texture_is_in_range_and_not_flat(maker: object) -> None:
    assert callable(maker)
    field = maker(np.random.default_rng(1), 64, 6.0)
    assert field.shape == (64, 64) and field.dtype == np.float32
    assert field.min() > -0.3 and field.max() < 1.3 and field.std() > 0.03


# --- variety -----------------------------------------------------------------------------------------------


def test_counts_shares_borders_and_holes(plans: list[Plan]) -> None:
    counts = np.bincount([len(p.shapes) for p in plans], minlength=4) / len(plans)
    assert counts[0] == 0 and min(counts[1:]) > 0.07 and counts[1] < 0.75
    masks = [p.mask_coverage(64) >= 0.5 for p in plans]
    shares = np.array([mask.mean() for mask in masks])
    assert shares.min() >= SHARE_RANGE[0] * 0.95 and shares.max() <= SHARE_RANGE[1] * 1.02
    assert np.quantile(shares, 0.1) < 0.085 and np.quantile(shares, 0.9) > 0.28
    touching = np.mean([m[0].any() or m[-1].any() or m[:, 0].any() or m[:, -1].any() for m in masks])
    assert 0.15 < touching < 0.6
    assert np.mean([any(shape.holes for shape in p.shapes) for p in plans]) > 0.1
    overlapping = 0
    for p in plans:
        rasters = [rasterise(shape, 64) for shape in p.shapes]
        overlapping += bool((np.sum(rasters, axis=0) > 1).any())
    assert 0.05 < overlapping / len(plans) < 0.5


def _max_f(maps: list[NDArray[np.float64]], masks: list[NDArray[np.bool_]]) -> float:
    """Largest F (beta^2 = 0.3) of precision and recall averaged over pictures, at 64 thresholds."""
    precision, recall = np.zeros(64), np.zeros(64)
    for values, mask in zip(maps, masks, strict=True):
        scaled = (values - values.min()) / max(np.ptp(values), 1e-9)
        for k in range(64):
            chosen = scaled >= k / 64
            hits = (chosen & mask).sum()
            precision[k] += hits / max(chosen.sum(), 1) / len(maps)
            recall[k] += hits / mask.sum() / len(maps)
    return float((1.3 * precision * recall / np.maximum(0.3 * precision + recall, 1e-12)).max())


def test_neither_place_nor_lightness_nor_one_channel_finds_the_objects(samples: list[Sample]) -> None:
    masks = [mask > 0 for _, mask in samples]
    y, x = (np.mgrid[:96, :96] + 0.5) / 96 - 0.5
    assert _max_f([np.exp(-(x**2 + y**2) / 0.08)] * len(masks), masks) < 0.5
    for channel in range(3):
        values = [image[..., channel].astype(float) for image, _ in samples]
        assert _max_f(values, masks) < 0.55
        assert _max_f([-v for v in values], masks) < 0.55
    otsu = []
    for image, _ in samples:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        bright = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1].astype(float)
        otsu.append(bright if bright.mean() < 0.5 else 1 - bright)
    assert _max_f(otsu, masks) < 0.6


def test_objects_differ_from_what_surrounds_them(samples: list[Sample]) -> None:
    """A person sees them: nearly all have a mean colour that is not that of the band around them."""
    kernel = np.ones((7, 7), np.uint8)
    distances = []
    for image, mask in samples:
        around = cv2.dilate(mask, kernel) - mask
        inner, outer = cv2.mean(image, mask)[:3], cv2.mean(image, around)[:3]
        distances.append(float(np.linalg.norm(np.subtract(inner, outer))))
    assert np.quantile(distances, 0.1) > 20


def test_a_hundred_pictures_take_less_than_ten_seconds() -> None:
    start = time.process_time()
    for index in range(25):
        render(9, index, 128)
    assert time.process_time() - start < 10 / 4


# --- the set on disk ---------------------------------------------------------------------------------------


def _small(root: Path, **changes: object) -> SyntheticReport:
    return synthesize(root, **{"train": 5, "test": 3, "size": 48, "seed": 4, **changes})  # type: ignore[arg-type]


def test_layout_of_duts(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = _small(tmp_path / "deep" / "er", progress=lambda done, total: calls.append((done, total)))
    assert (report.written, report.reused, report.train, report.test) == (8, 0, 5, 3)
    assert calls == [(k, 8) for k in range(1, 9)]
    assert report.train_root is not None and report.test_root is not None
    for root, split, count in ((report.train_root, "train", 5), (report.test_root, "test", 3)):
        images = sorted((root / f"{root.name}-Image").iterdir())
        masks = sorted((root / f"{root.name}-Mask").iterdir())
        assert [p.stem for p in images] == [p.stem for p in masks] and len(images) == count
        for index, (image_path, mask_path) in enumerate(zip(images, masks, strict=True)):
            image, mask = render(4, index, 48, split=split)
            assert np.array_equal(cv2.imread(str(mask_path), cv2.IMREAD_UNCHANGED), mask)
            stored = cv2.imread(str(image_path), cv2.IMREAD_COLOR)[..., ::-1]
            assert np.abs(stored.astype(float) - image).mean() < 8


def test_bytes_do_not_depend_on_workers_or_on_counts(tmp_path: Path) -> None:
    _small(tmp_path / "one")
    _small(tmp_path / "three", workers=3)
    _small(tmp_path / "fewer", train=2)
    one, three, fewer = (_files(tmp_path / name) for name in ("one", "three", "fewer"))
    assert one == three
    kept = [name for name in fewer if not name.endswith(".json")]
    assert len(kept) == 2 * (2 + 3) and all(fewer[name] == one[name] for name in kept)


def test_a_complete_set_is_left_alone_and_a_half_written_one_completed(tmp_path: Path) -> None:
    _small(tmp_path)
    before = _files(tmp_path)
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in before}
    again = _small(tmp_path)
    assert (again.written, again.reused) == (0, 8)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == times
    (tmp_path / "SYN-TR" / "SYN-TR-Mask" / "train_00001.png").unlink()
    (tmp_path / "SYN-TE" / "SYN-TE-Image" / "test_00002.jpg").write_bytes(b"")
    completed = _small(tmp_path)
    assert (completed.written, completed.reused) == (2, 6)
    assert _files(tmp_path) == before


def test_a_stopped_call_is_taken_up_again(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _small(tmp_path / "stopped", progress=stop)
    assert _small(tmp_path / "stopped").reused >= 4
    _small(tmp_path / "whole")
    assert _files(tmp_path / "stopped") == _files(tmp_path / "whole")


@pytest.mark.parametrize(("key", "value"), [("seed", 5), ("size", 64), ("train", 6)])
def test_a_set_of_other_settings_is_refused_untouched(tmp_path: Path, key: str, value: int) -> None:
    _small(tmp_path)
    before = _files(tmp_path)
    with pytest.raises(UserError, match="delete it .* or choose another") as caught:
        _small(tmp_path, **{key: value})
    named = {"train": "pictures"}.get(key, key)
    assert f"{named} " in str(caught.value) and str(value) in str(caught.value) and "SYN-TR" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert _files(tmp_path) == before


def test_what_others_made_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "SYN-TE").mkdir()
    (tmp_path / "SYN-TE" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="SYN-TE is in the way"):
        _small(tmp_path)
    assert list(_files(tmp_path)) == ["SYN-TE/mine.txt"]
    assert _small(tmp_path, test_name="OTHER").written == 8


@pytest.mark.parametrize("text", ["{", "[]", "7", json.dumps({"seed": 4})])
def test_a_record_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    _small(tmp_path)
    (tmp_path / "SYN-TR.json").write_text(text)
    with pytest.raises(UserError, match=r"SYN-TR.*delete it"):
        _small(tmp_path)


def test_a_set_of_no_pictures_is_not_written(tmp_path: Path) -> None:
    report = _small(tmp_path, test=0)
    assert report.test_root is None and report.written == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["SYN-TR", "SYN-TR.json"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": -1}, "train=-1"),
        ({"train": 0, "test": 0}, "nothing to write"),
        ({"size": 16}, "size=16"),
        ({"size": 64.0}, "size=64.0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": True}, "seed=True"),
        ({"workers": 0}, "workers=0"),
        ({"train_name": "a/b"}, "'a/b'"),
        ({"test_name": ".."}, "'..'"),
        ({"test_name": "syn-tr"}, "both sets"),
    ],
)
def test_impossible_arguments(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        _small(tmp_path / "new", **changes)
    assert words in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*choose another folder"):
        _small(tmp_path / "file")
