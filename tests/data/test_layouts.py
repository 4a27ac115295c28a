from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qefpn.data import find_pairs, read_image, read_mask
from qefpn.data.files import ZipMember, open_tree
from qefpn.errors import UserError


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("DUTS-TR-Image", "DUTS-TR-Mask"),
        ("Image", "Mask"),
        ("image", "mask"),
        ("images", "ground_truth_mask"),
        ("images", "GT"),
        ("imgs", "gt"),
        ("Imgs", "GT"),
        ("images", "masks"),
        ("images", "segmentations"),
        ("im", "gt"),
        ("img", "gt_mask"),
        ("DUT-OMRON-image", "pixelwiseGT-new-PASCAL"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_two_folders_of_any_known_name(make_set, tmp_path: Path, images: str, masks: str, nested: bool) -> None:
    root = tmp_path / "SET"
    make_set(root / "SET" if nested else root, images, masks)
    pairs = find_pairs(root)
    assert pairs.layout == ("SET/" if nested else "") + f"{images}/{masks}"
    assert [pair.name for pair in pairs] == ["p000", "p001", "p002"]
    assert Path(str(pairs[1].image)).parent.name == images
    assert Path(str(pairs[1].mask)).parent.name == masks
    assert not (pairs.images_without_mask or pairs.masks_without_image or pairs.duplicates)
    assert {pair.dataset for pair in pairs} == {"SET"}


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG", ".bmp", ".BMP"])
def test_suffixes_in_any_case(make_set, tmp_path: Path, suffix: str) -> None:
    make_set(tmp_path / "s", image_suffix=suffix, mask_suffix=".PNG")
    pairs = find_pairs(tmp_path / "s")
    assert len(pairs) == 3 and str(pairs[0].image).endswith(suffix)


def test_side_by_side_takes_the_jpeg_for_the_picture(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s", "", "")
    (root / "p001.png").unlink()
    (root / "p002.jpg").unlink()
    pairs = find_pairs(root)
    assert "side by side" in pairs.layout
    assert [pair.name for pair in pairs] == ["p000"]
    assert str(pairs[0].image).endswith(".jpg") and str(pairs[0].mask).endswith(".png")
    assert pairs.images_without_mask == ("p001.jpg",)
    assert pairs.masks_without_image == ("p002.png",)


def test_side_by_side_one_level_deeper(make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "s", "Imgs", "Imgs")
    pairs = find_pairs(tmp_path / "s")
    assert pairs.layout == "Imgs: pictures and masks side by side" and len(pairs) == 3


@pytest.mark.parametrize("ending", ["_mask.png", "_gt.png", "-GT.png", "_segmentation.png"])
def test_side_by_side_with_marked_masks(make_set, tmp_path: Path, ending: str) -> None:
    make_set(tmp_path / "s", "", "", image_suffix=".png", mask_suffix=ending)
    pairs = find_pairs(tmp_path / "s")
    assert [pair.name for pair in pairs] == ["p000", "p001", "p002"]
    assert all(str(pair.mask).endswith(ending) for pair in pairs)


def test_masks_folder_with_marked_names_and_other_case(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s", mask_suffix="_mask.png")
    (root / "masks" / "p001_mask.png").rename(root / "masks" / "P001_Mask.png")
    assert [pair.name for pair in find_pairs(root)] == ["p000", "p001", "p002"]


def test_names_what_does_not_pair(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s", count=5)
    (root / "images" / "p003.jpg").unlink()
    (root / "masks" / "p004.png").unlink()
    shutil.copy(root / "images" / "p000.jpg", root / "images" / "p000.png")
    pairs = find_pairs(root)
    assert [pair.name for pair in pairs] == ["p000", "p001", "p002"]
    assert pairs.images_without_mask == ("images/p004.jpg",)
    assert pairs.masks_without_image == ("masks/p003.png",)
    assert pairs.duplicates == ("images/p000.png",)
    assert str(pairs[0].image).endswith("p000.jpg")


def test_folders_inside_the_picture_folder(make_set, tmp_path: Path) -> None:
    """PASCAL-S comes as imgs/pascal and masks/pascal; names do not repeat what all share."""
    make_set(tmp_path / "s", "imgs/pascal", "masks/pascal")
    pairs = find_pairs(tmp_path / "s")
    assert pairs.layout == "imgs/masks" and [pair.name for pair in pairs] == ["p000", "p001", "p002"]
    make_set(tmp_path / "t", "imgs/a", "masks/a")
    make_set(tmp_path / "t", "imgs/b", "masks/b", count=1)
    assert [pair.name for pair in find_pairs(tmp_path / "t")] == ["a/p000", "a/p001", "a/p002", "b/p000"]


def test_zip_is_read_in_place(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "in" / "ECSSD", "images", "ground_truth_mask")
    (root / "images" / "._p000.jpg").write_bytes(b"resource fork")
    archive = shutil.make_archive(str(tmp_path / "ECSSD-3"), "zip", tmp_path / "in")
    before = sorted(tmp_path.iterdir())
    pairs, plain = find_pairs(archive), find_pairs(root)
    assert pairs.layout == "ECSSD/images/ground_truth_mask, read inside the zip"
    assert [pair.name for pair in pairs] == [pair.name for pair in plain]
    assert isinstance(pairs[0].image, ZipMember)
    for one, other in zip(pairs, plain, strict=True):
        assert np.array_equal(read_image(one.image), read_image(other.image))
        assert np.array_equal(read_mask(one.mask), read_mask(other.mask))
    assert np.array_equal(read_image(str(pairs[0].image)), read_image(plain[0].image))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "text",
    [
        "p001\np003\n",
        "p001.jpg\np003.jpg",
        "# names\n\nimages/p001.jpg masks/p001.png\nimages/p003.jpg masks/p003.png\n",
    ],
)
def test_list_file(make_set, tmp_path: Path, text: str) -> None:
    root = make_set(tmp_path / "s", count=5)
    (root / "some.txt").write_text(text)
    pairs = find_pairs(root, list_file="some.txt")
    assert [pair.name for pair in pairs] == ["p001", "p003"]
    assert pairs.unlisted == 3 and pairs.layout == "images/masks, list some.txt"
    outside = tmp_path / "elsewhere.txt"
    outside.write_text(text)
    assert [pair.name for pair in find_pairs(root, list_file=outside)] == ["p001", "p003"]


def test_list_file_names_what_is_missing(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s", count=4)
    (root / "masks" / "p003.png").unlink()
    (root / "l.txt").write_text("p000\np003\nno such picture\n")
    pairs = find_pairs(root, list_file="l.txt")
    assert pairs.missing == ("no such picture",)
    assert pairs.images_without_mask == ("images/p003.jpg",)
    with pytest.raises(UserError, match="neither in .* nor beside"):
        find_pairs(root, list_file="gone.txt")
    (root / "l.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="names no picture"):
        find_pairs(root, list_file="l.txt")


def test_split_uses_a_list_beside_the_pictures_if_it_is_one(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s" / "DUTS", "image", "mask", count=4).parent
    (root / "DUTS" / "train.txt").write_text("p000\np001\n")
    (root / "DUTS" / "test.txt").write_text("notes on testing\n")
    assert [pair.name for pair in find_pairs(root, split="train")] == ["p000", "p001"]
    assert len(find_pairs(root, split="test")) == 4
    assert len(find_pairs(root)) == 4


def test_several_sets_need_a_name(make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "a")
    make_set(tmp_path / "b", "imgs", "gt", count=2)
    with pytest.raises(UserError, match=r"holds 2 data sets \(a, b\)"):
        find_pairs(tmp_path)
    assert len(find_pairs(tmp_path, name="b")) == 2
    both = tmp_path / "DUTS"
    make_set(both, "DUTS-TR-Image", "DUTS-TR-Mask")
    make_set(both, "DUTS-TE-Image", "DUTS-TE-Mask", count=2)
    assert find_pairs(both, name="DUTS-TE").layout == "DUTS-TE-Image/DUTS-TE-Mask"


def test_the_folder_that_pairs_best_is_the_mask_folder(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s", "images", "GT")
    make_set(root, "images", "masks", count=1)
    pairs = find_pairs(root)
    assert pairs.layout == "images/GT (masks left aside)" and len(pairs) == 3


def test_unknown_folder_names_by_layout(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s", "bilder", "wahrheit", mask_suffix=".jpg")
    make_set(root, "bilder", "wahrheit2", mask_suffix=".jpg")
    with pytest.raises(UserError, match="bilder/wahrheit or bilder/wahrheit2; say which with data.layout="):
        find_pairs(root)
    assert len(find_pairs(root, layout="bilder/wahrheit")) == 3
    with pytest.raises(UserError, match="no pictures in"):
        find_pairs(root, layout="bilder/nichts")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        find_pairs(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        find_pairs(tmp_path / "empty")
    (tmp_path / "x.zip").write_bytes(b"PK not really")
    with pytest.raises(UserError, match="neither a folder nor a readable zip"):
        find_pairs(tmp_path / "x.zip")


def test_links_in_a_circle_end(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s")
    (root / "images" / "again").symlink_to(root)
    assert len(find_pairs(root)) == 3


def test_hidden_files_are_no_pictures(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s")
    (root / "images" / "._p000.jpg").write_bytes(b"x")
    (root / "images" / "Thumbs.db").write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    Image.new("L", (9, 9)).save(root / "__MACOSX" / "a.png")
    assert len(find_pairs(root)) == 3 and not find_pairs(root).images_without_mask


@pytest.mark.parametrize(
    "hostile",
    ["../{}", "/etc/{}", "../../../../tmp/{}", "a/../../../{}", "..\\..\\{}", "C:\\{}", "\\\\host\\share\\{}"],
)
def test_a_hostile_zip_leads_nowhere(make_set, tmp_path: Path, hostile: str) -> None:
    """No name of a pair, under which maps are saved, leaves its folder, whatever the members are called."""
    root = make_set(tmp_path / "s")
    archive = tmp_path / "s.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(root.rglob("p*")):
            target.write(path, hostile.format(path.relative_to(root).as_posix()))
            target.write(path, f"good/{path.relative_to(root).as_posix()}")
    try:
        pairs = find_pairs(archive)
    except UserError as error:
        assert str(archive) in str(error)
        return
    for pair in pairs:
        saved = (tmp_path / "maps" / f"{pair.name}.png").resolve()
        assert saved.is_relative_to(tmp_path / "maps")
    assert not list(tmp_path.parent.glob("p00*"))


def test_links_in_a_zip_are_not_followed(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s")
    secret = tmp_path / "secret.png"
    Image.new("L", (9, 9), 255).save(secret)
    (root / "masks" / "p001.png").unlink()
    (root / "masks" / "p001.png").symlink_to(secret)
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as target:
        for path in sorted(root.rglob("p*")):
            info = zipfile.ZipInfo(path.relative_to(root).as_posix())
            if path.is_symlink():
                info.external_attr = 0o120777 << 16
                target.writestr(info, str(secret))
            else:
                target.writestr(info, path.read_bytes())
    pairs = find_pairs(tmp_path / "s.zip")
    assert [pair.name for pair in pairs] == ["p000", "p002"]
    assert "masks/p001.png" in open_tree(tmp_path / "s.zip").others
    with pytest.raises(UserError, match="not in the archive"):
        read_mask(f"{tmp_path}/s.zip!/masks/p001.png")
