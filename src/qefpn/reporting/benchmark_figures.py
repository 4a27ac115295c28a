"""The paper's Fig. 5 and Fig. 6 of any methods: curves a data set, and pictures beside every method's map."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qefpn.data.layouts import Pair
from qefpn.errors import UserError
from qefpn.reporting.charts import GRID, INK, SOFT, Style, axis_floor, finish, legend, method_styles, new_figure, save
from qefpn.reporting.pictures import Looks, choose, picture_scores, read_looks, shrink
from qefpn.reporting.tables import DAGGER
from qefpn.text import one_line

if TYPE_CHECKING:
    from qefpn.benchmark.entries import Entry

#: pictures of the grid where none are named
ROWS = 8
#: longest side of a picture in the grid, pixels: what a cell has at 200 dpi, so that nothing is resampled
LONGEST = 230


def datasets_of(entries: Sequence[Entry]) -> list[str]:
    """Data sets in order of appearance."""
    return list(dict.fromkeys(entry.dataset for entry in entries))


def draw_curves(entries: Sequence[Entry], directory: Path) -> list[Path]:
    """Draw all methods' curves, a column of three panels a data set.

    The first row is the F-measure over the threshold, the second precision over recall, as in Fig. 5 of the paper, the
    third the E-measure over the threshold.
    A method with missing maps has a dagger in the legend, and its curves are those of the maps that are there.

    Args:
        entries: the methods' results; those without curves are left out.
        directory: where ``curves.png``, ``curves.svg`` and ``curves.pdf`` go; made where it does not exist.

    Returns:
        the files written; none where no entry has a curve.
    """
    drawn = [entry for entry in entries if entry.curves]
    if not drawn:
        return []
    datasets, styles = datasets_of(drawn), method_styles(entries)
    columns = min(len(styles), max(2, math.floor(2.9 * len(datasets) / (0.6 + 0.068 * max(map(len, styles))))))
    height = 7.8 + 0.19 * math.ceil(len(styles) / columns)
    with new_figure(max(4.2, 2.9 * len(datasets) + 0.4), height) as figure:
        axes = figure.subplots(3, len(datasets), squeeze=False)
        for column, dataset in enumerate(datasets):
            own = [entry for entry in drawn if entry.dataset == dataset]
            f_panel(axes[0, column], own, styles, "" if column else "F-measure (β² = 0.3)")
            pr_panel(axes[1, column], own, styles, "" if column else "Precision")
            e_panel(axes[2, column], own, styles, "" if column else "E-measure")
            axes[0, column].set_title(one_line(dataset), fontsize=10, color=INK, parse_math=False)
        incomplete = {entry.method for entry in drawn if not entry.complete}
        lines = {method + f" {DAGGER}" * (method in incomplete): one for method, one in styles.items()}
        legend(figure, lines, columns, f"{DAGGER} some maps are missing" if incomplete else None)
        return save(figure, directory, "curves", ("png", "svg", "pdf"))


def _over_thresholds(axes: Any, entries: Sequence[Entry], styles: Mapping[str, Style], key: str, label: str) -> None:
    for entry in reversed(entries):  # the first method lies on top
        thresholds = 255 - np.arange(len(entry.curves[key]))  # index 0 is the threshold 255
        axes.plot(thresholds, entry.curves[key], linewidth=1.3, **styles[entry.method].line)
    axes.set(xlim=(0, 255), ylim=(axis_floor(entry.curves[key] for entry in entries), 1))
    axes.set_xticks([0, 50, 100, 150, 200, 250])
    finish(axes, "Threshold", label)


def f_panel(axes: Any, entries: Sequence[Entry], styles: Mapping[str, Style], label: str = "") -> None:
    """The F-measure of one data set's methods over the threshold."""
    _over_thresholds(axes, entries, styles, "f_curve", label)


def e_panel(axes: Any, entries: Sequence[Entry], styles: Mapping[str, Style], label: str = "") -> None:
    """The enhanced-alignment measure of one data set's methods over the threshold."""
    _over_thresholds(axes, entries, styles, "e_curve", label)


def pr_panel(axes: Any, entries: Sequence[Entry], styles: Mapping[str, Style], label: str = "") -> None:
    """The precision of one data set's methods over their recall."""
    for entry in reversed(entries):
        axes.plot(entry.curves["recall"], entry.curves["precision"], linewidth=1.3, **styles[entry.method].line)
    axes.set(
        xlim=(axis_floor(entry.curves["recall"] for entry in entries), 1),
        ylim=(axis_floor(entry.curves["precision"] for entry in entries), 1),
    )
    finish(axes, "Recall", label)


def draw_grid(
    entries: Sequence[Entry],
    pairs_by_dataset: Mapping[str, Sequence[Pair]],
    directory: Path,
    names: list[str] | None = None,
) -> list[Path]:
    """Draw pictures in rows: picture, mask, and the map of each method, as in Fig. 6 of the paper.

    Args:
        entries: the methods' results.
        pairs_by_dataset: the pictures and masks of each data set.
        directory: where ``grid.png`` and ``grid.pdf`` go; made where it does not exist.
        names: pictures to show, as ``name`` or ``data set/name``, in this order. Without, the pictures where the
            methods differ most are chosen, `ROWS` in all and equally many a data set; with one method the worst,
            the best and some between.

    Returns:
        the files written.

    Raises:
        UserError: a name that no data set has, or nothing to show.
    """
    rows = named_pictures(pairs_by_dataset, names) if names else _telling(entries, pairs_by_dataset)
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
    return _draw(methods, looks, directory)


def named_pictures(pairs_by_dataset: Mapping[str, Sequence[Pair]], names: Sequence[str]) -> list[tuple[str, Pair]]:
    """Data set and files of pictures that are named as ``name`` or ``data set/name``.

    Raises:
        UserError: a name that no data set has.
    """
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
    each = max(1, ROWS // max(1, len(datasets)))
    rows = []
    for dataset in datasets:
        pairs = {pair.name: pair for pair in pairs_by_dataset[dataset]}
        tables = [picture_scores(entry) for entry in entries if entry.dataset == dataset]
        chosen = choose(tables, each, why=("differ",)) or choose(tables, each, why=("worst", "between", "best"))
        rows += [(dataset, pairs[one.name]) for one in chosen if one.name in pairs]
    return rows


def _draw(methods: Sequence[str], looks: Sequence[Looks], directory: Path) -> list[Path]:
    cell, gap, left = 1.15, 0.05, 0.02  # inches
    heights = [cell * _ratio(one) for one in looks]
    titles = [textwrap.fill(" ".join(title.split()), 16, max_lines=4) for title in ("Picture", "Mask", *methods)]
    head = 0.12 + 0.14 * max(title.count("\n") + 1 for title in titles)  # 16 letters fit a column
    width, height = left + len(titles) * (cell + gap), head + sum(heights) + gap * len(heights)
    with new_figure(width, height, layout=None) as figure:
        for column, title in enumerate(titles):
            x, y = (left + column * (cell + gap) + cell / 2) / width, 1 - (head - 0.06) / height
            figure.text(x, y, title, ha="center", va="bottom", fontsize=8, color=INK, parse_math=False)
        axes = figure.add_axes((0, 0, 1, 1))  # in inches: an axes a cell takes three times as long
        axes.set_axis_off()
        top = head
        for one, row_height in zip(looks, heights, strict=True):
            for column, image in enumerate([one.picture, one.mask, *one.maps]):
                absent = "cannot be read" if column < 2 else "no map"
                _draw_cell(axes, (left + column * (cell + gap), top, cell, row_height), image, absent)
            top += row_height + gap
        axes.set(xlim=(0, width), ylim=(height, 0))
        return save(figure, directory, "grid", ("png", "pdf"))


def _ratio(looks: Looks) -> float:
    """Height of a row as a share of its cells' width: as the picture's shape has it, within bounds."""
    shapes = [image.shape for image in (looks.picture, looks.mask, *looks.maps) if image is not None]
    return min(1.25, max(0.4, shapes[0][0] / shapes[0][1])) if shapes else 0.75


def _draw_cell(axes: Any, box: tuple[float, float, float, float], image: Any, absent: str) -> None:
    x, y, width, height = box
    if image is None:
        from matplotlib.patches import Rectangle

        axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=GRID))
        axes.text(x + width / 2, y + height / 2, absent, ha="center", va="center", fontsize=7, color=SOFT)
        return
    scale = min(width / image.shape[1], height / image.shape[0])
    w, h = scale * image.shape[1], scale * image.shape[0]
    x, y = x + (width - w) / 2, y + (height - h) / 2
    shown = {} if image.ndim == 3 else {"cmap": "gray", "vmin": 0, "vmax": 255}
    axes.imshow(shrink(image, LONGEST), extent=(x, x + w, y + h, y), aspect="auto", interpolation="none", **shown)
