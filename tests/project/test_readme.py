"""Every command of the README and of the tutorial, run as it stands there but for its placeholders and its length."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.commands.runs import SYNTHETIC, TINY
from tests.commands.test_video import film, pictures

from qefpn.cli import COMMANDS, main
from qefpn.data import synthesize

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
TUTORIAL = (README.parent / "docs" / "tutorial.md").read_text(encoding="utf-8")
TRAINING = [
    *(word for word in TINY if not word.startswith("backbone=")),
    *SYNTHETIC,
    "trainer.max_steps=2",
]
SHORTER = {  # what keeps the other commands short
    "analyze": ["pictures=2"],
    "analyze depth": ["layers=12", "curves=1"],
    "analyze convergence": ["p=[1e-3]", "max_steps=3"],
    "profile": ["sizes=[64]", "budgets=[2]", "batches=[1]", "repeats=3", "seconds=0.1", "quality.steps=[1]"],
    "benchmark": ["resamples=50"],
    "video": ["image_size=64"],
    "export": ["steps=1", "image_size=64", "overwrite=true"],
}
ELSEWHERE = ("download", "serve")  # these need a server or stay open; they have tests of their own


def commands() -> list[str]:
    """The commands of the code blocks and, where they hold no ellipsis, of the running text."""
    blocks = [
        line.split("#")[0].strip() for block in re.findall(r"```\n(.*?)```", TEXT, re.S) for line in block.splitlines()
    ]
    inline = re.findall(r"`(qefpn [^`]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.S))
    found = [c.replace("\n", " ") for c in [*blocks, *inline] if c.startswith("qefpn ") and "..." not in c]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the README's placeholders stand for."""
    root = tmp_path_factory.mktemp("readme")
    for test in ("ECSSD", "DUTS-TE"):
        synthesize(root / "DIR", train=12, test=3, size=64, train_name="DUTS-TR", test_name=test)
    own = root / "MY_PICTURES"
    shutil.copytree(root / "DIR" / "DUTS-TR" / "DUTS-TR-Image", own / "images")
    shutil.copytree(root / "DIR" / "DUTS-TR" / "DUTS-TR-Mask", own / "masks")
    shutil.copytree(own / "images", root / "pictures")
    shutil.copy(next((own / "images").iterdir()), root / "holiday.jpg")
    film(root / "holiday.mp4", pictures(4))
    methods = {"first": "DUTS-TE-Mask", "second": "DUTS-TE-Mask"}
    for method, masks in methods.items():
        shutil.copytree(root / "DIR" / "DUTS-TE" / masks, root / "MAPS" / method / "DUTS-TE")
    return root


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """What RUN stands for."""
    words = [word for word in TRAINING if not word.startswith("data.synthetic")]
    given = [
        "experiment=small",
        "data.test=[ECSSD,DUTS-TE]",
        *words,
        f"data.root={place / 'DIR'}",
        f"hydra.run.dir={place / 'RUN'}",
    ]
    assert main(["train", *_without_backbone(given), "evaluate=false", "report=false"]) == 0
    shutil.copytree(place / "RUN", place / "SWEEP" / "0")
    return place / "RUN"


def _without_backbone(arguments: list[str]) -> list[str]:
    return [a for a in arguments if not a.startswith("backbone.")] + [
        "backbone.options={channels:[8,8,16,16],stem_width:8}"
    ]


def test_there_are_commands() -> None:
    assert len(commands()) >= 8
    assert {"train", "evaluate", "predict"} <= {command.split()[1] for command in commands()}


def test_every_command_is_listed() -> None:
    assert all(command.split()[1] in COMMANDS for command in commands())


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_it_runs(command: str, place: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = shlex.split(command)[1:]
    if arguments[1:] and arguments[1] in ELSEWHERE:
        pytest.skip(f"{arguments[1]}: tested in its own file")
    monkeypatch.chdir(place)
    if arguments[0] == "train" and "--help" not in arguments:
        shorter = [word for word in TRAINING if word.partition("=")[0] not in {a.partition("=")[0] for a in arguments}]
        if any(a.startswith("data=") for a in arguments):
            shorter = [word for word in shorter if not word.startswith("data.synthetic")]
        elif "data.root" not in " ".join(arguments):
            shorter.append(f"data.root={tmp_path / 'drawn'}")
        if any(a.startswith("experiment=") for a in arguments):
            shorter = _without_backbone(shorter)
        else:
            shorter += ["backbone=narrow", "backbone.options={channels:[8,8,16,16],stem_width:8}"]
        if "init=mobile" in arguments:  # a network of its own size
            shorter = [word for word in shorter if word.startswith(("data.", "trainer"))] + ["trainer.max_steps=2"]
        arguments += [word for word in shorter if not word.startswith("backbone.model")]
        arguments = [word for word in arguments if not word.startswith(("hydra.run.dir=", "hydra.sweep.dir="))]
        arguments += ["hydra.run.dir=" + str(tmp_path / "run"), "hydra.sweep.dir=" + str(tmp_path / "sweep")]
    arguments += [
        word
        for name, words in SHORTER.items()
        if command.split()[1:][: len(name.split())] == name.split()
        for word in words
    ]
    assert main(arguments) == 0


@pytest.mark.slow
def test_its_python_runs(place: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, lightning, elsewhere = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    monkeypatch.chdir(place)
    names: dict[str, object] = {}
    exec(code, names)
    saliency = names["saliency"]
    assert isinstance(saliency, np.ndarray)
    assert saliency.shape == np.asarray(Image.open(place / "holiday.jpg")).shape[:2]
    pytest.importorskip("onnxruntime")
    assert main(["export", "output=saliency.onnx", *SHORTER["export"]]) == 0
    exec(elsewhere, names)
    assert names["saliency"].shape == saliency.shape and names["saliency"].max() <= 1  # type: ignore[attr-defined]
    shorter = {
        '"resnet50"': '"resnet18", channels=8, expansion=1, decoder_passes=1',
        'test=["ECSSD"]': 'test=["ECSSD"], image_size=64, batch_size=4, num_workers=0',
        "max_epochs=50": "max_steps=1, accelerator='cpu', logger=False, enable_checkpointing=False",
    }
    for long, short in shorter.items():
        assert long in lightning
        lightning = lightning.replace(long, short)
    exec(lightning, names)
    trainer = names["trainer"]
    assert float(trainer.callback_metrics["ECSSD/mae"]) > 0  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_tutorial_runs(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(place / "holiday.jpg", tmp_path)
    blocks = re.findall(r"```\n(.*?)```", TUTORIAL, re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("qefpn ")]
    assert len(lines) >= 8
    small = [*SYNTHETIC, "trainer.max_steps=2", "data.val_fraction=0.1", "solver.max_steps=2"]
    small += ["pyramid.channels=8", "backbone.options={channels:[8,8,16,16],stem_width:8}"]
    for line in lines:
        arguments = shlex.split(line)[1:]
        if arguments[0] == "train":
            of_solver = [
                word for word in small if not any(a.startswith("solver=") for a in arguments) or word[:7] != "solver."
            ]
            arguments += of_solver
        arguments += [
            word
            for name, words in SHORTER.items()
            if line.split()[1:][: len(name.split())] == name.split()
            for word in words
        ]
        assert main(arguments) == 0, line
    (code,) = re.findall(r"```python\n(.*?)```", TUTORIAL, re.S)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["weight"].grad is not None  # type: ignore[attr-defined]
