"""Methods beside each other and beside the paper's, a table a data set: of a run and its floors, or of any maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qefpn.reporting.published import Published
from qefpn.reporting.renderers import csv_text, of_metrics
from qefpn.reporting.tables import DAGGER, Cell, Column, Row, Table, finite, floor_label, metrics_of

if TYPE_CHECKING:
    from qefpn.benchmark.entries import Entry

Figures = Mapping[str, Any]

NEAR = "≈"
_NEAR = {
    NEAR: "not told from the figure of the method ranked just above it (paired over the pictures, ranks.csv; false "
    "discoveries below 5 %)"
}


def run_tables(
    metrics: Mapping[str, Figures],
    floors: Mapping[str, Mapping[str, Figures]] | None = None,
    published: Published | None = None,
    label: str = "This run",
) -> list[Table]:
    """One table a data set: the run, its floors, and the published methods where the set is an official one.

    Args:
        metrics: the content of metrics.json.
        floors: the content of floors.json.
        published: the paper's figures (`load_published`); None leaves them out.
        label: what to call the run.
    """
    out = []
    for dataset, figures in metrics.items():
        beside = (floors or {}).get(dataset) or {}
        columns = metrics_of([figures, *beside.values(), *_printed(dataset, published)])
        rows = [Row(label, of_metrics(columns, figures), "run")]
        rows += [Row(floor_label(name), of_metrics(columns, values), "floor") for name, values in beside.items()]
        count = finite(figures.get("images"))
        out.append(compared(dataset, rows, columns, None if count is None else int(count), published))
    return out


def benchmark_tables(
    entries: Sequence[Entry],
    published: Published | None = None,
    without: Sequence[str] = ("binary_ratio",),
    ranks: Sequence[Mapping[str, Any]] = (),
) -> list[Table]:
    """One table a data set of anybody's maps, the best three marked, beside the paper's Tables I and II.

    A method with missing maps has a dagger and is not ranked, since its figures are of other pictures.

    Args:
        entries: the methods' results.
        published: the paper's figures; None leaves them out.
        without: keys of figures that are not shown.
        ranks: rows of `intervals.rank_table`; ``≈`` marks a figure that is not told from the one ranked just above.
    """
    near = {(row["dataset"], row["next"], row["metric"]) for row in ranks if not row["apart"]}
    out = []
    for dataset in dict.fromkeys(entry.dataset for entry in entries):
        own = [entry for entry in entries if entry.dataset == dataset]
        columns = metrics_of([*(entry.scores for entry in own), *_printed(dataset, published, ("I", "II"))])
        columns = [column for column in columns if column.key not in without]
        rows = []
        for one in own:
            cells = of_metrics(columns, one.scores, one.complete)
            marked = {
                key: dataclasses.replace(cell, mark=NEAR)
                for key, cell in cells.items()
                if (dataset, one.method, key) in near
            }
            rows.append(Row(one.method + DAGGER * (not one.complete), {**cells, **marked}, "measured"))
        notes = [
            f"{DAGGER} {one.method}: {one.expected - len(one.pictures):,} of {one.expected:,} maps are missing or "
            f"unreadable; its figures are of the others, and are not ranked."
            for one in own
            if not one.complete
        ]
        images = max(entry.expected for entry in own)
        table = compared(dataset, rows, columns, images, published, ("I", "II"), places=3, notes=notes)
        out.append(dataclasses.replace(table, marks=_NEAR))
    return out


def compared(
    dataset: str,
    rows: Sequence[Row],
    columns: Sequence[Column],
    images: int | None,
    published: Published | None,
    tables: Sequence[str] = ("I",),
    *,
    places: int = 1,
    notes: Sequence[str] = (),
) -> Table:
    """Rows of one data set, the published ones below them, ranked.

    A misprint is printed as it is, with a footnote, and ranked by its right figure, or not at all where that is not
    known. Where other pictures were scored than the official set has, published figures are not ranked, and a note
    says so.
    """
    partial = remark(dataset, images, published)
    theirs = [row for name in tables for row in _published_rows(dataset, name, columns, published, not partial)]
    every = [*rows, *theirs]
    said = [*([partial] if partial else []), *notes]
    return Table(dataset, dataset, list(columns), every, said, images=images, places=places).shown().ranked()


def remark(dataset: str, images: int | None, published: Published | None) -> str:
    """One sentence where the published figures are not of the same pictures, else empty."""
    official = published.official_images(dataset) if published else None
    if official is None or images is None or images == official:
        return ""
    return (
        f"{images:,} pictures were scored; the official {dataset} has {official:,}. The published figures are of all "
        f"of them: they are not ranked here."
    )


def _printed(dataset: str, published: Published | None, tables: Sequence[str] = ("I",)) -> list[Mapping[str, float]]:
    if published is None or published.official_name(dataset) is None:
        return []
    return [row.values for name in tables for row in published.rows(name, dataset)]


def _published_rows(
    dataset: str, table: str, columns: Sequence[Column], published: Published | None, competes: bool
) -> Iterator[Row]:
    if published is None or published.official_name(dataset) is None:
        return
    for number, row in enumerate(published.rows(table, dataset)):
        cells: dict[str, Cell] = {}
        for column in columns:
            if column.key in row.values:
                cell, wrong = column.cell(row.values[column.key], competes), row.misprints.get(column.key)
                cells[column.key] = dataclasses.replace(cell, rival=wrong.correct, note=wrong.note) if wrong else cell
        aside = str(row.year or "paper") if table == "I" else f"Table {table}"
        yield Row(row.method, cells, "published", aside, first=number == 0)


def csv_benchmark(entries: Sequence[Entry]) -> str:
    """A row a method and data set, every figure in full, for a program to read."""
    heads = ["dataset", "method", "complete", "scored", "expected"]
    figures = dict.fromkeys(key for entry in entries for key in entry.scores)
    return csv_text(
        [
            {"dataset": e.dataset, "method": e.method, "complete": e.complete, "scored": len(e.pictures),
             "expected": e.expected, **e.scores}
            for e in entries
        ],
        [*heads, *figures],
    )  # fmt: skip


def json_benchmark(entries: Sequence[Entry], protocol: str) -> dict[str, Any]:
    """Everything but the maps' scores a picture: figures, curves, and what is missing, extra or odd."""
    results = [
        {
            "dataset": entry.dataset, "method": entry.method, "complete": entry.complete,
            "scored": len(entry.pictures), "expected": entry.expected,
            "scores": {key: finite(value) for key, value in entry.scores.items()},
            **entry.curves, "missing": entry.missing, "extra": entry.extra, "resized": entry.resized,
            "failed": entry.failed, "notes": entry.notes,
        }
        for entry in entries
    ]  # fmt: skip
    return {"protocol": protocol, "thresholds": list(range(255, -1, -1)), "results": results}
