"""The interactive leaderboard: one HTML page without outside files, from the results of `qefpn benchmark`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qefpn.atomic import write_atomic
from qefpn.data.layouts import Pair
from qefpn.reporting.benchmark_figures import datasets_of, e_panel, f_panel, pr_panel
from qefpn.reporting.charts import COLOURS, Chart, method_styles, new_figure, page_svg
from qefpn.reporting.comparison import benchmark_tables
from qefpn.reporting.pictures import Array, choose, data_uri, picture_scores, read_looks, shrink
from qefpn.reporting.profile_tables import paper_columns, paper_rows
from qefpn.reporting.published import load_published
from qefpn.reporting.renderers import page
from qefpn.reporting.tables import DAGGER, DASH, Cell, Column, Row, Table, beside, finite

if TYPE_CHECKING:
    from qefpn.benchmark.entries import Entry

#: figures that are shown at first; the others can be chosen
SHOWN = ("mae", "mean_f", "weighted_f", "max_f", "s_measure", "e_measure")
#: scores a picture, shown beside its maps
PICTURE_SCORES = ("weighted_f", "mae", "s_measure", "mean_f", "e_measure")

#: pictures a data set, at most, and bytes of all pictures together: the page stays below 15 MB
MOST_PICTURES, PICTURE_BYTES = 24, 12_000_000
#: longest side of a thumbnail by how many methods there are, at most
SIDES = ((8, 256), (16, 200), (10**9, 144))
#: names of missing maps that the page lists one by one
_LISTED = 20


def write_leaderboard(
    entries: Sequence[Entry],
    pairs_by_dataset: Mapping[str, Sequence[Pair]],
    path: Path,
    published: bool,
    ranks: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """Write the leaderboard as one self-contained HTML page, for any browser, from a file, without a network.

    The page sorts by any column, filters methods, shows and hides data sets and metrics, highlights a method in all
    curves, and opens a picture across methods. What it shows is kept in the address after ``#``, so that a view can
    be linked: ``sort=DATA SET:METRIC`` with ``asc`` or ``desc`` (best first without), ``method=TEXT``,
    ``hide=DATA SET``, ``columns=METRIC,METRIC``, ``published=0``, ``highlight=METHOD``, ``picture=DATA SET/NAME``.

    Args:
        entries: the methods' results; an incomplete one is marked with a dagger and is not ranked.
        pairs_by_dataset: the pictures and masks of each data set.
        path: the file; its folder is made where it does not exist.
        published: whether the paper's Tables I to III stand beside the results, known misprints explained.
        ranks: rows of `intervals.rank_table`, for marks at figures that are not told from the next better one.

    Returns:
        the file.
    """
    paper = load_published() if published else None
    tables = benchmark_tables(entries, paper, (), ranks)
    alone = beside(benchmark_tables(entries, None, without=()))
    pictures = {name: list(_picture_rows(entries, name, pairs_by_dataset)) for name in datasets_of(entries)}
    contents = [
        ("table", "Table"),
        ("curves-section", "Curves"),
        ("pictures-section", "Pictures"),
        ("found", "Maps found"),
    ]
    text = page(
        "leaderboard.html",
        title="Leaderboard",
        contents=contents + ([("sizes", "Table III")] if paper else []),
        data=_script_json(page_data(tables, entries, pictures)),
        tables=tables,
        board=beside(tables),
        columns=[(table.title, column.key) for table in tables for column in table.columns],
        alone={(row.label, column.key): row.cell(column).rank for row in alone.rows for column in alone.columns},
        incomplete=[entry for entry in entries if not entry.complete],
        styles=method_styles(entries),
        series={colour: f"--series-{number}" for number, colour in enumerate(COLOURS, 1)},
        curves=[(name, _curves(name, number, entries)) for number, name in enumerate(datasets_of(entries))],
        states=_states(entries),
        source=paper.source if paper else None,
        sizes=Table("sizes", paper.title("III"), paper_columns(), paper_rows(paper)) if paper else None,
        side=_side(entries),
    )
    write_atomic(path, text)
    return [path]


def _script_json(data: Any) -> str:
    """JSON that no file name can break out of its script element with; NaN is null."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def page_data(tables: Sequence[Table], entries: Sequence[Entry], pictures: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's script needs beside the table and the curves."""
    columns = {column.key: column for table in tables for column in table.columns}
    return {
        "metrics": [
            {"key": one.key, "label": one.label, "title": one.title, "digits": one.digits, "lower": one.better == "low",
             "shown": one.key in SHOWN}
            for one in columns.values()
        ],
        "datasets": [{"name": table.title, "images": table.images} for table in tables],
        "methods": list(method_styles(entries)),
        "pictures": pictures,
    }  # fmt: skip


def _curves(dataset: str, number: int, entries: Sequence[Entry]) -> list[Chart]:
    """The charts of a data set, each line in a group that is named by its method."""
    own = [entry for entry in entries if entry.dataset == dataset and entry.curves]
    kinds: list[tuple[str, str, Callable[..., None]]] = [
        ("F-measure over the threshold", "F", f_panel), ("Precision over recall", "precision", pr_panel),
        ("E-measure over the threshold", "E", e_panel),
    ]  # fmt: skip
    return [
        Chart(title, _curve(f"{kind.__name__}{number}", title, label, kind, own, method_styles(entries)))
        for title, label, kind in kinds
        if own
    ]


def _curve(
    identifier: str, title: str, label: str, panel: Callable[..., None], entries: Sequence[Entry], styles: Any
) -> str:
    width, height = 5.4, 3.5
    left, bottom, right, top = 0.5, 0.5, 5.25, 3.4  # inches: fixed, so that the script knows where the axes are
    with new_figure(width, height, salt=identifier, layout=None, simplify=False) as figure:
        axes = figure.add_axes((left / width, bottom / height, (right - left) / width, (top - bottom) / height))
        panel(axes, entries, styles)
        names = [entry.method for entry in reversed(entries)]  # as they are drawn
        for place, line in enumerate(axes.lines):
            line.set_gid(f"line-{place}")
        svg = page_svg(figure, identifier, title)
        scale = {
            "x": (72 * left, 72 * right, *axes.get_xlim()),
            "y": (72 * (height - bottom), 72 * (height - top), *axes.get_ylim()),
        }
        labels = (axes.get_xlabel().lower(), label)
    for place, name in enumerate(names):
        svg = svg.replace(
            f'<g id="{identifier}-line-{place}">', f'<g class="line" data-method="{escape(name, quote=True)}">'
        )
    ends = " ".join(f'data-{axis}="{" ".join(f"{v:.6g}" for v in values)}"' for axis, values in scale.items())
    return svg.replace("<svg ", f'<svg {ends} data-labels="{" ".join(labels)}" ', 1)


def _side(entries: Sequence[Entry]) -> int:
    methods = len(method_styles(entries))
    return next(side for most, side in SIDES if methods <= most)


def _picture_rows(
    every: Sequence[Entry], dataset: str, pairs_by_dataset: Mapping[str, Sequence[Pair]]
) -> Iterator[dict[str, Any]]:
    """The most telling pictures of one data set, until their bytes are used up."""
    entries, side = [entry for entry in every if entry.dataset == dataset], _side(every)
    pairs = {pair.name: pair for pair in pairs_by_dataset.get(dataset, ())}
    tables = {entry.method: picture_scores(entry) for entry in entries}
    left = PICTURE_BYTES // len(datasets_of(every))
    for choice in choose(list(tables.values()), MOST_PICTURES):
        if choice.name not in pairs:
            continue
        looks = read_looks(pairs[choice.name], entries)
        maps = {
            entry.method: {
                "src": _thumbnail(saliency, side),
                "why": entry.failed.get(choice.name, "no map") if saliency is None else "",
                "scores": {key: finite(tables[entry.method].get(choice.name, {}).get(key)) for key in PICTURE_SCORES},
            }
            for entry, saliency in zip(entries, looks.maps, strict=True)
        }
        row = {"picture": _thumbnail(looks.picture, side), "mask": _thumbnail(looks.mask, side), "maps": maps}
        left -= sum(len(str(one)) for one in (row["picture"], row["mask"], *(one["src"] for one in maps.values())))
        if left < 0:
            return
        yield dataclasses.asdict(choice) | row


def _thumbnail(image: Array | None, side: int) -> str:
    """A data URI, or "" where there is no picture."""
    return "" if image is None else data_uri(shrink(image, side), quality=80)


def _states(entries: Sequence[Entry]) -> Table:
    """How complete each method is on each data set."""
    heads = ("Data set", "Scored", "Missing", "Not readable", "Without a picture", "Resized to the mask")
    rows = []
    for entry in entries:
        failed = [f"{name}: {reason}" for name, reason in entry.failed.items()]
        lists = (entry.missing, failed, entry.extra, entry.resized)
        cells = [Cell(entry.dataset), Cell(f"{len(entry.pictures):,} of {entry.expected:,}"), *map(_names, lists)]
        label = entry.method + f" {DAGGER}" * (not entry.complete)
        rows.append(Row(label, dict(zip(heads, cells, strict=True))))
    return Table("found", "Maps found", [Column(head, head, left=True) for head in heads], rows, head="Method")


def _names(names: Sequence[str]) -> Cell:
    """How many, and the first of them below."""
    more = len(names) - _LISTED
    listed = ", ".join(names[:_LISTED]) + (f" and {more:,} more" if more > 0 else "")
    return Cell(f"{len(names):,}" if names else DASH, details=listed)
