"""Files and configurations of strangers: nothing in them is run or imported, and a line says so."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands.runs import words

from qefpn.cli import main


@pytest.fixture
def own_logging() -> Iterator[None]:
    """``--info`` writes through a handler of the root logger, which outlives it."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


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
    "of training": ("callbacks/mine.yaml", f"{{mine: {CALL}}}"),
    "of training, within": (
        "callbacks/mine.yaml",
        f"{{mine: {{_target_: pytorch_lightning.callbacks.Timer, duration: {CALL}}}}}",
    ),
    "of training, through a module of ours": (
        "callbacks/mine.yaml",
        "{mine: {_target_: qefpn.cli.os.mkdir, path: MARKER}}",
    ),
    "profiler": ("profiler/mine.yaml", CALL),
    "profiler, through Lightning's imports": (
        "profiler/mine.yaml",
        "{_target_: pytorch_lightning.profilers.profiler.os.mkdir, path: MARKER}",
    ),
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


PLACES = {
    "solver": ("solver",),
    "adjoint, within": ("adjoint", "solver"),
    "backbone": ("backbone", "options"),
    "data": ("data", "lists"),
    "augmentation": ("data", "augment"),
    "the whole": (),
    "what no version knows": ("callbacks", "mine"),
}


def with_content(run: Path, path: Path, part: tuple[str, ...], keys: Sequence[str], value: Any) -> Path:
    """The run's checkpoint at ``path``, with ``value`` put under ``keys`` of one of its parts."""
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    node: Any = content
    for key in part:
        node = node[key]
    for key in keys[:-1]:
        node = node.setdefault(key, {})
    if keys:
        node[keys[-1]] = value
    else:
        node.update(value)
    torch.save(content, path)
    return path


@pytest.mark.parametrize("place", PLACES)
def test_the_configuration_in_a_checkpoint_names_no_class(
    place: str, tmp_path: Path, tiny_run: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    marker, keys = tmp_path / "was_here", PLACES[place]
    call: Any = {"_target_": "os.mkdir", "path": str(marker)}
    value = [call] if keys[-1:] == ("augment",) else call
    path = with_content(tiny_run, tmp_path / "trained.ckpt", ("qefpn", "config"), keys, value)
    for argv in (["evaluate", f"data.root={data_root}/drawn"], ["profile"]):
        line = refused([*argv, f"checkpoint={path}"], marker, capfd)
        assert str(path) in line and "_target_=os.mkdir" in line
    assert not list(tmp_path.glob("evaluation*"))


@pytest.mark.parametrize("place", ["solver", "backbone_options"])
def test_the_network_in_a_checkpoint_names_no_class(
    place: str, tmp_path: Path, tiny_run: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "was_here"
    call = {"_target_": "os.mkdir", "path": str(marker)}
    path = with_content(tiny_run, tmp_path / "trained.ckpt", ("hyper_parameters", "network"), (place, "x"), call)
    (tmp_path / "one.png").write_bytes(b"")
    places = [f"input={tmp_path}/one.png", f"output={tmp_path}/out"]
    for argv in (["predict", *places, f"checkpoint={path}"], words(tmp_path / "run", data_root, f"init={path}")):
        assert f"{place}.x._target_=os.mkdir" in refused(argv, marker, capfd)


def test_a_checkpoint_that_holds_itself_is_a_line(
    tmp_path: Path, tiny_run: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    endless: dict[str, Any] = {"name": "broyden"}
    endless["memory"] = [endless]
    kinds = {"itself": endless, "a tensor": {"x": torch.ones(2)}, "a set": {"x": {1, 2}}, "a key": {(1, 2): 3}}
    for name, value in kinds.items():
        path = with_content(tiny_run, tmp_path / f"{name}.ckpt", ("qefpn", "config"), ("solver",), value)
        refused(["evaluate", f"data.root={data_root}/drawn", f"checkpoint={path}"], tmp_path / "nothing", capfd)


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"])
def test_options_of_a_backbone_read_and_fetch_nothing(
    key: str, tmp_path: Path, tiny_run: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    marker, weights = tmp_path / "was here", tmp_path / "weights.pth"
    torch.save({"state_dict": Payload(marker)}, weights)
    source: Any = {"file": str(weights), "custom_load": True}
    value = {"checkpoint_path": str(weights), "pretrained": True}.get(key, source)
    text = f"{{file: {weights}, custom_load: true}}" if isinstance(value, dict) else value
    argv = words(tmp_path / "run", data_root, f"backbone.options.{key}={str(text).replace('was here', '')}")
    assert f"backbone.options.{key}: " in refused(argv, marker, capfd)
    part = ("hyper_parameters", "network")
    path = with_content(tiny_run, tmp_path / "trained.ckpt", part, ("backbone_options", key), value)
    (tmp_path / "one.png").write_bytes(b"")
    argv = ["predict", f"input={tmp_path}/one.png", f"output={tmp_path}/out", f"checkpoint={path}"]
    assert f"backbone.options.{key}: " in refused(argv, marker, capfd)
    path = with_content(tiny_run, path, ("qefpn", "config"), ("backbone", "options", key), value)
    argv = ["evaluate", f"data.root={data_root}/drawn", f"checkpoint={path}"]
    assert f"backbone.options.{key}: " in refused(argv, marker, capfd)


LOOKS = {"a run": [], "cfg": ["--cfg", "job"], "cfg, resolved": ["--cfg=all", "--resolve"], "info": ["--info", "all"]}
LOOKS |= {"multirun": ["-m", "seed=0,1"]}
SEARCHED = ["[pkg://MODULE]", "[structured://MODULE]", "['pkg://MODULE.conf']", "[pkg://qefpn.conf,pkg://MODULE]"]


@pytest.mark.parametrize("look", LOOKS)
def test_no_package_is_searched_for_configurations(
    look: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "was_here"
    (tmp_path / "a_stranger.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    for place in SEARCHED:
        for prefix in ("", "++"):
            word = f"{prefix}hydra.searchpath={place.replace('MODULE', 'a_stranger')}"
            argv = ["train", f"data.root={tmp_path}/data", word, *LOOKS[look]]
            assert "a_stranger" in refused(argv, marker, capfd)
    word = "hydra.searchpath=[pkg://a_stranger]"
    refused(["predict", f"input={tmp_path}", f"output={tmp_path}/out", word], marker, capfd)
    importlib.import_module("a_stranger")  # it would have been found
    assert marker.is_dir()
    del sys.modules["a_stranger"]


@pytest.mark.parametrize("look", ["cfg", "cfg, resolved", "info"])
def test_what_is_looked_at_names_no_class(look: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    marker = tmp_path / "was_here"
    path = tmp_path / "conf" / "solver" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"{{name: broyden, memory: {CALL.replace('MARKER', str(marker))}}}")
    argv = ["train", f"data.root={tmp_path}", "solver=mine", "--config-dir", str(tmp_path / "conf"), *LOOKS[look]]
    assert "solver.memory._target_=os.mkdir" in refused(argv, marker, capfd)


FLAGS = [["--cfg"], ["--cfg", "mine"], ["--info", "mine"], ["--info"], ["--cfg", "job", "--info", "all"], ["--resolve"]]
FLAGS += [["--cfg", "job", "-m"], ["--hydra-help", "--cfg=job"], ["-p", "solver"], ["--cfg", "job", "--package"]]
FLAGS += [["-sc", "install=bash"], ["--shell-completion", "query=bash"], ["-cjob"], ["--cf", "job"], ["-cn=x"]]
FLAGS += [["--cfg", "job", "not.there=1"], ["--info", "all", "seed=0,1"], ["--cfg", "job", "word"], ["-cp", "pkg://x"]]
FLAGS += [["--cfg", "job", "hydra.searchpath=[nowhere]"], ["--experimental-rerun", "x.pickle"], ["--hydra-help"]]


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_flags_of_hydra_are_understood_or_told_in_a_line(
    flags: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(["train", f"data.root={tmp_path}", *flags], tmp_path / "nothing", capfd)


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize("look", ["cfg", "cfg, resolved", "info"])
def test_a_configuration_is_looked_at(look: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "conf" / "solver").mkdir(parents=True)
    (tmp_path / "conf" / "solver" / "mine.yaml").write_text("{name: broyden, max_steps: 3141}")
    argv = ["train", f"data.root={tmp_path}", "solver=mine", f"--config-dir={tmp_path}/conf", *LOOKS[look]]
    assert main(argv) == 0
    assert "max_steps: 3141" in capfd.readouterr().out
