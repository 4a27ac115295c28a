from __future__ import annotations

import csv
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.pictures import blob, picture

from qefpn.data import SaliencyDataModule, describe, find_pairs
from qefpn.data import integrity as integrity_module
from qefpn.data.integrity import check_pairs
from qefpn.data.survey import locate
from qefpn.errors import UserError

KINDS = {
    "picture without a mask": "images/p010.jpg",
    "mask without a picture": "masks/p011.png",
    "sizes differ": "p012",
    "unreadable picture": "p013",
    "unreadable mask": "p014",
    "empty mask": "p015",
    "mask that is all foreground": "p016",
    "tiny picture": "p017",
}


@pytest.fixture
def broken(make_set, tmp_path: Path) -> Path:
    """Ten good pairs, and one of each fault."""
    root = make_set(tmp_path / "mine", count=19)
    (root / "masks" / "p010.png").unlink()
    (root / "images" / "p011.jpg").unlink()
    Image.fromarray(blob(12, 40, 57)).save(root / "masks" / "p012.png")
    file = root / "images" / "p013.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    file = root / "masks" / "p014.png"
    file.write_bytes(file.read_bytes()[:60])
    Image.new("L", (56, 40), 0).save(root / "masks" / "p015.png")
    Image.new("L", (56, 40), 255).save(root / "masks" / "p016.png")
    Image.fromarray(picture(17, 40, 1)).save(root / "images" / "p017.jpg")
    Image.fromarray(blob(17)[:, 28:29]).save(root / "masks" / "p017.png")
    (root / "images" / "p018.jpg").write_text("not a picture\n" * 20)
    return root


def test_every_fault_is_found_counted_and_listed(broken: Path) -> None:
    usable, sizes, findings = check_pairs(find_pairs(broken))
    assert [pair.name for pair in usable] == [f"p{number:03d}" for number in range(10)]
    assert sizes == [(40, 56)] * 10
    assert Counter(finding.kind for finding in findings if finding.level == "error") == Counter(
        {kind: 1 for kind in KINDS} | {"unreadable picture": 2}
    )
    for kind, file in KINDS.items():
        assert any(finding.kind == kind and file in finding.file for finding in findings), kind
    details = {Path(finding.file).stem: finding.detail for finding in findings}
    assert "truncated" in details["p013"] and "not a picture" in details["p018"]
    assert details["p012"] == "picture 56x40, mask 57x40"


def test_fail_is_one_line_with_counts_examples_and_the_full_list(broken: Path) -> None:
    module = SaliencyDataModule(broken, train=None, test=[])
    with pytest.raises(UserError) as caught:
        module.prepare_data()
    text = str(caught.value)
    assert text.startswith("9 problems in the data (2 x unreadable picture, ") and "\n" not in text
    assert "data.on_error=skip" in text and "data.blank_masks=keep" in text
    listed = text.split("all of them: ")[1].split(";")[0]
    with open(listed, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9 and {row["kind"] for row in rows} == set(KINDS)


def test_skip_trains_on_the_rest_and_says_so(broken: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    module = SaliencyDataModule(
        broken, train=None, test=[], on_error="skip", val_fraction=0.0, batch_size=5, image_size=64,
        num_workers=0, findings_file=tmp_path / "run" / "findings.csv",
    )  # fmt: skip
    with caplog.at_level("WARNING"):
        module.setup("fit")
    assert "9 findings in the data, of which 7 left out" in caplog.text
    assert (tmp_path / "run" / "findings.csv").exists()
    assert sorted(name for batch in module.train_dataloader() for name in batch["name"]) == [
        f"p{number:03d}" for number in range(10)
    ]


def test_blank_masks(broken: Path) -> None:
    pairs = find_pairs(broken)
    kept, _, findings = check_pairs(pairs, blank_masks="keep")
    assert {"p015", "p016"} <= {pair.name for pair in kept}
    assert {f.level for f in findings if f.kind in ("empty mask", "mask that is all foreground")} == {"warning"}
    tested, _, findings = check_pairs(pairs, role="test")  # the protocols say what a blank mask scores
    assert {"p015", "p016"} <= {pair.name for pair in tested} and len(tested) == 12


def test_faint_mask_is_called_empty_and_explained(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s")
    Image.fromarray(blob(0) // 255 * 100).save(root / "masks" / "p000.png")
    _, _, findings = check_pairs(find_pairs(root))
    assert [finding.kind for finding in findings] == ["empty mask"]
    assert "brightest value is 100" in findings[0].detail


def test_turned_sizes_point_at_exif(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0)).save(root / "images" / "p000.jpg", exif=exif)
    _, _, findings = check_pairs(find_pairs(root))
    assert findings[0].kind == "sizes differ" and "EXIF" in findings[0].detail


def test_second_start_reads_no_picture(make_set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_set(tmp_path / "s", count=6)
    first = check_pairs(find_pairs(root))
    looked: list[str] = []
    original = integrity_module.picture_size
    monkeypatch.setattr(integrity_module, "picture_size", lambda file: looked.append(str(file)) or original(file))
    assert check_pairs(find_pairs(root)) == first and looked == []
    file = root / "images" / "p002.jpg"
    file.write_bytes(file.read_bytes()[:-150])
    os.utime(file, ns=(time.time_ns(), time.time_ns()))
    _, _, findings = check_pairs(find_pairs(root))
    assert looked == [str(file)] and findings[0].kind == "unreadable picture"


def test_no_cache_folder_is_no_hindrance(make_set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QEFPN_CACHE", str(tmp_path / "file" / "below"))
    usable, _, _ = check_pairs(find_pairs(make_set(tmp_path / "s")))
    assert len(usable) == 3


def test_damaged_zip_member(make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "in" / "s")
    archive = Path(shutil.make_archive(str(tmp_path / "s"), "zip", tmp_path / "in"))
    pairs = find_pairs(archive)
    data = bytearray(archive.read_bytes())
    start = data.find(b"s/images/p001.jpg")
    data[start + 300 : start + 340] = bytes(40)
    archive.write_bytes(bytes(data))
    from qefpn.data import files

    files._open_archives.clear()
    usable, _, findings = check_pairs(pairs)
    assert [pair.name for pair in usable] == ["p000", "p002"] and findings[0].kind == "unreadable picture"


def test_progress_counts_every_file(make_set, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    check_pairs(find_pairs(make_set(tmp_path / "s")), progress=lambda *call: calls.append(call))
    assert calls[-1] == ("checking s", 6, 6)


def test_known_defects_of_official_sets_do_not_stop_a_run(make_set, tmp_path: Path) -> None:
    for name, picture_name in (
        ("DUTS-TR", "n04442312_17818"),
        ("DUTS-TE", "ILSVRC2012_test_00036002"),
    ):
        root = make_set(tmp_path / name, "Image", "Mask")
        Image.fromarray(picture(9)).save(root / "Image" / f"{picture_name}.jpg")
        Image.fromarray(blob(9, 44, 56)).save(root / "Mask" / f"{picture_name}.png")
    report = describe(tmp_path)
    assert [one.name for one in report.sets] == ["DUTS-TR", "DUTS-TE"]
    assert not report.errors and len(report.findings) == 2
    assert "official release" in report.findings[0].detail
    assert [len(one.usable) for one in report.sets] == [3, 4]
    assert report.lines()[0].startswith("DUTS-TR: 4 pairs (the official set has 10553)")


def test_locate(make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "dut_omron")
    make_set(tmp_path / "more" / "HKUIS", "imgs", "gt")
    make_set(tmp_path / "in" / "ECSSD")
    shutil.make_archive(str(tmp_path / "ECSSD-3"), "zip", tmp_path / "in")
    shutil.rmtree(tmp_path / "in")
    assert locate(tmp_path, "DUT-OMRON") == tmp_path / "dut_omron"
    assert locate(tmp_path, "HKU-IS") == tmp_path / "more" / "HKUIS"
    assert locate(tmp_path, "ECSSD") == tmp_path / "ECSSD-3.zip"
    assert locate(tmp_path / "dut_omron", "DUT-OMRON") == tmp_path / "dut_omron"
    assert locate("/nowhere", str(tmp_path / "more")) == tmp_path / "more"
    report = describe(tmp_path)
    assert {one.name: one.found for one in report.sets} == {"DUT-OMRON": 3, "HKU-IS": 3, "ECSSD": 3}
    assert not report.findings and report.findings_file is None
    with pytest.raises(UserError, match=r"no data set DUT-OMRONN .* did you mean dut_omron"):
        locate(tmp_path, "DUT-OMRONN")
    with pytest.raises(UserError, match=r"no data set PASCAL-S at data\.root=.*there is .*ECSSD-3, .*dut_omron, more"):
        locate(tmp_path, "PASCAL-S")
    with pytest.raises(UserError, match=r"data\.root=.*does not exist"):
        locate(tmp_path / "gone", "ECSSD")


def test_describe_finds_published_and_other_sets(make_set, tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_set(root / "ECSSD", "images", "gt")
    make_set(root / "my pictures", "photos", "labels", count=2)
    make_set(root / "side", "", "", count=1)
    (root / "ECSSD-results").mkdir()
    Image.new("L", (9, 9)).save(root / "ECSSD-results" / "a.png")
    assert [one.name for one in describe(root).sets] == ["ECSSD", "my pictures", "side"]
    shutil.rmtree(root / "ECSSD")
    assert [one.name for one in describe(root).sets] == ["my pictures", "side"]
    with pytest.raises(UserError, match="no data set ECSSD"):
        locate(root, "ECSSD")
    (root / "nothing").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        describe(root / "nothing")


def test_describe_a_folder_of_ones_own(make_set, tmp_path: Path) -> None:
    report = describe(make_set(tmp_path / "mine"), check=False)
    assert [(one.name, one.layout, one.found, one.checked) for one in report.sets] == [
        ("mine", "images/masks", 3, False)
    ]
    assert report.sets[0].to_dict()["official"] is None


@pytest.mark.slow
def test_ten_thousand_verdicts_are_read_back_quickly(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s", count=1)
    for number in range(1, 10000):
        os.link(root / "images" / "p000.jpg", root / "images" / f"q{number}.jpg")
        os.link(root / "masks" / "p000.png", root / "masks" / f"q{number}.png")
    usable, _, _ = check_pairs(find_pairs(root))
    start = time.perf_counter()
    again, _, _ = check_pairs(find_pairs(root))
    assert time.perf_counter() - start < 5 and len(again) == len(usable) == 10000
    assert np.all([one.name for one in again] == [one.name for one in usable])
