"""The interactive leaderboard: one HTML page without outside files, from the results of `qefpn benchmark`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from qefpn.atomic import write_atomic
from qefpn.data.layouts import Pair
from qefpn.reporting.comparison import (
    Array,
    axis_floor,
    choose_pictures,
    datasets_of,
    method_styles,
    picture_scores,
    read_looks,
)
from qefpn.reporting.pictures import shrink
from qefpn.reporting.published import Published, PublishedRow, load_published
from qefpn.reporting.tables import METRICS, Metric, finite

if TYPE_CHECKING:
    from qefpn.benchmark.entries import Entry

#: columns that the page can show; the first six are shown at first
COLUMNS = (
    *METRICS,
    Metric("mean_curve_f", "mean F curve", "F-measure averaged over 256 thresholds"),
    Metric("mean_e", "mean E", "Enhanced-alignment measure averaged over 256 thresholds"),
    Metric("max_e", "max E", "Maximum enhanced-alignment measure over 256 thresholds"),
)
SHOWN = tuple(metric.key for metric in METRICS if metric.key != "binary_ratio")
#: scores a picture, shown beside its maps
PICTURE_SCORES = ("weighted_f", "mae", "s_measure", "mean_f", "e_measure")

#: pictures a data set, at most, and bytes of all pictures together: the page stays below 15 MB
MOST_PICTURES, PICTURE_BYTES = 24, 12_000_000
#: longest side of a thumbnail by how many methods there are, at most
SIDES = ((8, 256), (16, 200), (10**9, 144))
_JPEG_QUALITY = 80
#: names of missing maps that the page lists one by one
_LISTED = 20


def write_leaderboard(
    entries: Sequence[Entry], pairs_by_dataset: Mapping[str, Sequence[Pair]], path: Path, published: bool
) -> None:
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
    """
    import jinja2

    paper = load_published() if published else None
    templates = resources.files("qefpn.reporting") / "templates"
    names = ("leaderboard.html", "report.css", "leaderboard.css", "leaderboard.js")
    sources = {name: (templates / name).read_text(encoding="utf-8") for name in names}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({name: sources[name] for name in names[:3]}), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    data = page_data(entries, pairs_by_dataset, paper)
    page = environment.get_template("leaderboard.html").render(
        data=_script_json(data),
        script=sources["leaderboard.js"],
        datasets=data["datasets"],
        incomplete=any(not entry.complete for entry in entries),
        states=[_state(entry) for entry in entries],
        source=paper.source if paper else None,
        sizes=_sizes(paper) if paper else None,
        notes=data["notes"],
        side=_side(entries),
    )
    write_atomic(path, page)


def _script_json(data: Any) -> str:
    """JSON that no file name can break out of its script element with; NaN is null."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def page_data(
    entries: Sequence[Entry], pairs_by_dataset: Mapping[str, Sequence[Pair]], published: Published | None
) -> dict[str, Any]:
    """Everything that the page's script shows."""
    datasets = datasets_of(entries)
    notes: list[str] = []
    methods = _measured(entries)
    if published is not None:
        methods += _published(entries, published, notes)
    present = {
        key for method in methods for cell in method["cells"].values() for key, value in cell["values"].items()
        if value is not None
    }  # fmt: skip
    return {
        "metrics": [
            {
                "key": metric.key, "label": metric.label, "title": metric.title, "digits": metric.digits,
                "lower": metric.lower_is_better, "shown": metric.key in SHOWN,
            }
            for metric in COLUMNS if metric.key in present
        ],
        "datasets": [_dataset(name, entries, published) for name in datasets],
        "methods": methods,
        "notes": notes,
        "curves": {name: _curves([entry for entry in entries if entry.dataset == name]) for name in datasets},
        "pictures": _pictures(entries, pairs_by_dataset),
    }  # fmt: skip


def _dataset(name: str, entries: Sequence[Entry], published: Published | None) -> dict[str, Any]:
    images = _images(name, entries)
    official = published.official_images(name) if published else None
    remark = ""
    if official is not None and official != images:
        remark = (
            f"{images:,} pictures of {name} were scored; the official set has {official:,}, and the published figures "
            f"are of all of them: compare with care. They are not marked here."
        )
    return {"name": name, "images": images, "remark": remark}


def _images(name: str, entries: Sequence[Entry]) -> int:
    return max((entry.expected for entry in entries if entry.dataset == name), default=0)


def _measured(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    rows = []
    for method, style in method_styles(entries).items():
        cells = {}
        for entry in entries:
            if entry.method == method:
                values = {metric.key: finite(entry.scores.get(metric.key)) for metric in COLUMNS}
                cells[entry.dataset] = {
                    "values": values, "complete": entry.complete, "scored": len(entry.pictures),
                    "expected": entry.expected,
                }  # fmt: skip
        rows.append({"name": method, "colour": style.colour, "dashes": list(style.dashes), "cells": cells})
    return rows


def _published(entries: Sequence[Entry], published: Published, notes: list[str]) -> list[dict[str, Any]]:
    """Rows of Tables I and II that have a figure on a data set of ``entries``; footnotes go to ``notes``."""
    datasets = datasets_of(entries)
    out: list[dict[str, Any]] = []
    for table in ("I", "II"):
        rows: dict[str, dict[str, Any]] = {}
        for dataset in datasets:
            if published.official_name(dataset) is None:
                continue
            for row in published.rows(table, dataset):
                entry = rows.setdefault(
                    row.method, {"name": row.method, "published": f"Table {table}", "year": row.year, "cells": {}}
                )
                cell = _published_cell(row, notes)
                if published.official_images(dataset) != _images(dataset, entries):
                    cell["elsewhere"] = True  # of other pictures than those that were scored
                entry["cells"][dataset] = cell
        out += rows.values()
    return out


def _published_cell(row: PublishedRow, notes: list[str]) -> dict[str, Any]:
    marks, ranked = {}, {}
    for key, misprint in row.misprints.items():
        if misprint.note not in notes:
            notes.append(misprint.note)
        marks[key] = notes.index(misprint.note) + 1
        ranked[key] = misprint.correct  # None: the right figure is not known, and nothing ranks
    return {"values": dict(row.values), "complete": True, "notes": marks, "ranked": ranked}


def _sizes(published: Published) -> dict[str, Any]:
    """Table III, which is of no data set."""
    rows = []
    notes: list[str] = []
    for row in published.rows("III"):
        for misprint in row.misprints.values():
            if misprint.note not in notes:
                notes.append(misprint.note)
        marks = {key: notes.index(one.note) + 1 for key, one in row.misprints.items()}
        rows.append((row.method, [(f"{value:.2f}", marks.get(key)) for key, value in row.values.items()]))
    return {"title": published.title("III"), "rows": rows, "notes": notes}


def _curves(entries: Sequence[Entry]) -> dict[str, Any]:
    curves = {
        entry.method: {"f": _short(entry.f_curve), "p": _short(entry.precision), "r": _short(entry.recall)}
        for entry in entries if len(entry.f_curve)
    }  # fmt: skip
    names = {"f": "f_curve", "p": "precision", "r": "recall"}
    floors = {key: axis_floor(getattr(entry, name) for entry in entries) for key, name in names.items()}
    return {"methods": curves, "floors": floors}


def _short(values: Sequence[float]) -> list[float | None]:
    return [None if (number := finite(value)) is None else round(number, 4) for value in values]


def _side(entries: Sequence[Entry]) -> int:
    methods = len(method_styles(entries))
    return next(side for most, side in SIDES if methods <= most)


def _pictures(entries: Sequence[Entry], pairs_by_dataset: Mapping[str, Sequence[Pair]]) -> dict[str, list[Any]]:
    datasets = datasets_of(entries)
    return {
        dataset: list(
            _picture_rows(
                [entry for entry in entries if entry.dataset == dataset],
                {pair.name: pair for pair in pairs_by_dataset.get(dataset, ())},
                _side(entries),
                PICTURE_BYTES // len(datasets),
            )
        )
        for dataset in datasets
    }


def _picture_rows(
    entries: Sequence[Entry], pairs: Mapping[str, Pair], side: int, most_bytes: int
) -> Iterator[dict[str, Any]]:
    """The most telling pictures of one data set, until their bytes are used up."""
    tables = {entry.method: picture_scores(entry) for entry in entries}
    used = 0
    for choice in choose_pictures(entries, entries[0].dataset, MOST_PICTURES):
        if choice.name not in pairs:
            continue
        looks = read_looks(pairs[choice.name], entries)
        maps = {
            entry.method: {
                "src": _jpeg(saliency, side),
                "why": _why_no_map(entry, choice.name) if saliency is None else "",
                "scores": {key: finite(tables[entry.method].get(choice.name, {}).get(key)) for key in PICTURE_SCORES},
            }
            for entry, saliency in zip(entries, looks.maps, strict=True)
        }
        picture, mask = _jpeg(looks.picture, side), _jpeg(looks.mask, side)
        used += len(picture) + len(mask) + sum(len(str(one["src"])) for one in maps.values())
        if used > most_bytes:
            return
        yield {
            "name": choice.name, "why": choice.why, "key": choice.key, "spread": choice.spread, "mean": choice.mean,
            "picture": picture, "mask": mask, "maps": maps,
        }  # fmt: skip


def _why_no_map(entry: Entry, name: str) -> str:
    return entry.failed.get(name, "no map")


def _jpeg(image: Array | None, side: int) -> str:
    """A data URI, or "" where there is no picture. ``image`` is grey or RGB."""
    if image is None:
        return ""
    small = shrink(image, side)
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]) if small.ndim == 3 else small, options)
    if not done:
        raise ValueError(f"an image of shape {image.shape} could not be encoded")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _state(entry: Entry) -> dict[str, Any]:
    """How complete a method is on a data set, in words."""
    lists = (("missing", entry.missing), ("extra", entry.extra), ("resized", entry.resized))
    texts = {kind: _names(names) for kind, names in lists}
    failed = [f"{name}: {reason}" for name, reason in entry.failed.items()]
    return {
        "method": entry.method, "dataset": entry.dataset, "complete": entry.complete,
        "scored": len(entry.pictures), "expected": entry.expected, "failed": _names(failed), **texts,
    }  # fmt: skip


def _names(names: Sequence[str]) -> tuple[int, str]:
    """How many, and the first of them."""
    more = len(names) - _LISTED
    return len(names), ", ".join(names[:_LISTED]) + (f" and {more:,} more" if more > 0 else "")
