"""Folders of broken and strange files: a line each for what cannot be read, a result for all else."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image
from tests.data.bad_files import write_bad_files

from qefpn.cli import main
from qefpn.text import one_line


def test_predict_over_a_folder_of_bad_files(tmp_path: Path, tiny_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = write_bad_files(tmp_path / "in")
    refused = [name for name, readable in expected.items() if not readable]
    assert len(refused) >= 50 and len(expected) >= 90
    words = [f"checkpoint={tiny_run}/checkpoints/best.ckpt", f"input={tmp_path}/in", f"output={tmp_path}/out"]
    assert main(["predict", *words, "image_size=32"]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert "Traceback" not in "".join(lines)
    for name in refused:
        about = [line for line in lines if one_line(f"/in/{name}: ") in line]
        assert len(about) == 1, (name, about)
    assert len(lines) == len(refused)
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(made) == len(expected) - len(refused)
    assert Image.open(tmp_path / "out" / "one_pixel_wide.png").size == (1, 900)


def test_verify_names_every_bad_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = write_bad_files(tmp_path / "d" / "images")
    mask = Image.new("L", (48, 40))
    mask.paste(255, (10, 10, 20, 20))
    (tmp_path / "d" / "masks").mkdir()
    for name in expected:
        mask.save(tmp_path / "d" / "masks" / f"{Path(name).stem}.png")
    found = tmp_path / "findings.csv"
    assert main(["data", "verify", f"data.root={tmp_path}/d", f"output={found}"]) == 1
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err and err == ""
    with found.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "unreadable picture"]
    assert {Path(row["file"]).name for row in rows} == {name for name, readable in expected.items() if not readable}
    assert len(rows) == len({row["file"] for row in rows})
    assert all(row["detail"] and "\n" not in row["detail"] for row in rows)
