"""Training curves of all jobs of a sweep: a colour a row, a line a seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qefpn.reporting import charts
from qefpn.reporting.charts import Series
from qefpn.reporting.results import finite_points
from qefpn.reporting.sections import Chart
from qefpn.reporting.sweep_rows import Section
from qefpn.reporting.sweep_runs import SweepRun

_COLOURS = len(charts._SERIES)


@dataclass(frozen=True)
class _Line:
    row: int
    series: Series


def sweep_charts(section: Section, identifier: str) -> list[Chart]:
    """Loss, validation metric and solver residual over the optimizer steps, of every run of a section.

    Args:
        section: its rows; runs without figures are drawn too.
        identifier: unique on the page.
    """
    out = []
    for number, (title, column, log_y) in enumerate(_columns(section)):
        lines = []
        for index, row in enumerate(section.rows):
            for run in row.every:
                name = column or _monitor(run)
                points = finite_points(run.results.log.get(name, [])) if run.results else []
                if log_y:
                    points = [(x, y) for x, y in points if y > 0]
                if points:
                    smooth = not name.startswith("val_")
                    few = name.startswith("val_") and len(points) < 40
                    lines.append(_Line(index, Series(row.label, points, smooth, markers=few)))
        if lines:
            svg = _chart(f"{identifier}-{number}", lines, title, log_y)
            out.append(Chart(title, svg, _caption(lines)))
    return out


def _columns(section: Section) -> list[tuple[str, str, bool]]:
    """(title, column, logarithmic); an empty column is the one that chose the checkpoint, a run at a time."""
    monitors = dict.fromkeys(_monitor(run) for row in section.rows for run in row.every)
    validation = " / ".join(name.replace("val_", "").replace("_", " ") for name in monitors)
    return [
        ("Loss", "loss", False),
        (f"Validation: {validation}", "", False),
        ("Relative residual of the solver", "solver_residual", True),
    ]


def _monitor(run: SweepRun) -> str:
    return str(run.config.get("monitor") or "val_weighted_f")


def _caption(lines: Sequence[_Line]) -> str:
    if len({line.row for line in lines}) > _COLOURS:
        return f"Rows beyond the first {_COLOURS} repeat the colours, dashed."
    return ""


def _chart(identifier: str, lines: Sequence[_Line], title: str, log_y: bool) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": identifier, "font.size": 9}):
        figure = Figure(figsize=(5.4, 3.4), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        named: set[int] = set()
        for line in lines:
            one = line.series
            label = "_" if line.row in named else one.label  # matplotlib's legend leaves "_" out
            named.add(line.row)
            drawn = Series(label, one.points, one.smooth, line.row % (2 * _COLOURS) >= _COLOURS, one.markers)
            charts._draw(axes, drawn, charts._SERIES[line.row % _COLOURS])
        for artist in axes.lines:
            artist.set_linewidth(min(1.1, artist.get_linewidth()))
        if log_y:
            axes.set_yscale("log")
        charts._finish(axes, "optimizer step", "")
        _legend(figure, [line.series.label for line in lines])
        svg = charts._themed(charts._svg_text(figure), identifier, title)
    # a sweep has many lines, and a hundredth of a point is far below a pixel
    return re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)


def _legend(figure: Any, labels: Sequence[str]) -> None:
    longest = max(map(len, labels))
    columns = 4 if longest < 12 else 2 if longest < 32 else 1
    legend = figure.legend(loc="outside lower center", ncols=columns, labelcolor=charts._INK, fontsize=8)
    legend.set_frame_on(False)
