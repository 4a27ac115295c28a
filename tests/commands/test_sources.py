"""Where pictures come from: the same keys in every command that reads any; and a checkpoint that was copied alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.commands.runs import train
from tests.data.pictures import blob, picture

from qefpn.cli import main

COUNT = 8


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A set of three folders, of which two may hold the masks: no command can tell without a key."""
    root = tmp_path / "data"
    for number in range(COUNT):
        mask = blob(number, 64, 64)
        for folder, image, suffix in (
            ("a", picture(number, 64, 64), "jpg"),
            ("b", mask, "png"),
            ("c", 255 - mask, "png"),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / folder / f"p{number}.{suffix}")
    (root / "few.txt").write_text("p1\np2\np3\np4\np5\n")
    shutil.copytree(root / "b", tmp_path / "maps" / "M")
    return tmp_path


def command(name: str, place: Path, checkpoint: Path) -> list[str]:
    out = place / f"out-{name}"
    return {
        "evaluate": ["evaluate", f"checkpoint={checkpoint}", f"output={out}", "report=false", "floors=false"],
        "benchmark": ["benchmark", f"maps={place / 'maps'}", f"output={out}", "figures=false", "page=false"],
        "data": ["data", "verify"],
        "list": ["data", "list"],
        "analyze": ["analyze", "depth", f"checkpoint={checkpoint}", f"output={out}", "pictures=2", "layers=2"],
        "profile": [
            *("profile", f"checkpoint={checkpoint}", f"output={out}", "sizes=[64]", "budgets=[1]", "batches=[1]"),
            *("training=false", "repeats=3", "quality.steps=[1]"),
        ],
    }[name]  # fmt: skip


def run(name: str, place: Path, checkpoint: Path, *more: str) -> int:
    if name == "train":
        from tests.commands.runs import words

        given = words(
            place / "run", place / "data", "data=folder", "evaluate=false", "report=false", "trainer.max_steps=1", *more
        )
        rooted = any(word.startswith("data.root=") for word in more)
        return main([word for word in given if rooted or word != f"data.root={place / 'data'}"])
    return main([*command(name, place, checkpoint), *more])


COMMANDS = ("train", "evaluate", "benchmark", "data", "list", "analyze", "profile")
SETTINGS = {
    "layout": ["data.root={0}", "data.layout=a/b"],
    "folders": ["data.root={0}", "data.images=a", "data.masks=b"],
    "folders without a root": ["data.images={0}/a", "data.masks={0}/b"],
    "a list": ["data.root={0}", "data.layout=a/b", "data.lists={{data: few.txt}}"],
    "a list by key": ["data.root={0}", "data.layout=a/b", "data.lists.data=few.txt"],
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", list(SETTINGS))
@pytest.mark.parametrize("name", COMMANDS)
def test_every_key_works_in_every_command(name: str, setting: str, place: Path, tiny_run: Path, capsys) -> None:
    checkpoint = tiny_run / "checkpoints" / "best.ckpt"
    words = [word.format(place / "data") for word in SETTINGS[setting]]
    assert run(name, place, checkpoint, *words) == 0
    expected = 5 if "list" in setting else COUNT
    if name == "train":
        counts = json.loads((place / "run" / "data.json").read_text())
        assert counts["train_pictures"] + counts["val_pictures"] + sum(counts["test_pictures"].values()) == expected
    elif name in ("evaluate", "benchmark"):
        rows = (place / f"out-{name}" / "scores.csv").read_text().splitlines()
        assert len(rows) - 1 == expected
    elif name in ("data", "list"):
        assert f"{expected} pairs" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_without_a_key_the_folders_are_named(name: str, place: Path, tiny_run: Path, capsys) -> None:
    assert run(name, place, tiny_run / "checkpoints" / "best.ckpt", f"data.root={place / 'data'}") == 2
    assert "a/b or a/c; say which with data.layout=a/b" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_lists_of_no_set_are_refused(name: str, place: Path, tiny_run: Path, capsys) -> None:
    words = [f"data.root={place / 'data'}", "data.layout=a/b", "data.lists.date=few.txt"]
    assert run(name, place, tiny_run / "checkpoints" / "best.ckpt", *words) == 2
    assert "data.lists names date" in capsys.readouterr().err


def alone(run: Path, folder: Path, *, with_config: bool) -> Path:
    """The checkpoint of a run, copied to where nothing else is."""
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content.pop("qefpn", None)
    if with_config:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        content["qefpn"] = {"config": config, "version": "0", "data": {}}
    folder.mkdir(parents=True)
    torch.save(content, folder / "net.ckpt")
    return folder / "net.ckpt"


def test_a_checkpoint_alone_is_enough(tiny_run: Path, tmp_path: Path) -> None:
    checkpoint = alone(tiny_run, tmp_path / "a" / "b" / "c", with_config=True)
    assert main(["evaluate", f"checkpoint={checkpoint}", "report=false"]) == 0
    written = tmp_path / "a" / "b" / "c" / "evaluation"
    for file in ("scores.csv", "metrics.json", "floors.json"):
        assert (written / file).read_text() == (tiny_run / file).read_text()


def test_its_own_configuration_comes_before_the_file(tiny_run: Path, tmp_path: Path, capsys) -> None:
    checkpoint = alone(tiny_run, tmp_path / "run" / "checkpoints", with_config=True)
    (tmp_path / "run" / "config.yaml").write_text("no: config\n")
    assert main(["evaluate", f"checkpoint={checkpoint}", "report=false", "floors=false"]) == 0
    older = alone(tiny_run, tmp_path / "older" / "checkpoints", with_config=False)
    assert main(["evaluate", f"checkpoint={older}", "report=false"]) == 2
    assert "config.yaml is missing, and net.ckpt does not hold its configuration" in capsys.readouterr().err
    shutil.copy(tiny_run / "config.yaml", tmp_path / "older" / "config.yaml")
    assert main(["evaluate", f"checkpoint={older}", "report=false", "floors=false"]) == 0


def test_a_run_keeps_its_layout_only_where_it_was(place: Path, tmp_path: Path, capsys) -> None:
    run = train(
        tmp_path / "run", place / "data", "data=folder", "data.layout=a/b", "data.test_fraction=0.25",
        "trainer.max_steps=1", "evaluate=false", "report=false",
    )  # fmt: skip
    checkpoint = f"checkpoint={run / 'checkpoints' / 'best.ckpt'}"
    assert main(["evaluate", checkpoint, f"output={tmp_path / 'o'}", "report=false", "floors=false"]) == 0
    moved = tmp_path / "moved"
    shutil.copytree(place / "data" / "a", moved / "images")
    shutil.copytree(place / "data" / "b", moved / "masks")
    assert (
        main(["evaluate", checkpoint, f"data.root={moved}", f"output={tmp_path / 'p'}", "report=false", "floors=false"])
        == 0
    )
    assert len(np.loadtxt(tmp_path / "p" / "scores.csv", dtype=str, delimiter=",")) == COUNT + 1
