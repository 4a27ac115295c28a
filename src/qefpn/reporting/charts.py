"""Line charts as inline SVG, in colours that the page's style sheet decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Points = Sequence[tuple[float, float]]

#: more points than this are averaged in groups: a page shows no more, and stays small
MOST_POINTS = 600
#: from this many points on, a moving average is drawn over the faint raw curve
SMOOTH_FROM = 60

# Colours that stand for style-sheet variables; matplotlib writes them into the SVG, `_themed` replaces them.
_INK, _GRID = "#010101", "#010102"
_SERIES = ("#0101a1", "#0101a2", "#0101a3", "#0101a4", "#0101a5", "#0101a6")


@dataclass(frozen=True)
class Series:
    """One line: (x, y) points, all finite; ``raw`` False draws it as it is, without smoothing."""

    label: str
    points: Points
    smooth: bool = False
    dashed: bool = False
    markers: bool = False


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
) -> str:
    """An SVG element, or "" where no series has a point.

    Args:
        identifier: unique on the page; keeps the SVG's internal references apart.
        marker: (x, text) of a vertical dotted line.
    """
    series = [one for one in series if one.points]
    if log_y:
        series = [_positive(one) for one in series]
        series = [one for one in series if one.points]
    if not series:
        return ""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": identifier, "font.size": 9}):
        figure = Figure(figsize=(5.4, 3.0), layout="constrained")  # no pyplot: no global state, no display
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for index, one in enumerate(series):
            _draw(axes, one, _SERIES[index % len(_SERIES)])
        if log_y:
            axes.set_yscale("log")
        if y_range:
            axes.set_ylim(*y_range)
        if x_range:
            axes.set_xlim(*x_range)
        if marker:
            low, high = axes.get_xlim()
            if low < marker[0] < high:
                axes.axvline(marker[0], color=_INK, linewidth=0.8, linestyle=":", alpha=0.7)
                above = axes.get_xaxis_transform()
                text = axes.text(marker[0], 1.01, marker[1], transform=above, fontsize=7.5, color=_INK)
                text.set_horizontalalignment("left" if marker[0] < low + 0.6 * (high - low) else "right")
        _finish(axes, x_label, y_label)
        if len(series) > 1:
            columns = 4 if sum(len(one.label) for one in series) < 40 else 3
            legend = figure.legend(loc="outside lower center", ncols=columns, labelcolor=_INK, fontsize=8)
            legend.set_frame_on(False)
        return _themed(_svg_text(figure), identifier, title)


def _positive(one: Series) -> Series:
    points = [(x, y) for x, y in one.points if y > 0]
    return Series(one.label, points, one.smooth, one.dashed, one.markers)


def _draw(axes: Any, one: Series, colour: str) -> None:
    points = thin(one.points)
    x, y = [p[0] for p in points], [p[1] for p in points]
    style: dict[str, Any] = {"color": colour, "linestyle": "--" if one.dashed else "-"}
    if one.smooth and len(points) >= SMOOTH_FROM:
        axes.plot(x, y, linewidth=0.7, alpha=0.3, color=colour)
        axes.plot(x, moving_average(y, len(y) // 20), linewidth=1.6, label=one.label, **style)
    else:
        few = one.markers or len(points) == 1
        axes.plot(x, y, linewidth=1.6, marker="o" if few else None, markersize=3, label=one.label, **style)


def _finish(axes: Any, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, color=_INK)
    axes.set_ylabel(y_label, color=_INK)
    axes.grid(True, color=_GRID, linewidth=0.6)
    axes.tick_params(which="both", colors=_INK, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_GRID)


def thin(points: Points) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` points: each the mean of a run of equally many neighbours."""
    group = -(-len(points) // MOST_POINTS)
    if group <= 1:
        return list(points)
    parts = [points[start : start + group] for start in range(0, len(points), group)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def moving_average(values: Sequence[float], reach: int) -> list[float]:
    """Centred mean over 2·reach + 1 values, fewer at both ends."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    out = []
    for index in range(len(values)):
        low, high = max(0, index - reach), min(len(values), index + reach + 1)
        out.append((sums[high] - sums[low]) / (high - low))
    return out


def _svg_text(figure: Any) -> str:
    import io

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _themed(svg: str, identifier: str, title: str) -> str:
    """Matplotlib's file as an element of the page: own identifiers, the page's colours and font."""
    from html import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    label = escape(title, quote=True)
    svg = f'<svg class="chart" role="img" aria-label="{label}" {box[0]}>' + body
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{identifier}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{identifier}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{identifier}-\1"', svg)
    svg = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1var(--font)", svg)
    svg = svg.replace(_INK, "var(--ink-soft)").replace(_GRID, "var(--line)")
    for index, colour in enumerate(_SERIES, 1):
        svg = svg.replace(colour, f"var(--series-{index})")
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip())
