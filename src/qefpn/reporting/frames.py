"""One tidy frame of figures, whatever they were read from: a row a figure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qefpn.reporting.tables import finite

if TYPE_CHECKING:
    import pandas

    from qefpn.reporting.results import RunResults

COLUMNS = ("source", "method", "set", "picture", "seed", "metric", "value")
"""``source`` is where a figure was read, ``picture`` empty for one of a whole set; only finite values have a row."""

Record = tuple[str, str, str, str, Any, Mapping[str, Any]]
"""Source, method, data set, picture, seed, and figures by name."""


def tidy(records: Iterable[Record]) -> pandas.DataFrame:
    """The frame of some records."""
    import pandas

    rows = [
        (*place, metric, number)
        for *place, figures in records
        for metric, value in figures.items()
        if (number := finite(value)) is not None
    ]
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def run_records(results: RunResults, method: str = "This run", source: str = "") -> Iterator[Record]:
    """A run's figures: its own and its floors' a set, and its own a picture."""
    source, seed = source or results.directory.name, results.config.get("seed")
    for dataset, figures in results.metrics.items():
        yield source, method, dataset, "", seed, figures
        yield from ((source, name, dataset, "", seed, floor) for name, floor in results.floors.get(dataset, {}).items())
    yield from ((source, method, where, name, seed, scores) for (where, name), scores in results.scores.items())


def score_records(path: Path) -> Iterator[Record]:
    """A file of scores a picture, such as ``scores.csv``; nothing where there is none."""
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                yield path.name, "", row.pop("dataset"), row.pop("name"), None, row
