"""The project as a whole: every package in the wheel, imports in one direction, short files."""

from __future__ import annotations

import configparser
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from tests.commands.runs import words

from qefpn.cli import main
from qefpn.data import SaliencyDataModule
from qefpn.models import QEFPN
from qefpn.training.module import SaliencyModule

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


def test_setup_lists_every_package() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    listed = set(parser["options"]["packages"].split())
    there = {".".join(p.parent.relative_to(SOURCE).parts) for p in SOURCE.rglob("__init__.py")}
    assert listed == there | {"qefpn.conf"}


def test_every_config_is_in_the_package_data() -> None:
    # setup.cfg ships *.yaml, */*.yaml and */*/*.yaml: nothing may lie deeper
    depths = {len(p.relative_to(ROOT / "conf").parts) for p in (ROOT / "conf").rglob("*.yaml")}
    assert depths and depths <= {1, 2, 3}


def test_imports_point_one_way() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed")
    result = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_files_are_short_and_whole() -> None:
    lines = {str(p): len(p.read_text().splitlines()) for p in SOURCE.rglob("*.py")}
    assert {path: n for path, n in lines.items() if n > 400} == {}
    small = [path for path, n in lines.items() if n < 50]
    assert len(small) <= len(lines) / 10, sorted(small)


def layers() -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [layer for contract in contracts if contract["type"] == "layers" for layer in contract["layers"]]


def test_the_page_of_the_architecture_tells_the_rooms_and_roads_as_they_are() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    told = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in text.split("## ")[1].splitlines() if "| `" in line]
    assert told == [[room.strip().removeprefix("qefpn.") for room in layer.split("|")] for layer in layers()]
    rooms = {room for row in told for room in row}
    there = {p.stem for p in (SOURCE / "qefpn").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms == there - {"__init__", "version"}
    names = "|".join(rooms)
    named = set(re.findall(rf"(?<![\w.`/])`?((?:{names})\.(?!py\b)[a-z_]+(?:\.\w+)*)", text))
    assert len(named) > 15
    for name in named:
        parts, module = name.split("."), SOURCE / "qefpn"
        while parts and ((module / parts[0]).is_dir() or (module / f"{parts[0]}.py").is_file()):
            module /= parts.pop(0)
        found: Any = importlib.import_module(".".join(module.relative_to(SOURCE).parts))
        for part in parts:
            found = getattr(found, part)
    for path in re.findall(rf"`((?:{names})/[a-z_]+\.py)`", text):
        assert (SOURCE / "qefpn" / path).is_file(), path


def test_few_calls_lead_to_a_training_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And they are those of docs/architecture.md."""
    seen: list[str] = []
    built: list[str] = []
    own = SaliencyModule.training_step
    for kind in (QEFPN, pl.Trainer, SaliencyDataModule):

        def init(self: Any, *args: Any, made: Any = kind.__init__, name: str = kind.__name__, **options: Any) -> None:
            built.append(name)
            made(self, *args, **options)

        monkeypatch.setattr(kind, "__init__", init)

    def step(self: SaliencyModule, *args: Any) -> Any:
        frames = [frame for frame in inspect.stack() if "/src/qefpn/" in frame.filename]
        seen[:] = [f"{Path(f.filename).relative_to(SOURCE / 'qefpn').with_suffix('')}.{f.function}" for f in frames]
        return own(self, *args)

    def compose(self: Any, *args: Any, made: Any = ConfigLoaderImpl.load_configuration, **options: Any) -> Any:
        built.append("configuration")
        return made(self, *args, **options)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", compose)
    monkeypatch.setattr(SaliencyModule, "training_step", step)
    run_words = words(tmp_path / "run", tmp_path / "data", "trainer.max_steps=1", "evaluate=false", "report=false")
    assert main(run_words) == 0
    assert sorted(built) == ["QEFPN", "SaliencyDataModule", "Trainer", "configuration"]  # one of each
    calls = [one.replace("/", ".") for one in reversed(seen)]
    assert len(calls) <= 8, calls
    road = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## ")[2]
    assert re.findall(r"[├└] ([\w.]+)", road)[:-1] == calls


FRAMEWORKS = ("pytorch_lightning", "torchmetrics", "albumentations", "matplotlib", "wandb")
LIGHT = [(module, ("torch", *FRAMEWORKS)) for module in ("qefpn", "qefpn.cli", "qefpn.data", "qefpn.reporting")]
LIGHT += [(module, FRAMEWORKS) for module in ("qefpn.inference.predictor", "qefpn.commands.predict", "qefpn.models")]
LIGHT += [("qefpn.commands.train", ("torch", *FRAMEWORKS))]  # whose --help answers at once


@pytest.mark.parametrize(("module", "heavy"), LIGHT)
def test_light_imports_stay_light(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import {module}, sys; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
