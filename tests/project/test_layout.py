"""The project as a whole: every package in the wheel, imports in one direction, short files."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_files_are_short() -> None:
    long = {str(p): n for p in SOURCE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long


@pytest.mark.parametrize("module", ["qefpn", "qefpn.cli", "qefpn.data", "qefpn.reporting"])
def test_light_imports_stay_light(module: str) -> None:
    heavy = "('torch', 'pytorch_lightning', 'matplotlib', 'wandb')"
    code = f"import {module}, sys; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
