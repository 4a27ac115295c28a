"""Folders of broken and strange files: a line each for what cannot be read, a result for all else."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from tests.commands.runs import words
from tests.data.bad_files import SIDE, write_bad_files
from tests.data.pictures import blob, picture

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


def with_bad_files(root: Path, what: str) -> dict[str, bool]:
    """A set of which the pictures or masks (``what``) are all bad files and twelve sound ones; the others are sound.

    Returns:
        name of each file → whether it can be read.
    """
    draw, other, draw_other = (picture, "masks", blob) if what == "images" else (blob, "images", picture)
    expected = write_bad_files(root / what)
    for number in range(12):
        expected[f"sound {number}.png"] = True
        Image.fromarray(draw(number, SIDE[1], SIDE[0])).save(root / what / f"sound {number}.png")
    (root / other).mkdir()
    for number, name in enumerate(expected):
        Image.fromarray(draw_other(number, SIDE[1], SIDE[0])).save(root / other / f"{Path(name).stem}.png")
    return expected


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def in_text(name: str) -> str:
    """As it stands in a text file: what is no character is its escape."""
    return name.encode(errors="backslashreplace").decode()


def check_findings(path: Path, expected: dict[str, bool], what: str) -> set[str]:
    """A finding for each file that cannot be read, in one line; the stems of all files that were left out."""
    found = [row for row in rows(path) if row["level"] == "error"]
    unreadable = [row for row in found if row["kind"] == f"unreadable {what}"]
    assert all(row["detail"] and "\n" not in row["detail"] for row in unreadable)
    assert Counter(Path(row["file"]).name for row in unreadable) == {
        in_text(name): 1 for name, readable in expected.items() if not readable
    }
    return {Path(row["file"]).stem for row in found}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["images", "masks"])
def test_evaluate_scores_what_is_sound(
    what: str, tmp_path: Path, tiny_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = with_bad_files(tmp_path / "d", what)
    argv = ["evaluate", f"checkpoint={tiny_run}/checkpoints/best.ckpt", f"data.root={tmp_path}/d"]
    argv += [f"output={tmp_path}/out", "data.image_size=32", "floors=false"]
    assert main(argv) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "data.on_error=skip" in line
    assert main([*argv, "data.on_error=skip"]) == 1
    assert "Traceback" not in "".join(capfd.readouterr())
    left_out = check_findings(tmp_path / "out" / "findings.csv", expected, "picture" if what == "images" else "mask")
    scored = {row["name"] for row in rows(tmp_path / "out" / "scores.csv")}
    assert scored == {in_text(Path(name).stem) for name in expected} - left_out
    assert {f"sound {number}" for number in range(12)} <= scored and len(scored) > 30
    assert len(list((tmp_path / "out" / "maps").rglob("*.png"))) == len(scored)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["images", "masks"])
def test_train_learns_from_what_is_sound(what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = with_bad_files(tmp_path / "d", what)
    argv = words(tmp_path / "run", tmp_path / "d", "data=folder", "data.test_fraction=0.3", "trainer.max_steps=2")
    argv += ["data.image_size=32", "data.scales=[32]", "data.batch_size=4", "data.num_workers=0"]
    assert main(argv) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "data.on_error=skip" in line
    assert main([*argv, "data.on_error=skip"]) == 0
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    left_out = check_findings(tmp_path / "run" / "findings.csv", expected, "picture" if what == "images" else "mask")
    scored = {row["name"] for row in rows(tmp_path / "run" / "scores.csv")}
    sound = {in_text(Path(name).stem) for name in expected} - left_out
    assert scored and scored < sound
    held = int(next(line for line in out.splitlines() if line.startswith("training on ")).split()[4])
    assert f"training on {len(sound) - len(scored) - held} pictures, {held} for validation" in out


@pytest.mark.slow
@pytest.mark.parametrize("what", ["maps", "masks"])
def test_benchmark_scores_what_is_sound(what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = with_bad_files(tmp_path / "d", "masks")
    if what == "maps":
        (tmp_path / "d" / "masks").rename(tmp_path / "maps")
        (tmp_path / "d" / "masks").mkdir()
    else:
        (tmp_path / "maps").mkdir()
    made = tmp_path / ("d/masks" if what == "maps" else "maps")
    for number, name in enumerate(expected):
        Image.fromarray(blob(number, SIDE[1], SIDE[0])).save(made / f"{Path(name).stem}.png")
    argv = ["benchmark", f"maps={tmp_path}/maps", f"data.root={tmp_path}/d", f"output={tmp_path}/out", "workers=1"]
    assert main([*argv, "resamples=0"]) == 1
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    lines = (tmp_path / "out" / "findings.txt").read_text(encoding="utf-8").splitlines()
    failed = [line for line in lines if " was not scored: " in line]
    scored = {row["name"] for row in rows(tmp_path / "out" / "scores.csv")}
    for name, readable in expected.items():
        stem = Path(name).stem
        about = [line for line in failed if f": {one_line(stem)} was not scored: " in line]
        assert len(about) == (in_text(stem) not in scored), (name, about)
        assert readable or about
    assert {f"sound {number}" for number in range(12)} <= scored and len(scored) > 30
