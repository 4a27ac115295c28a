"""Work on many pictures: memory and open files stay, one bad file ends nothing, what was done is not done again."""

from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
COUNT = 500


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("long_work")
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_long_work(bench: ModuleType, tmp_path: Path) -> None:
    runs = {run.name: run for run in bench.measure(tmp_path, COUNT)}
    for command, total in (("verify", 2 * COUNT), ("benchmark", COUNT), ("evaluate", COUNT), ("predict", COUNT)):
        stopped, again, third = (runs[f"{command}, {when}"] for when in ("stopped", "again", "a third time"))
        assert stopped.code == 130 and again.code == third.code == 1  # the bad file is told
        assert 0 < stopped.done < total
        assert 0 < again.done <= total - stopped.done + bench.AT_ONCE  # only what is missing
        assert third.done == 0
        assert stopped.peak_mib > 0 and stopped.growth_mib < 50
        assert again.growth_mib < 50 and again.after_mib < 50 and again.files[1] <= 4
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == COUNT - 1
    assert "p000005" in (tmp_path / "out" / "findings.txt").read_text()
    for folder in ("scored/maps", "made"):
        assert sum(1 for _ in (tmp_path / folder).rglob("*.png")) == COUNT - 1
