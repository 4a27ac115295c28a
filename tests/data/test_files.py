"""Which files are pictures, on disk and in zips."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from tests.data.pictures import picture

from qefpn.data import find_pairs, read_image
from qefpn.data.files import FORMATS, SUFFIXES, open_tree, passed_over
from qefpn.errors import UserError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_the_suffixes_are_those_of_the_formats_that_are_read() -> None:
    Image.init()
    ours = {*FORMATS, "MPO"}  # which the reader of JPEG opens
    assert set(SUFFIXES) == {suffix for suffix, kind in Image.registered_extensions().items() if kind in ours}
    assert {"JPEG", "PNG", "GIF", "PPM", "WEBP", "TIFF", "BMP"} <= set(FORMATS)
    assert not {"EPS", "ICO", "WMF", "PSD"} & set(FORMATS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_every_suffix_is_listed_and_read(suffix: str, tmp_path: Path) -> None:
    kind = next(kind for kind, suffixes in FORMATS.items() if suffix in suffixes)
    image = Image.fromarray(picture(1))
    path = tmp_path / f"a{suffix.upper()}"
    (image.convert("F") if suffix == ".pfm" else image).save(path, kind)
    assert open_tree(tmp_path).pictures == (path.name,)
    assert read_image(path).shape == (40, 56, 3)


def test_what_is_the_system_s_is_left_out_and_the_rest_is_named(tmp_path: Path) -> None:
    names = ["a.jpg", "b/c.PNG", "._a.jpg", "__MACOSX/a.jpg", ".hidden/a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"]
    touch(tmp_path, *names, "film.mp4", "train.txt", "b/raw.heic", "@eaDir/a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    tree = open_tree(tmp_path)
    assert tree.pictures == ("a.jpg", "b/c.PNG")
    assert tree.texts == ("train.txt",)
    assert tree.others == ("b/raw.heic", "film.mp4", "pipe.jpg")
    assert open_tree(tmp_path, recursive=False).pictures == ("a.jpg",)
    assert open_tree(tmp_path, leave=[tmp_path / "b"]).pictures == ("a.jpg",)
    assert passed_over(tree.others).endswith("3 files that do not end as pictures do: b/raw.heic, film.mp4, pipe.jpg")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in [*names, "film.mp4", "train.txt"]:
            archive.writestr(name, b"x")
    packed = open_tree(tmp_path / "a.zip")
    assert (packed.pictures, packed.texts, packed.others) == (tree.pictures, tree.texts, ("film.mp4",))


def test_links_are_followed_and_each_folder_is_listed_once(tmp_path: Path) -> None:
    deep = "/".join("abcdefghij")
    touch(tmp_path / "root", "real/x.jpg", f"{deep}/y.jpg")
    touch(tmp_path / "elsewhere", "z.jpg")
    (tmp_path / "root" / "a_link").symlink_to(tmp_path / "root" / "real")
    (tmp_path / "root" / "again").symlink_to(".")
    (tmp_path / "root" / "away").symlink_to("../elsewhere")
    (tmp_path / "root" / "gone.jpg").symlink_to("nothing.jpg")
    found = open_tree(tmp_path / "root").pictures
    assert {"real/x.jpg", f"{deep}/y.jpg", "away/z.jpg", "gone.jpg"} == set(found) and len(found) == 4
    (tmp_path / "link").symlink_to("root")
    assert open_tree(tmp_path / "link").pictures == found


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg", "closed/b.jpg")
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert open_tree(tmp_path).others == ("closed/",)
    with pytest.raises(UserError, match="closed cannot be listed: Permission denied"):
        open_tree(tmp_path / "closed")


def packed(path: Path, names: list[str], flag: int = 0x800) -> Path:
    """A zip of pictures whose names are as given, backslashes and all."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo("x")
            info.filename = name
            Image.fromarray(picture(number)).save(path.with_suffix(".png"))
            archive.writestr(info, path.with_suffix(".png").read_bytes())
    path.with_suffix(".png").unlink()
    return path


def test_a_zip_made_by_windows(tmp_path: Path) -> None:
    names = [f"set\\{folder}\\{name}.png" for folder in ("images", "masks") for name in ("a", "ü")]
    root = packed(tmp_path / "d.zip", names)
    pairs = find_pairs(root)
    assert [pair.name for pair in pairs] == ["a", "ü"]
    assert read_image(pairs[0].image).shape == read_image(str(pairs[1].mask)).shape == (40, 56, 3)


def test_names_in_a_zip_that_carry_no_encoding(tmp_path: Path) -> None:
    root = packed(tmp_path / "d.zip", ["images/XX.png", "masks/XX.png", "images/YY.png", "masks/YY.png"])
    data = root.read_bytes().replace(b"/XX.", "/é.".encode()).replace(b"/YY.", b"/\xff\x81.")
    root.write_bytes(data)
    assert zipfile.ZipFile(root).infolist()[0].flag_bits & 0x800 == 0
    pairs = find_pairs(root)
    assert len(pairs) == 2 and "é" in [pair.name for pair in pairs]
    assert all(read_image(pair.image).shape == (40, 56, 3) for pair in pairs)


def test_what_would_lie_outside_a_zip_is_not_listed(tmp_path: Path) -> None:
    root = packed(tmp_path / "d.zip", ["/images/a.png", "./masks//a.png", "images/../../b.png", "C:\\c.png"])
    with zipfile.ZipFile(root, "a") as archive:
        link = zipfile.ZipInfo("images/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    tree = open_tree(root)
    assert tree.pictures == ("images/a.png", "masks/a.png")
    assert tree.others == ("C:/c.png", "images/../../b.png", "images/link.png")
    assert all(read_image(tree.file(name)).shape == (40, 56, 3) for name in tree.pictures)


def test_a_file_too_long_for_a_picture_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "disk.jpg", "wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(UserError, match="1,024 GiB are too long for a picture"):
        read_image(tmp_path / "disk.jpg")
