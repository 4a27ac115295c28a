"""Pictures and folders of any name go through every command, and each is found again in what it writes."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.commands.runs import words
from tests.data.pictures import blob, picture

from qefpn.cli import main
from qefpn.text import one_line

NAMES = [
    *("two words", "two\nlines", 'it\'s "so"', "a=b", "a,b", "-x", "--help", "#1", "100% %s", "long" * 50, "字 é"),
    *("${seed}", "{a}", "[b]", "(c)", "~x", "$HOME", "back\\slash", "null", "???", "a.b", "&amp;<b>", "=1+1"),
    *("*", "a|b;c&d", "\ttab", "\x1b[31m", os.fsdecode(b"raw \xff\xfe"), "end. ", "!x", "@x", "^", "`id`", "CON"),
]
FOLDERS = [
    '-it\'s a "set", a=b #1 100% {x} ${y} [z]\n2 ' + os.fsdecode(b"\xff"),
    "long" * 50,
    "--help",
]


def texts(names: list[str]) -> list[str]:
    """As they stand in a text file: what is no character is its escape."""
    return sorted(name.encode(errors="backslashreplace").decode() for name in names)


def column(path: Path, name: str) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row[name] for row in csv.DictReader(file)]


def draw(folder: Path, start: int) -> Path:
    for kind, make in (("images", picture), ("masks", blob)):
        (folder / kind).mkdir(parents=True)
        for number, name in enumerate(NAMES, start):
            with (folder / kind / f"{name}.png").open("wb") as stream:
                Image.fromarray(make(number)).save(stream, "PNG")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=["all in one", "long", "a flag"])
def test_every_command(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    home = Path(folder)  # relative: values begin with a dash, names of data sets hold quotes
    training, tests = draw(home / f"{folder[:40]} tr", 0), draw(home / f"{folder[:40]} te", 100)
    run, out = Path(folder.replace("${", "$")) / "run", home / "out"  # there ${ keeps its meaning
    sets = [f"data.{role}=['{quoted(name.name)}']" for role, name in (("train", training), ("test", tests))]
    argv = words(run, home, "data=folder", *sets, "trainer.max_steps=2", "warmup.steps=1", "data.image_size=32")
    argv += ["data.scales=[32]", "data.batch_size=4", "data.num_workers=0", "data.val_fraction=0.8"]
    if "\udcff" not in folder:
        assert main([*argv, "logger=tensorboard", "logger.pictures=64"]) == 0
        events = b"".join(path.read_bytes() for path in (run / "tensorboard").iterdir() if path.is_file())
        assert sum(f"val_pictures/{one_line(name)}".encode() in events for name in NAMES) > 20
    else:
        assert main([*argv, "logger=tensorboard"]) == 2
        assert "hydra.run.dir" in capfd.readouterr().err
        assert main(argv) == 0
    assert texts(NAMES) == sorted(column(run / "scores.csv", "name"))

    checkpoint = f"checkpoint={run}/checkpoints/best.ckpt"
    assert main(["evaluate", checkpoint, f"data.root={tests}", f"output={out}/evaluated"]) == 0
    assert texts(NAMES) == sorted(column(out / "evaluated" / "scores.csv", "name"))
    maps = sorted((out / "evaluated" / "maps").rglob("*.png"))
    assert sorted(path.name for path in maps) == sorted(f"{name}.png" for name in NAMES)

    assert main(["predict", checkpoint, f"input={tests}/images", f"output={out}/predicted"]) == 0
    assert sorted(os.listdir(out / "predicted")) == sorted(f"{name}.png" for name in NAMES)

    shutil.copytree(maps[0].parent, home / "maps" / folder)
    argv = ["benchmark", f"maps={home}/maps", f"data.root={tests}", f"output={out}/scored", "resamples=0"]
    assert main([*argv, "figures=false", "page=false", "workers=1"]) == 0
    assert texts(NAMES) == sorted(column(out / "scored" / "scores.csv", "name"))
    assert {*column(out / "scored" / "scores.csv", "method")} == {one_line(folder)}  # a label of tables

    assert main(["data", "verify", f"data.root={tests}"]) == 0
    for path in (tests / "images").iterdir():
        path.write_bytes(b"")
    assert main(["data", "verify", f"data.root={tests}", f"output={out}/found.csv"]) == 1
    found = column(out / "found.csv", "file")
    assert texts([f"{name}.png" for name in NAMES]) == sorted(Path(file).name for file in found)
    said, told = capfd.readouterr()
    assert "Traceback" not in said + told and told == ""


def quoted(name: str) -> str:
    """As a word of a list, which Hydra's grammar reads."""
    return name.replace("'", "\\'").replace("${", "\\${")
