"""What a run directory holds, read so that a missing or broken file costs its own section and no more."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qefpn.errors import UserError
from qefpn.option_names import option_name
from qefpn.reporting.tables import finite

FILES = ("config.yaml", "metrics.json", "scores.csv", "floors.json", "log.csv", "curves.json", "samples.json")


@dataclass(frozen=True, slots=True)
class Sample:
    """One test picture and where its files are; None where that is not known. There may be tens of thousands, of which
    a few are opened: text takes a fifth of the memory of paths."""

    dataset: str
    name: str
    image: str | None = None
    mask: str | None = None
    map: str | None = None


@dataclass
class RunResults:
    """The content of a run directory.

    Attributes:
        problems: file name → why it is not here, in words for the reader.
        log: column → [(step, value), ...] by step, blank cells left out; NaN and inf kept.
        scores: (data set, picture) → its figures.
        curves: data set → entrant ("model", "gaussian", "untrained") → {"precision": [...], ...}.
    """

    directory: Path
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    floors: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    scores: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    log: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    curves: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def datasets(self) -> list[str]:
        """Every data set that anything is known of, those of metrics.json first."""
        names = [*self.metrics, *self.curves, *(dataset for dataset, _ in self.scores)]
        return list(dict.fromkeys([*names, *(sample.dataset for sample in self.samples)]))


def read_run(directory: Path) -> RunResults:
    """Read a run directory.

    Raises:
        UserError: it does not exist, or holds none of the files that a run writes.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is no directory; a report is made of a run's directory")
    present = [name for name in FILES if (directory / name).is_file()]
    if not present and not (directory / "maps").is_dir():
        raise UserError(f"{directory} is no run directory: it holds none of {', '.join(FILES)}")
    results = RunResults(directory)
    readers = {
        "config.yaml": _read_config,
        "metrics.json": _read_metrics,
        "floors.json": _read_floors,
        "curves.json": _read_curves,
        "scores.csv": _read_scores,
        "log.csv": _read_log,
        "samples.json": _read_samples,
    }
    for name, reader in readers.items():
        path = directory / name
        if not path.is_file():
            results.problems[name] = f"{name} is not in the run directory."
            continue
        try:
            reader(path, results)
        except Exception as error:  # whatever is wrong with one file, the others are still worth a report
            results.problems[name] = f"{name} cannot be read: {_one_line(error)}"
    if not results.samples:
        results.samples = _samples_from_maps(directory / "maps")
    return results


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    return value


def _read_config(path: Path, results: RunResults) -> None:
    from omegaconf import OmegaConf

    results.config_text = path.read_text(encoding="utf-8", errors="replace")
    content = OmegaConf.to_container(OmegaConf.create(results.config_text), resolve=False)
    results.config = {str(key): value for key, value in _mapping(content, "the config").items()}


def _read_json(path: Path) -> dict[str, Any]:
    return _mapping(json.loads(path.read_text(encoding="utf-8")), path.name)


def _read_metrics(path: Path, results: RunResults) -> None:
    results.metrics = {name: _mapping(value, name) for name, value in _read_json(path).items()}


def _read_floors(path: Path, results: RunResults) -> None:
    results.floors = {
        name: {floor: _mapping(figures, floor) for floor, figures in _mapping(value, name).items()}
        for name, value in _read_json(path).items()
    }


def _read_curves(path: Path, results: RunResults) -> None:
    for name, value in _read_json(path).items():
        entrants = _mapping(value, name)
        if "precision" in entrants or "f_curve" in entrants:  # of the model alone
            entrants = {"model": entrants}
        results.curves[name] = {
            entrant: {key: [float(v) for v in values] for key, values in _mapping(curves, entrant).items()}
            for entrant, curves in entrants.items()
        }


def _read_scores(path: Path, results: RunResults) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"dataset", "name"} - set(reader.fieldnames or [])
        if missing:
            raise ValueError(f"it has no column {' and no column '.join(sorted(missing))}")
        for row in reader:
            key = (row.pop("dataset") or "", row.pop("name") or "")
            numbers = {column: finite(value) for column, value in row.items() if column is not None}
            results.scores[key] = {column: value for column, value in numbers.items() if value is not None}


def _read_log(path: Path, results: RunResults) -> None:
    columns: dict[str, dict[float, float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "step" not in (reader.fieldnames or []):
            raise ValueError("it has no column step")
        for row in reader:
            step = finite(row.pop("step"))
            if step is None:  # the last line of a run that was cut off
                continue
            for column, text in row.items():
                value = _number(text)
                if value is not None:
                    # a resumed run repeats the steps after its checkpoint: the later value stands
                    columns.setdefault(column, {})[step] = value
    results.log = {column: sorted(values.items()) for column, values in columns.items()}


def _number(text: Any) -> float | None:
    """The number in a cell, NaN and inf included; None for a blank or anything else."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _read_samples(path: Path, results: RunResults) -> None:
    entries = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list):
        raise ValueError("it is not a list")

    def located(entry: Mapping[str, Any], key: str) -> str | None:
        text = entry.get(key)
        if not text:
            return None
        inside = path.parent / text  # an absolute path stays as it is
        return str(inside if inside.exists() else text)

    for entry in entries:
        entry = _mapping(entry, "an entry")
        dataset, name = sys.intern(str(entry.get("dataset", ""))), str(entry.get("name", ""))
        files = {key: located(entry, key) for key in ("image", "mask", "map")}
        if files["map"] is None:
            guess = path.parent / "maps" / dataset / f"{name}.png"
            files["map"] = str(guess) if guess.is_file() else None
        results.samples.append(Sample(dataset, name, **files))


def _samples_from_maps(directory: Path) -> list[Sample]:
    """Without samples.json the saved maps still show what was predicted."""
    if not directory.is_dir():
        return []
    return [
        Sample(dataset.name, str(file.relative_to(dataset).with_suffix("")), map=str(file))
        for dataset in sorted(path for path in directory.iterdir() if path.is_dir())
        for file in sorted(dataset.rglob("*.png"))
    ]


def finite_points(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of a curve that can be drawn."""
    return [(step, value) for step, value in points if math.isfinite(value)]


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, or None; ``solver.name`` is what the solver is called."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping):
            return None
        value = option_name(value) if part == "name" else value.get(part)
    return value
