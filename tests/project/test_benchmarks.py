"""benchmarks/implicit.py at tiny sizes: every case runs, and iterates and losses that must agree with torchdeq's do."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("torchdeq")
FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = [
    *("size=3000", "repeats=2", "threads=1", "pictures=8", "picture_size=64", "batch=4", "curve=4"),
    *("variants=false", "pyramid_size=64", "pyramid_channels=16", "depths=4,8"),
]


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """The script as a module; its helpers lie beside it, as for ``python benchmarks/implicit.py``."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("implicit")
    finally:
        sys.path.remove(str(FOLDER))


def test_a_word_that_is_no_case_or_key_is_told(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["broiden"]) == 2
    assert "broiden" in capsys.readouterr().err
    assert bench.main(["broyden", "stepz=3"]) == 2
    assert "stepz" in capsys.readouterr().err


def test_the_exit_status_tells_wrong_from_slow(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from implicit_common import Line

    slow = Line("slow", "", ratio=1.0, target=4.0)
    wrong = Line("wrong", "", ratio=9.0, target=4.0, wrong="iterates differ")
    assert slow.holds is False and wrong.holds is False
    monkeypatch.setattr(bench, "CASES", {"slow": lambda _: iter([slow]), "wrong": lambda _: iter([wrong])})
    assert bench.main(["slow", "threads=1"]) == 0
    assert bench.main(["slow", "wrong", "threads=1"]) == 1


@pytest.mark.slow
def test_broyden_iterates_equal_torchdeqs(bench: ModuleType) -> None:
    lines = list(bench.CASES["broyden"](bench.Options.parse(TINY)))
    assert len(lines) == 2
    for line in lines:
        assert not line.wrong
        assert line.figures["difference"] <= 5e-6
        assert line.figures["iterates"] == 28  # the start and 27 steps
        assert line.ratio is not None and line.ratio > 0


@pytest.mark.slow
def test_anderson_takes_equal_evaluations(bench: ModuleType) -> None:
    lines = list(bench.CASES["anderson"](bench.Options.parse(TINY)))
    assert lines
    for line in lines:
        assert not line.wrong
        assert line.figures["evaluations"] == line.figures["their_evaluations"] == 27
        assert line.figures["early"] <= 1e-3


@pytest.mark.slow
def test_training_follows_torchdeqs_losses(bench: ModuleType) -> None:
    (line,) = bench.CASES["training"](bench.Options.parse(TINY))
    assert not line.wrong
    assert line.figures["first"] <= 0.01
    assert line.figures["floor"] > 0


@pytest.mark.slow
def test_overhead_counts_evaluations_and_products(bench: ModuleType) -> None:
    default, whole = bench.CASES["overhead"](bench.Options.parse(TINY))
    assert (whole.figures["evaluations"], whole.figures["products"]) == (28, 27)
    assert default.figures["evaluations"] <= 29 and default.figures["products"] <= 27
    assert whole.ratio < 1


@pytest.mark.slow
def test_memory_of_implicit_is_flat_and_unrolled_grows(bench: ModuleType) -> None:
    last = list(bench.CASES["memory"](bench.Options.parse(TINY)))[-1]
    assert last.ratio <= 0.10
    assert last.figures["growth"] > 1.5


@pytest.mark.slow
def test_derivative_only_where_something_is_dropped(bench: ModuleType) -> None:
    (line,) = bench.CASES["jvp"](bench.Options.parse(TINY))
    assert not line.wrong
    assert 0 < line.figures["dropped"] < 8
    assert line.figures["dual"] == 4 * line.figures["dropped"]
    assert line.figures["plain"] == 4 * (8 - line.figures["dropped"])


@pytest.mark.slow
def test_what_a_gpu_would_be_asked_runs_small_on_a_cpu(bench: ModuleType, tmp_path: Path) -> None:
    gpu = importlib.import_module("gpu")
    parts = [part for part in gpu.PARTS if part != "tests"]  # those are in tests/gpu
    assert gpu.main([*parts, "device=cpu", f"output={tmp_path}"]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {*found["rows"]} == {*parts} and all(found["rows"].values())
    assert all(row["forward, ms"] > 0 for row in found["rows"]["f_theta"])
    assert "| pyramid |" in (tmp_path / "gpu.md").read_text()
    assert gpu.main(["nonsense"]) == 2 and gpu.main(["device=tpu"]) == 2
    if not torch.cuda.is_available():
        assert gpu.main([]) == 2
