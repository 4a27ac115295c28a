"""Folders of saliency maps: where methods and data sets are found, how names pair, what is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from qefpn.benchmark.maps import find_maps, match_maps, read_map
from qefpn.data.layouts import Pair
from qefpn.errors import UserError


def pairs_of(*names: str) -> list[Pair]:
    return [Pair(name, f"{name}.jpg", f"{name}.png") for name in names]


def save(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((4, 5), value, np.uint8))
    return path


SETS = {"ECSSD": pairs_of("a", "b"), "DUTS-TE": pairs_of("c", "d")}


def found(root: Path) -> set[tuple[str, str, str]]:
    folders, _ = find_maps(root, SETS)
    return {(one.method, one.dataset, one.folder.relative_to(root).as_posix()) for one in folders}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["F3Net/ECSSD/a.png", "F3Net/duts_te/c.png", "BAS/ECSSD/a.png"],
            {("F3Net", "ECSSD", "F3Net/ECSSD"), ("F3Net", "DUTS-TE", "F3Net/duts_te"), ("BAS", "ECSSD", "BAS/ECSSD")},
        ),
        (
            ["ECSSD/F3Net/a.png", "ECSSD/BAS/a.png", "DUTS-TE/BAS/c.png"],
            {("F3Net", "ECSSD", "ECSSD/F3Net"), ("BAS", "ECSSD", "ECSSD/BAS"), ("BAS", "DUTS-TE", "DUTS-TE/BAS")},
        ),
        (["ECSSD/a.png", "DUTS-TE/c.png"], {("maps", "ECSSD", "ECSSD"), ("maps", "DUTS-TE", "DUTS-TE")}),
        (["a.png", "b.png"], {("maps", "ECSSD", ".")}),
        (["one/c.png", "two/c.png"], {("one", "DUTS-TE", "one"), ("two", "DUTS-TE", "two")}),
        (["run7/maps/ECSSD/a.png"], {("run7", "ECSSD", "run7/maps/ECSSD")}),
        (["maps/ECSSD/a.png"], {("maps", "ECSSD", "maps/ECSSD")}),  # of a run: named as the folder above
    ],
)
def test_layouts(tmp_path: Path, files: list[str], expected: set[tuple[str, str, str]]) -> None:
    root = tmp_path / "maps"
    for file in files:
        save(root / file)
    assert found(root) == expected


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_maps(tmp_path / "nowhere", SETS)
    save(tmp_path / "maps" / "HKU-IS" / "z.png")
    with pytest.raises(UserError, match="no map there belongs to a picture of ECSSD, DUTS-TE.*maps of HKU-IS"):
        find_maps(tmp_path / "maps", SETS)


def test_sets_that_are_not_asked_for_are_named(tmp_path: Path) -> None:
    save(tmp_path / "one" / "ECSSD" / "a.png")
    save(tmp_path / "one" / "PASCAL_S" / "q.png")
    assert find_maps(tmp_path, SETS)[1] == ["PASCAL_S"]


def test_names_pair(tmp_path: Path) -> None:
    for file in ("a.PNG", "deep/er/B.png", "c_sal.png", "d.jpg", "d.png", "stray.png"):
        save(tmp_path / file)
    result = match_maps(tmp_path, pairs_of("a", "b", "c", "d", "e"))
    names = {name: path.relative_to(tmp_path).as_posix() for name, path in result.maps.items()}
    assert names == {"a": "a.PNG", "b": "deep/er/B.png", "c": "c_sal.png", "d": "d.png"}
    assert (result.missing, result.extra, result.twice) == (["e"], ["stray.png"], ["d.jpg"])


def test_an_ending_of_the_methods_own(tmp_path: Path) -> None:
    for file in ("1_BASNet.png", "11_BASNet.png"):
        save(tmp_path / file)
    result = match_maps(tmp_path, pairs_of("1", "11", "12"))
    assert {name: path.name for name, path in result.maps.items()} == {"1": "1_BASNet.png", "11": "11_BASNet.png"}
    assert (result.missing, result.extra) == (["12"], [])


GREY = np.arange(0, 240, 12, dtype=np.uint8).reshape(4, 5)


@pytest.mark.parametrize(
    ("image", "expected", "remark"),
    [
        (Image.fromarray(GREY), GREY, ""),
        (Image.fromarray(np.stack([GREY] * 3, axis=2)), GREY, ""),
        (Image.fromarray(np.stack([GREY, 0 * GREY + 255], axis=2), mode="LA"), GREY, "with alpha, which is one value"),
        (Image.fromarray(np.stack([0 * GREY, GREY], axis=2), mode="LA"), GREY, "cut-outs, of which alpha is taken"),
        (Image.fromarray(np.dstack([GREY, GREY, GREY, 255 - GREY])), 255 - GREY, "cut-outs, of which alpha is taken"),
        (Image.fromarray(GREY.astype(np.uint16) * 257), GREY, "16-bit, scaled"),
        (Image.fromarray(GREY.astype(np.uint16)), GREY, "16-bit file with 8-bit values"),
        (Image.fromarray(GREY.astype(np.float32) / 255), GREY, "floats"),
        (Image.fromarray(GREY > 100), np.where(GREY > 100, 255, 0), ""),
        (Image.fromarray(np.stack([GREY, 0 * GREY, 0 * GREY], axis=2)), np.rint(GREY * 0.299), "colour"),
    ],
)  # fmt: skip
def test_kinds_of_maps(tmp_path: Path, image: Image.Image, expected: np.ndarray, remark: str) -> None:
    path = tmp_path / ("map.tiff" if image.mode == "F" else "map.png")
    image.save(path)
    saliency, said = read_map(path)
    assert saliency.dtype == np.uint8
    assert np.abs(saliency.astype(int) - expected).max() <= (1 if remark == "colour" else 0)
    assert said.startswith(remark) and bool(said) == bool(remark)


def test_no_map(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_text("not a picture")
    with pytest.raises(UserError, match="not a picture"):
        read_map(tmp_path / "map.png")


@pytest.mark.parametrize("name", ["F3Net_{}.png", "{}_sal.png", "{}-F3Net-out.png", "sal_{}.png", "F3Net_{}_sal.png"])
@pytest.mark.parametrize("folder", ["F3Net/ECSSD", "F3Net", "."])
def test_names_with_a_beginning_or_an_ending(tmp_path: Path, name: str, folder: str) -> None:
    pairs = pairs_of(*(f"img{number}" for number in (1, 2, 3, 11, 12, 21)))
    for number in (1, 2, 3, 11, 12):
        save(tmp_path / "maps" / folder / name.format(f"img{number}"))
    (folders, _) = find_maps(tmp_path / "maps", {"ECSSD": pairs, "DUTS-TE": pairs_of("c", "d")})
    assert [one.dataset for one in folders] == ["ECSSD"]
    result = match_maps(folders[0], pairs)
    assert {key: Path(str(path)).name for key, path in result.maps.items()} == {
        f"img{number}": name.format(f"img{number}") for number in (1, 2, 3, 11, 12)
    }
    assert (result.missing, result.extra) == (["img21"], [])


@pytest.mark.parametrize("inner", ["", "maps/", "anything/"])
def test_a_zip_is_a_folder(tmp_path: Path, inner: str) -> None:
    for file in ("F3Net/ECSSD/a.png", "F3Net/ECSSD/b.png", "BAS/duts_te/c.png"):
        save(tmp_path / "in" / inner / file, 77)
    archive = shutil.make_archive(str(tmp_path / "maps"), "zip", tmp_path / "in")
    folders, aside = find_maps(archive, SETS)
    assert [(one.method, one.dataset) for one in folders] == [("BAS", "DUTS-TE"), ("F3Net", "ECSSD")] and not aside
    found = match_maps(folders[1], SETS["ECSSD"])
    assert sorted(found.maps) == ["a", "b"]
    assert (read_map(found.maps["a"])[0] == 77).all()


def test_zips_among_folders_and_other_archives(tmp_path: Path) -> None:
    root = tmp_path / "maps"
    save(root / "BAS" / "ECSSD" / "a.png")
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "two" / "ECSSD" / "a.png")
    (root / "CPD").mkdir()
    shutil.make_archive(str(root / "CPD" / "ECSSD"), "zip", tmp_path / "in")
    shutil.make_archive(str(root / "F3Net"), "zip", tmp_path / "two")
    shutil.make_archive(str(root / "EGNet"), "gztar", tmp_path / "two")
    folders, aside = find_maps(root, SETS)
    assert [one.method for one in folders] == ["BAS", "CPD", "F3Net"]
    assert len(aside) == 1 and "EGNet.tar.gz" in aside[0] and "tar -xf" in aside[0]
    with pytest.raises(UserError, match=r"EGNet.tar.gz is an archive.*tar -xf"):
        find_maps(root / "EGNet.tar.gz", SETS)
