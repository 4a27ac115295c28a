"""Pictures and masks told apart by what is in the files, where no folder's name says which they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.pictures import blob, picture

from qefpn.data import find_pairs
from qefpn.data.contents import look_of
from qefpn.errors import UserError


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("im_aug", "gt_aug"),
        ("HRSOD_test", "HRSOD_test_mask"),
        ("original", "mask"),
        ("Image", "GT_Object"),
        ("train", "train_masks"),
        ("photos_raw", "alphas"),
        ("a", "b"),
        ("masques", "fotos"),
        ("x/deep", "y/deep"),
    ],
)
@pytest.mark.parametrize("suffixes", [(".jpg", ".png"), (".png", ".jpg"), (".png", ".png")])
@pytest.mark.parametrize("nested", ["", "outer", "outer/inner"])
def test_any_two_folders(make_set, tmp_path: Path, images: str, masks: str, suffixes, nested: str) -> None:
    root = tmp_path / "s"
    make_set(root / nested, images, masks, image_suffix=suffixes[0], mask_suffix=suffixes[1])
    pairs = find_pairs(root)
    assert [pair.name for pair in pairs] == ["p000", "p001", "p002"]
    for pair in pairs:
        assert Path(str(pair.image)).parent == root / nested / images
        assert Path(str(pair.mask)).parent == root / nested / masks


def test_names_that_say_the_opposite(make_set, tmp_path: Path) -> None:
    pairs = find_pairs(make_set(tmp_path, "masks", "images"))
    assert pairs.layout == "masks/images"
    assert all(Path(str(pair.mask)).parent.name == "images" for pair in pairs)


def test_edges_beside_masks_are_no_masks(make_set, tmp_path: Path) -> None:
    """COD10K has Image, GT_Object, GT_Edge and GT_Instance."""
    root = make_set(tmp_path, "Image", "GT_Object")
    for other in ("GT_Edge", "GT_Instance"):
        make_set(root, "Image", other)
    pairs = find_pairs(root)
    assert pairs.layout == "Image/GT_Object (GT_Edge, GT_Instance left aside)"


def test_other_folders_of_pictures_are_named(make_set, tmp_path: Path) -> None:
    """nnU-Net's imagesTr and labelsTr lie beside imagesTs; a set in a folder may have others beside it."""
    root = make_set(tmp_path / "a", "imagesTr", "labelsTr")
    shutil.copytree(root / "imagesTr", root / "imagesTs")
    for path in sorted((root / "imagesTs").iterdir()):
        path.rename(path.with_name(f"t{path.name}"))
    assert find_pairs(root).layout == "imagesTr/labelsTr (imagesTs left aside)"
    make_set(tmp_path / "b" / "mine")
    shutil.copytree(root / "imagesTs", tmp_path / "b" / "more")
    assert find_pairs(tmp_path / "b").layout == "mine/images/masks (more left aside)"


@pytest.mark.parametrize(("one", "other"), [("alphas", "mattes"), ("x", "y"), ("GT", "masks")])
def test_two_folders_of_masks_are_refused(make_set, tmp_path: Path, one: str, other: str) -> None:
    root = make_set(tmp_path, "images", one)
    for file in (root / one).iterdir():
        (root / other).mkdir(exist_ok=True)
        Image.fromarray(255 - np.asarray(Image.open(file))).save(root / other / file.name)
    with pytest.raises(
        UserError, match=rf"images/({one}|{other}) or images/({one}|{other}); say which with data.layout"
    ):
        find_pairs(root)
    assert find_pairs(root, layout=f"images/{other}").layout == f"images/{other}"


def test_two_folders_of_the_same_masks_are_one(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path, "images", "GT")
    shutil.copytree(root / "GT", root / "masks")
    assert find_pairs(root).layout == "images/GT (masks left aside)"


def test_two_folders_of_pictures_are_no_set(make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "s", "left", "right")
    shutil.rmtree(tmp_path / "s" / "right")
    (tmp_path / "s" / "right").mkdir()
    for number in range(3):
        Image.fromarray(picture(number + 50)).save(tmp_path / "s" / "right" / f"p{number:03d}.jpg")
    with pytest.raises(UserError, match="no masks that were recognised"):
        find_pairs(tmp_path / "s")


def test_folders_outright(make_set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_set(tmp_path / "one", "photos", "x")
    make_set(tmp_path / "two", "y", "alphas", count=4)
    photos, alphas = tmp_path / "one" / "photos", tmp_path / "two" / "alphas"
    pairs = find_pairs(None, images=photos, masks=alphas)
    assert [pair.name for pair in pairs] == ["p000", "p001", "p002"]
    assert pairs.masks_without_image == (str(alphas / "p003.png"),) and pairs.name == "photos"
    assert str(pairs[0].image) == str(photos / "p000.jpg") and str(pairs[0].mask) == str(alphas / "p000.png")
    assert find_pairs(tmp_path, images="one/photos", masks="two/alphas").items[0].mask == pairs[0].mask
    monkeypatch.chdir(tmp_path / "one")
    assert len(find_pairs(tmp_path / "two", images="photos", masks="alphas")) == 3
    archive = shutil.make_archive(str(tmp_path / "a"), "zip", alphas)
    assert len(find_pairs(None, images=photos, masks=archive)) == 3
    for wrong, message in (
        ({"images": photos}, "data.images is given and data.masks is not"),
        ({"masks": alphas}, "data.masks is given and data.images is not"),
        ({"images": photos, "masks": "nowhere"}, "data.masks=nowhere: there is no such folder"),
        ({"images": tmp_path / "cache", "masks": alphas}, "data.images=.*no pictures"),
        ({}, "data.root is not set"),
    ):
        (tmp_path / "cache").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=message):
            find_pairs(None, **wrong)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(picture(1, 80, 90)), "picture"),
        (Image.fromarray(picture(1, 80, 90)).convert("L"), "picture"),
        (Image.fromarray(picture(1, 80, 90)).quantize(200), "picture"),
        (Image.fromarray(blob(1)), "mask"),
        (Image.fromarray(blob(1)).convert("1"), "mask"),
        (Image.fromarray(blob(1)).convert("RGB"), "mask"),
        (Image.fromarray(blob(1) // 255), "mask"),
        (Image.fromarray(blob(1).astype(np.uint16) * 257), "mask"),
        (Image.fromarray(np.stack([blob(1), 0 * blob(1), 0 * blob(1)], axis=2)), "mask"),
        (Image.fromarray(blob(1, 200, 240)).resize((120, 100), Image.Resampling.BICUBIC), "mask"),
    ],
)
def test_looks(image: Image.Image, expected: str) -> None:
    assert look_of(image) == expected


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("img_{}.jpg", "mask_{}.png"),
        ("{}_im.jpg", "{}_gt.png"),
        ("{}_rgb.png", "{}_alpha.png"),
        ("{}.png", "{}_matte.png"),
        ("{}_foo.png", "{}_bar.png"),
        ("foo-{}.png", "bar-{}.png"),
        ("IMG_{}.png", "{}_label.png"),
    ],
)
def test_side_by_side_with_marks(tmp_path: Path, image: str, mask: str) -> None:
    for number in range(6):
        Image.fromarray(picture(number)).save(tmp_path / image.format(number))
        Image.fromarray(blob(number)).save(tmp_path / mask.format(number))
    (tmp_path / mask.format(5)).unlink()
    pairs = find_pairs(tmp_path)
    assert {(Path(str(pair.image)).name, Path(str(pair.mask)).name) for pair in pairs} == {
        (image.format(number), mask.format(number)) for number in range(5)
    }
    assert pairs.images_without_mask == (image.format(5),)


def test_a_photograph_of_a_mask_is_a_photograph(tmp_path: Path) -> None:
    for number in range(4):
        Image.fromarray(picture(number)).save(tmp_path / f"mask_{number}.jpg")
        Image.fromarray(picture(number + 9)).save(tmp_path / f"{number}.jpg")
    with pytest.raises(UserError, match="no masks that were recognised"):
        find_pairs(tmp_path)
