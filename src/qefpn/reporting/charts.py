"""The one style of all figures, and line charts as inline SVG in colours that the page's style sheet decides."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qefpn.atomic import atomic_file

if TYPE_CHECKING:
    from qefpn.benchmark.entries import Entry

Points = Sequence[tuple[float, float]]

INK, SOFT, GRID = "#1b1f24", "#5c6670", "#dfe3e8"
#: Okabe and Ito's colours, told apart by any colour vision, without the yellow, which no white page shows
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333")
#: dashes as multiples of the line's width; () is solid. Four beside seven colours: 28 styles before one repeats
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.2, 1.5), (6, 1.8, 1.2, 1.8))
#: what a page's style sheet calls them
_VARIABLES = {INK: "--ink", SOFT: "--ink-soft", GRID: "--line"} | {c: f"--series-{i}" for i, c in enumerate(COLOURS, 1)}

#: more points than this are averaged in groups: a page shows no more, and stays small
MOST_POINTS = 600
#: from this many points on, a moving average is drawn over the faint raw curve
SMOOTH_FROM = 60


@dataclass(frozen=True)
class Style:
    """How a method's line is drawn, the same in every chart."""

    colour: str
    dashes: tuple[float, ...] = ()

    @property
    def line(self) -> dict[str, Any]:
        """As matplotlib takes it."""
        return {"color": self.colour, "linestyle": (0, self.dashes) if self.dashes else "-"}


def style(index: int) -> Style:
    """The style of the line with this number; colour and dashes change together."""
    return Style(COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)])


def method_styles(entries: Iterable[Entry]) -> dict[str, Style]:
    """Method → its style, in order of appearance."""
    methods = dict.fromkeys(entry.method for entry in entries)
    return {method: style(index) for index, method in enumerate(methods)}


def axis_floor(curves: Iterable[Sequence[float]]) -> float:
    """Where an axis of curves in [0, 1] begins: the tenth below all but their lowest twentieth.

    A few extreme thresholds give figures near zero; beginning there would squeeze what is to be compared.
    """
    values = [value for curve in curves for value in curve if math.isfinite(value)]
    if not values:
        return 0.0
    low = float(np.quantile(values, 0.05))
    return min(0.9, max(0.0, math.floor(low * 10 + 1e-9) / 10))


@contextmanager
def new_figure(
    width: float, height: float, *, salt: str = "qefpn", layout: Any = "constrained", simplify: bool = True
) -> Iterator[Any]:
    """A figure of this many inches in the common style, without pyplot: no global state, no display.

    Args:
        salt: of an SVG's internal identifiers; equal figures become equal files.
        simplify: whether points that nobody sees may be left out of a line.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    font: dict[Any, Any] = {
        "font.size": 8,
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "pdf.fonttype": 42,
        "path.simplify": simplify,
    }
    with rc_context(font):
        figure = Figure(figsize=(width, height), layout=layout)
        FigureCanvasAgg(figure)
        yield figure


def finish(axes: Any, x_label: str = "", y_label: str = "", *, left: bool = True) -> None:
    """Grid, ticks, spines and labels of a panel."""
    for set_label, label in ((axes.set_xlabel, x_label), (axes.set_ylabel, y_label)):
        if label:
            set_label(label, color=INK)
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=SOFT, length=0, pad=4)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom" or left and side == "left")
        spine.set_color(SOFT if left else GRID)


def legend(figure: Any, lines: Mapping[str, Style], columns: int = 0, title: str | None = None) -> None:
    """A legend below all panels: label → its line."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=label, linewidth=1.6, **one.line) for label, one in lines.items()]
    columns = columns or max(1, min(len(lines), 5, 72 // (8 + max(map(len, lines)))))
    found = figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, labelcolor=INK, handlelength=3, title=title,
        title_fontsize=7,
    )  # fmt: skip
    found.set_frame_on(False)
    for text in found.get_texts():
        text.set_parse_math(False)  # a name is no formula


def save(figure: Any, directory: Path, name: str, kinds: Sequence[str]) -> list[Path]:
    """Write a figure as ``name.kind`` for each kind; the directory is made where it does not exist."""
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # equal figures, equal files
    paths = [directory / f"{name}.{kind}" for kind in kinds]
    for path, kind in zip(paths, kinds, strict=True):
        with atomic_file(path) as part:
            figure.savefig(part, format=kind, dpi=200, facecolor="white", metadata=metadata.get(kind))
    return paths


@dataclass(frozen=True)
class Chart:
    """An SVG and its caption."""

    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Series:
    """One line: (x, y) points, all finite.

    Attributes:
        smooth: a moving average is drawn over the faint raw curve.
        colour: its number; the place among the series by default. Lines of one label have one entry in the legend.
    """

    label: str
    points: Points
    smooth: bool = False
    dashed: bool = False
    markers: bool = False
    colour: int | None = None


def line_chart(
    identifier: str,
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str = "",
    log_y: bool = False,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    marker: tuple[float, str] | None = None,
    width: float = 1.6,
) -> str:
    """An SVG element, or "" where no series has a point.

    Args:
        identifier: unique on the page; keeps the SVG's internal references apart.
        marker: (x, text) of a vertical dotted line.
        width: of the lines, points.
    """
    drawn = [(one, [(x, y) for x, y in one.points if y > 0] if log_y else one.points) for one in series]
    drawn = [(one, points) for one, points in drawn if points]
    if not drawn:
        return ""
    named: dict[str, Style] = {}
    with new_figure(4.5, 2.8, salt=identifier) as figure:
        axes = figure.add_subplot()
        for index, (one, points) in enumerate(drawn):
            number = index if one.colour is None else one.colour
            look = Style(COLOURS[number % len(COLOURS)], DASHES[1] if one.dashed else ())
            _draw(axes, one, thin(points), named.setdefault(one.label, look), width)
        if log_y:
            axes.set_yscale("log")
        axes.set(**{k: v for k, v in (("ylim", y_range), ("xlim", x_range)) if v})
        if marker:
            low, high = axes.get_xlim()
            if low < marker[0] < high:
                axes.axvline(marker[0], color=SOFT, linewidth=0.8, linestyle=":")
                side = "left" if marker[0] < low + 0.6 * (high - low) else "right"
                above = axes.get_xaxis_transform()
                axes.text(marker[0], 1.01, marker[1], transform=above, fontsize=7.5, color=SOFT, ha=side)
        finish(axes, x_label, y_label, left=False)
        if len(drawn) > 1:
            legend(figure, named)
        return page_svg(figure, identifier, title)


@contextmanager
def curves_figure(
    series: Sequence[Series],
    labels: tuple[str, str],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    title: str,
) -> Iterator[Any]:
    """The lines in one panel, for a file; ``labels`` are those of x and y."""
    with new_figure(4.5, 3.2) as figure:
        axes = figure.add_subplot()
        looks = {
            one.label: Style(COLOURS[i % len(COLOURS)], DASHES[1] if one.dashed else ()) for i, one in enumerate(series)
        }
        for one in series:
            _draw(axes, one, one.points, looks[one.label], 1.6)
        axes.set(xlim=x_range, ylim=y_range)
        axes.set_title(title, fontsize=9, color=INK)
        finish(axes, *labels)
        legend(figure, looks)
        yield figure


def _draw(axes: Any, one: Series, points: Points, look: Style, width: float) -> None:
    x, y = zip(*points, strict=True)
    if one.smooth and len(points) >= SMOOTH_FROM:
        axes.plot(x, y, linewidth=0.7, alpha=0.3, color=look.colour)
        axes.plot(x, moving_average(y, len(y) // 20), linewidth=width, **look.line)
    else:
        few = one.markers or len(points) == 1
        axes.plot(x, y, linewidth=width, marker="o" if few else None, markersize=3, **look.line)


def thin(points: Points) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` points: each the mean of a run of equally many neighbours."""
    group = -(-len(points) // MOST_POINTS)
    if group <= 1:
        return list(points)
    parts = [points[start : start + group] for start in range(0, len(points), group)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def moving_average(values: Sequence[float], reach: int) -> list[float]:
    """Centred mean over 2·reach + 1 values, fewer at both ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(0, at - reach), np.minimum(len(values), at + reach + 1)
    return [float(value) for value in (sums[high] - sums[low]) / (high - low)]


def page_svg(figure: Any, identifier: str, title: str) -> str:
    """A figure as an element of a page: own identifiers, the page's colours and font."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    svg = f'<svg class="chart" role="img" aria-label="{escape(title, quote=True)}" {box[0]}>' + body
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{identifier}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{identifier}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{identifier}-\1"', svg)
    svg = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1var(--font)", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    # a page has many lines, and a hundredth of a point is far below a pixel
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip())
