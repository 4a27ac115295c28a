"""Sets that come split: by folders, by lists, by folders within their folders; and the same pictures on two sides."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from qefpn.data import SaliencyDataModule, describe
from qefpn.errors import UserError


def build(root: Path | None, **options: Any) -> SaliencyDataModule:
    module = SaliencyDataModule(
        root, train=None, test=None, image_size=32, batch_size=2, num_workers=0, findings_file=None, **options
    )
    module.setup("fit")
    return module


def counts(module: SaliencyDataModule) -> tuple[int, int, dict[str, int]]:
    return len(module.train_pairs), len(module.val_pairs), {k: len(v) for k, v in module.test_pairs.items()}


def split_set(make_set, root: Path, form: str) -> Path:
    """8 pictures to train on, 3 to validate and 2 to test."""
    ranges = {"train": (0, 8), "val": (8, 3), "test": (11, 2)}
    if form == "folders":
        for name, (start, count) in ranges.items():
            make_set(root / name, count=count, start=start)
    elif form == "inner folders":
        for name, (start, count) in ranges.items():
            make_set(root, f"images/{name}", f"masks/{name}", count=count, start=start)
    else:
        make_set(root, count=13)
        for name, (start, count) in ranges.items():
            (root / f"{name}.txt").write_text("\n".join(f"p{n:03d}" for n in range(start, start + count)))
    return root


FORMS = ("folders", "inner folders", "lists")


@pytest.mark.parametrize("form", FORMS)
def test_each_part_is_used_as_it_is_called(make_set, tmp_path: Path, form: str) -> None:
    module = build(split_set(make_set, tmp_path / "s", form))
    train, val, test = counts(module)
    assert (train, val, sum(test.values())) == (8, 3, 2)
    assert {pair.name[-4:] for pair in module.val_pairs} == {"p008", "p009", "p010"}
    assert {p.name[-4:] for pairs in module.test_pairs.values() for p in pairs} == {"p011", "p012"}


@pytest.mark.parametrize("name", ["valid", "Validation", "VAL"])
def test_spellings_of_val(make_set, tmp_path: Path, name: str) -> None:
    root = split_set(make_set, tmp_path / "s", "folders")
    (root / "val").rename(root / name)
    assert counts(build(root))[1] == 3


@pytest.mark.parametrize("form", FORMS)
def test_val_that_is_not_used_is_said(make_set, tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        module = build(split_set(make_set, tmp_path / "s", form), val_fraction=0.0)
    assert counts(module)[:2] == (8, 0)
    assert "is not used, as data.val_fraction=0" in caplog.text


def test_val_beside_named_folders_is_said(make_set, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = split_set(make_set, tmp_path / "s", "folders")
    with caplog.at_level(logging.WARNING):
        SaliencyDataModule(root, train=["train"], test=["test"], image_size=32, num_workers=0).setup("fit")
    assert "val/ is not used: training pictures are held out" in caplog.text


def test_without_test_val_is_the_test_set(make_set, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = split_set(make_set, tmp_path / "s", "folders")
    shutil.rmtree(root / "test")
    with caplog.at_level(logging.WARNING):
        assert counts(build(root)) == (7, 1, {"val": 3})
    assert "val/ is the test set" in caplog.text


def test_a_test_folder_without_masks_is_said(make_set, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = split_set(make_set, tmp_path / "s", "folders")
    shutil.rmtree(root / "test" / "masks")
    with caplog.at_level(logging.WARNING):
        assert counts(build(root))[2] == {"val": 3}
    assert "test/ is not used: no pictures with masks" in caplog.text


def test_the_same_pictures_are_found_by_content(make_set, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = split_set(make_set, tmp_path / "s", "folders")
    for part, other in (("test", "renamed"), ("val", "again")):
        for kind, suffix in (("images", ".jpg"), ("masks", ".png")):
            shutil.copy(root / "train" / kind / f"p003{suffix}", root / part / kind / f"{other}{suffix}")
    with caplog.at_level(logging.WARNING):
        build(root)
    assert (
        "1 test pictures are training pictures too: their scores say nothing about new ones (test/renamed)"
        in caplog.text
    )
    assert "1 validation pictures are training pictures too" in caplog.text
    zipped = shutil.make_archive(str(root / "test"), "zip", root / "test")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        module = SaliencyDataModule(root, train=["train"], test=[zipped], image_size=32, num_workers=0)
        module.setup("fit")
    assert "1 test pictures are training pictures too" in caplog.text


def test_no_warning_without_shared_pictures(make_set, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build(split_set(make_set, tmp_path / "s", "folders"))
    assert "pictures too" not in caplog.text


def test_lists_of_no_set_are_refused(make_set, tmp_path: Path) -> None:
    for name in ("ECSSD", "DUTS-TR"):
        make_set(tmp_path / name, count=4)
    (tmp_path / "few.txt").write_text("p001\np002\n")
    options = {"train": ["DUTS-TR"], "test": ["ECSSD"], "image_size": 32, "num_workers": 0}
    with pytest.raises(
        UserError, match=r"data.lists names ECSS, and the data sets are DUTS-TR, ECSSD; did you mean ECSSD"
    ):
        SaliencyDataModule(tmp_path, lists={"ECSS": "few.txt"}, **options).setup("test")
    module = SaliencyDataModule(tmp_path, lists={"ecssd": "few.txt", "DUTS_TR": "few.txt"}, **options)
    module.setup("test")
    assert len(module.test_pairs["ECSSD"]) == 2
    with pytest.raises(UserError, match="two lists for ECSSD"):
        SaliencyDataModule(tmp_path, lists={"ecssd": "few.txt", "ECSSD": "few.txt"}, **options).setup("test")
    with pytest.raises(UserError, match="data.lists names b"):
        describe(tmp_path / "ECSSD", lists={"b": "few.txt"}, check=False)
    for name in (".", "ECSSD"):
        assert describe(tmp_path / "ECSSD", lists={name: "../few.txt"}, check=False).sets[0].found == 2


def test_names_in_other_scripts_are_not_one(make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "猫", count=2)
    make_set(tmp_path / "犬", count=3)
    assert {one.name: one.found for one in describe(tmp_path, check=False).sets} == {"猫": 2, "犬": 3}
    assert describe(tmp_path, ["犬"], check=False).sets[0].found == 3
    with pytest.raises(UserError, match="no data set 鳥"):
        describe(tmp_path, ["鳥"], check=False)


@pytest.mark.parametrize(
    ("name", "command"),
    [("ECSSD.tar.gz", "tar -xf"), ("ECSSD.tgz", "tar -xf"), ("ECSSD.tar.xz", "tar -xf"), ("ECSSD.tar", "tar -xf"),
     ("ECSSD.rar", "unrar x"), ("ecssd.7z", "7z x"), ("ECSSD-images.tar.bz2", "tar -xf")],
)  # fmt: skip
def test_archives_are_named_with_their_command(tmp_path: Path, name: str, command: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    for root, sets in ((tmp_path, ["ECSSD"]), (tmp_path / name, None)):
        with pytest.raises(UserError, match=rf"{name} is an archive.*`{command}"):
            describe(root, sets, check=False)


def test_what_is_no_set_is_said(make_set, tmp_path: Path) -> None:
    for name in ("mine", "yours"):
        make_set(tmp_path / name)
    make_set(tmp_path / "two masks", "images", "x", mask_suffix=".jpg")
    make_set(tmp_path / "two masks", "images", "y", mask_suffix=".jpg")
    (tmp_path / "HKU-IS.rar").write_bytes(b"Rar!")
    (tmp_path / "notes").mkdir()
    report = describe(tmp_path, check=False)
    assert [one.name for one in report.sets] == ["mine", "yours"]
    assert len(report.notes) == 2
    assert "HKU-IS.rar is an archive" in report.notes[0] and "say which with data.layout" in report.notes[1]


@pytest.mark.parametrize("check", [True, False])
def test_what_does_not_pair_is_counted(make_set, tmp_path: Path, check: bool) -> None:
    root = make_set(tmp_path / "s", count=5)
    (root / "masks" / "p003.png").unlink()
    (root / "few.txt").write_text("p000\nnowhere\np003\n")
    line = describe(root, lists={".": "few.txt"}, check=check).lines()[0]
    assert "which leaves out 3 pairs" in line
    assert "1 x picture without a mask" in line and "1 x listed but not there" in line
