"""Files and configurations of strangers: nothing in them is run or imported, and a line says so."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands.runs import words

from qefpn.cli import main


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def refused(argv: list[str], marker: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command answers; whatever was in the file or the configuration has not run."""
    assert main(argv) == 2
    out, err = capfd.readouterr()
    assert not marker.exists()
    assert "Traceback" not in out + err
    (line,) = err.splitlines()
    assert line.startswith(f"qefpn {argv[0]}: ")
    return line


USES = {
    "train init": ["train", "init="],
    "train resume": ["train", "resume="],
    "train backbone.weights": ["train", "backbone.weights="],
    "evaluate": ["evaluate", "checkpoint="],
    "predict": ["predict", "checkpoint="],
    "analyze depth": ["analyze", "depth", "checkpoint="],
    "analyze convergence": ["analyze", "convergence", "checkpoint="],
    "profile": ["profile", "checkpoint="],
}


@pytest.mark.parametrize("kind", ["torch", "torch, whole", "plain pickle"])
@pytest.mark.parametrize("use", USES)
def test_a_pickle_with_code_is_refused_and_does_not_run(
    use: str, kind: str, tmp_path: Path, tiny_run: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    marker, path = tmp_path / "was here", tmp_path / "weights.ckpt"
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps(Payload(marker)))
    else:
        good = torch.load(tiny_run / "checkpoints/best.ckpt", weights_only=True) if kind == "torch, whole" else {}
        torch.save({**good, "callbacks": Payload(marker)}, path)
    *command, key = USES[use]
    data = data_root / "drawn"
    if command == ["train"]:
        argv = words(tmp_path / "run", data, f"{key}{path}")
    else:
        (tmp_path / "one.png").write_bytes(b"")
        places = [f"input={tmp_path}/one.png", f"output={tmp_path}/out"] if command == ["predict"] else []
        argv = [*command, f"{key}{path}", *places]
    assert str(path) in refused(argv, marker, capfd)
    with pytest.raises(FileNotFoundError):  # it would have run: unpickled for what it is, it makes the directory
        os.rmdir(marker)
    torch.load(path, weights_only=False) if kind != "plain pickle" else pickle.loads(path.read_bytes())
    assert marker.is_dir()


CALL = "{_target_: os.mkdir, path: MARKER}"
CONFIGURATIONS = {
    "solver": ("solver/mine.yaml", f"{{name: broyden, memory: {CALL}}}"),
    "solver itself": ("solver/mine.yaml", "{_target_: os.mkdir, path: MARKER}"),
    "backbone": ("backbone/mine.yaml", f"{{name: resnet18, weights: null, options: {CALL}}}"),
    "data": ("data/mine.yaml", f"{{name: folder, root: ., lists: {CALL}}}"),
    "callbacks": ("experiment/mine.yaml", f"# @package _global_\nhydra: {{callbacks: {{mine: {CALL}}}}}"),
    "callbacks, through a module of ours": (
        "experiment/mine.yaml",
        "# @package _global_\nhydra: {callbacks: {mine: {_target_: qefpn.cli.os.mkdir, path: MARKER}}}",
    ),
    "callbacks, by reference": (
        "experiment/mine.yaml",
        f"# @package _global_\ndata: {{lists: {CALL}}}\nhydra: {{callbacks: {{mine: '${{data.lists}}'}}}}",
    ),
    "launcher": ("hydra/launcher/mine.yaml", CALL),
    "launcher, through a plugin": (
        "hydra/launcher/mine.yaml",
        f"{{_target_: hydra._internal.core_plugins.basic_launcher.BasicLauncher, more: {CALL}}}",
    ),
    "sweeper": ("hydra/sweeper/mine.yaml", CALL),
    "sweeper, through a plugin": (
        "hydra/sweeper/mine.yaml",
        f"{{_target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper, max_batch_size: {CALL}}}",
    ),
    "logging": (
        "hydra/job_logging/mine.yaml",
        "{version: 1, formatters: {mine: {(): os.mkdir, path: MARKER}}, handlers: "
        "{mine: {class: logging.StreamHandler, formatter: mine}}, root: {handlers: [mine]}}",
    ),
    "logging, through its imports": (
        "hydra/hydra_logging/mine.yaml",
        "{version: 1, formatters: {mine: {(): logging.os.mkdir, path: MARKER}}, handlers: "
        "{mine: {class: logging.StreamHandler, formatter: mine}}, root: {handlers: [mine]}}",
    ),
}


@pytest.mark.parametrize("multirun", [False, True], ids=["a run", "a multirun"])
@pytest.mark.parametrize("place", CONFIGURATIONS)
def test_a_configuration_names_no_class(
    place: str, multirun: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "was_here"
    file, content = CONFIGURATIONS[place]
    path = tmp_path / "conf" / file
    path.parent.mkdir(parents=True)
    path.write_text(content.replace("MARKER", str(marker)))
    group = file.rpartition("/")[0]
    given = words(tmp_path / "run", tmp_path / "data", f"{group}=mine")
    given = [word for word in given if not word.startswith(f"{group}.")]
    if multirun:
        given = [word for word in given if not word.startswith("hydra.run.dir")]
        given += ["-m", f"hydra.sweep.dir={tmp_path}/sweep", "seed=0,1"]
    line = refused([*given, "--config-dir", str(tmp_path / "conf")], marker, capfd)
    assert "mkdir" in line or "_target_" in line
    assert not (tmp_path / "data").exists()
