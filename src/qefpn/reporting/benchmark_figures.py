"""The paper's Fig. 5 and Fig. 6 of any methods: curves a data set, and pictures beside every method's map."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qefpn.atomic import atomic_file
from qefpn.data.layouts import Pair
from qefpn.errors import UserError
from qefpn.reporting.comparison import (
    Choice,
    Looks,
    Style,
    axis_floor,
    choose_pictures,
    datasets_of,
    method_styles,
    read_looks,
)
from qefpn.reporting.pictures import shrink
from qefpn.text import one_line

if TYPE_CHECKING:
    from qefpn.benchmark.entries import Entry

#: pictures of the grid where none are named
ROWS = 8
#: longest side of a picture in the grid, pixels: sharp in print at the width of a column
LONGEST = 360

_INK, _SOFT, _GRID = "#1b1f24", "#5c6670", "#dfe3e8"
_FONT: Any = {
    "font.size": 8,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "qefpn",
    "pdf.fonttype": 42,
}


def draw_curves(entries: Sequence[Entry], directory: Path) -> list[Path]:
    """Draw all methods' curves, a column of two panels a data set.

    The first row is the F-measure over the threshold, the second precision over recall, as in Fig. 5 of the paper.
    A method with missing maps has a dagger in the legend, and its curves are those of the maps that are there.

    Args:
        entries: the methods' results; those without curves are left out.
        directory: where ``curves.png``, ``curves.svg`` and ``curves.pdf`` go; made where it does not exist.

    Returns:
        the files written; none where no entry has a curve.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [entry for entry in entries if len(entry.f_curve)]
    if not drawn:
        return []
    datasets, styles = datasets_of(drawn), method_styles(entries)
    with rc_context(_FONT):
        legend_columns = min(len(styles), max(2, math.floor(2.9 * len(datasets) / _legend_width(styles))))
        legend_height = 0.19 * math.ceil(len(styles) / legend_columns) + 0.1
        width = max(4.2, 2.9 * len(datasets) + 0.4)
        figure = Figure(figsize=(width, 5.2 + legend_height), layout="constrained")  # no pyplot: no global state
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, len(datasets), squeeze=False)
        for column, dataset in enumerate(datasets):
            own = [entry for entry in drawn if entry.dataset == dataset]
            _f_panel(axes[0, column], own, styles)
            _pr_panel(axes[1, column], own, styles)
            axes[0, column].set_title(one_line(dataset), fontsize=10, color=_INK, parse_math=False)
            if column == 0:
                axes[0, 0].set_ylabel("F-measure (β² = 0.3)", color=_INK)
                axes[1, 0].set_ylabel("Precision", color=_INK)
        _legend(figure, drawn, styles, legend_columns)
        directory.mkdir(parents=True, exist_ok=True)
        return [_save(figure, directory / f"curves.{kind}") for kind in ("png", "svg", "pdf")]


def _legend_width(styles: Mapping[str, Style]) -> float:
    """Inches that one column of the legend takes."""
    return 0.6 + 0.068 * max(map(len, styles))


def _f_panel(axes: Any, entries: Sequence[Entry], styles: Mapping[str, Style]) -> None:
    for entry in reversed(entries):  # the first method lies on top
        values = np.asarray(entry.f_curve, float)
        thresholds = 255 - np.arange(len(values))  # index 0 is the threshold 255
        axes.plot(thresholds, values, **_line(styles[entry.method]))
    axes.set_xlim(0, 255)
    axes.set_xticks([0, 50, 100, 150, 200, 250])
    axes.set_ylim(axis_floor(entry.f_curve for entry in entries), 1)
    axes.set_xlabel("Threshold", color=_INK)
    _finish(axes)


def _pr_panel(axes: Any, entries: Sequence[Entry], styles: Mapping[str, Style]) -> None:
    for entry in reversed(entries):
        axes.plot(entry.recall, entry.precision, **_line(styles[entry.method]))
    axes.set_xlim(axis_floor(entry.recall for entry in entries), 1)
    axes.set_ylim(axis_floor(entry.precision for entry in entries), 1)
    axes.set_xlabel("Recall", color=_INK)
    _finish(axes)


def _line(style: Style) -> dict[str, Any]:
    return {"color": style.colour, "linewidth": 1.3, "linestyle": (0, style.dashes) if style.dashes else "-"}


def _finish(axes: Any) -> None:
    axes.grid(True, color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_SOFT, length=0, pad=5)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("bottom", "left"))
        spine.set_color(_SOFT)


def _legend(figure: Any, entries: Sequence[Entry], styles: Mapping[str, Style], columns: int) -> None:
    from matplotlib.lines import Line2D

    incomplete = {entry.method for entry in entries if not entry.complete}
    handles = [
        Line2D([], [], label=method + (" †" if method in incomplete else ""), **_line(style))
        for method, style in styles.items()
    ]
    title = "† some maps are missing" if incomplete else None
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, labelcolor=_INK, handlelength=3.2,
        title=title, title_fontsize=7,
    )  # fmt: skip
    legend.set_frame_on(False)


def _save(figure: Any, path: Path) -> Path:
    kind = path.suffix[1:]
    # dates would make equal figures differ
    metadata: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with atomic_file(path) as part:
        figure.savefig(part, format=kind, dpi=200, facecolor="white", metadata=metadata.get(kind))
    return path


def draw_grid(
    entries: Sequence[Entry],
    pairs_by_dataset: Mapping[str, Sequence[Pair]],
    directory: Path,
    names: list[str] | None = None,
) -> Path:
    """Draw pictures in rows: picture, mask, and the map of each method, as in Fig. 6 of the paper.

    Args:
        entries: the methods' results.
        pairs_by_dataset: the pictures and masks of each data set.
        directory: where ``grid.png`` and ``grid.pdf`` go; made where it does not exist.
        names: pictures to show, as ``name`` or ``data set/name``, in this order. Without, the pictures where the
            methods differ most are chosen, `ROWS` in all and equally many a data set; with one method the worst,
            the best and some between.

    Returns:
        the path of ``grid.png``.

    Raises:
        UserError: a name that no data set has, or nothing to show.
    """
    rows = _named(pairs_by_dataset, names) if names else _telling(entries, pairs_by_dataset)
    if not rows:
        raise UserError("no grid of pictures: no method has the map of any picture")
    methods = list(method_styles(entries))
    by_key = {(entry.dataset, entry.method): entry for entry in entries}
    looks = []
    for dataset, pair in rows:
        present = [entry for method in methods if (entry := by_key.get((dataset, method)))]
        read = read_looks(pair, present)
        found = {entry.method: saliency for entry, saliency in zip(present, read.maps, strict=True)}
        looks.append(Looks(read.picture, read.mask, [found.get(method) for method in methods]))
    figure = _grid_figure(methods, [one_line(pair.name) for _, pair in rows], looks)
    directory.mkdir(parents=True, exist_ok=True)
    _save(figure, directory / "grid.pdf")
    return _save(figure, directory / "grid.png")


def _named(pairs_by_dataset: Mapping[str, Sequence[Pair]], names: Sequence[str]) -> list[tuple[str, Pair]]:
    rows = []
    for wanted in names:
        found = [
            (dataset, pair)
            for dataset, pairs in pairs_by_dataset.items()
            for pair in pairs
            if wanted in (pair.name, f"{dataset}/{pair.name}")
        ]
        if not found:
            raise UserError(f"no data set has a picture {wanted!r} for the grid; names are without a suffix")
        rows += found
    return rows


def _telling(entries: Sequence[Entry], pairs_by_dataset: Mapping[str, Sequence[Pair]]) -> list[tuple[str, Pair]]:
    datasets = [name for name in datasets_of(entries) if pairs_by_dataset.get(name)]
    rows = []
    for dataset in datasets:
        pairs = {pair.name: pair for pair in pairs_by_dataset[dataset]}
        each = max(1, ROWS // len(datasets))
        chosen: list[Choice] = choose_pictures(entries, dataset, each, why=("differ",))
        chosen = chosen or choose_pictures(entries, dataset, each, why=("worst", "between", "best"))
        rows += [(dataset, pairs[one.name]) for one in chosen if one.name in pairs]
    return rows


def _grid_figure(methods: Sequence[str], names: Sequence[str], looks: Sequence[Looks]) -> Any:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    titles = ["Picture", "Mask", *methods]
    cell, gap, left = 1.15, 0.05, 0.02  # inches
    heights = [cell * _ratio(one) for one in looks]
    titles = [textwrap.fill(" ".join(title.split()), 16, max_lines=4) for title in titles]  # 16 letters fit a column
    head = 0.12 + 0.14 * max(title.count("\n") + 1 for title in titles)
    width = left + len(titles) * (cell + gap)
    height = head + sum(heights) + gap * len(heights)
    with rc_context(_FONT):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        for column, title in enumerate(titles):
            x = (left + column * (cell + gap) + cell / 2) / width
            y = 1 - (head - 0.06) / height
            figure.text(x, y, title, ha="center", va="bottom", fontsize=8, color=_INK, parse_math=False)
        top = head
        for name, one, row_height in zip(names, looks, heights, strict=True):
            images = [one.picture, one.mask, *one.maps]
            for column, image in enumerate(images):
                x = left + column * (cell + gap)
                box = (x / width, 1 - (top + row_height) / height, cell / width, row_height / height)
                absent = "cannot be read" if column < 2 else "no map"
                _draw_cell(figure.add_axes(box, label=f"{name}:{column}"), image, absent)
            top += row_height + gap
    return figure


def _ratio(looks: Looks) -> float:
    """Height of a row as a share of its cells' width: as the picture's shape has it, within bounds."""
    shapes = [image.shape for image in (looks.picture, looks.mask, *looks.maps) if image is not None]
    if not shapes:
        return 0.75
    return min(1.25, max(0.4, shapes[0][0] / shapes[0][1]))


def _draw_cell(axes: Any, image: Any, absent: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(image is None)
        spine.set_color(_GRID)
    if image is None:
        axes.text(0.5, 0.5, absent, ha="center", va="center", fontsize=7, color=_SOFT, transform=axes.transAxes)
        return
    shown = {} if image.ndim == 3 else {"cmap": "gray", "vmin": 0, "vmax": 255}
    axes.imshow(shrink(image, LONGEST), aspect="equal", interpolation="antialiased", **shown)
