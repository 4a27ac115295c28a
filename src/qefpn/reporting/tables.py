"""The table of figures: rows, what is best in each column, and its terminal and Markdown form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qefpn.reporting.published import Published

if TYPE_CHECKING:
    from rich.table import Table

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """A column: its key in metrics.json, how it is written, and which way is better."""

    key: str
    label: str
    title: str
    lower_is_better: bool = False
    digits: int = 3

    @property
    def arrow(self) -> str:
        return "↓" if self.lower_is_better else "↑"

    def text(self, value: Any) -> str:
        """The value as the tables print it; a dash where there is none."""
        number = finite(value)
        return "–" if number is None else f"{number:.{self.digits}f}"

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` beats ``b``."""
        return a < b if self.lower_is_better else a > b


METRICS = (
    Metric("mae", "MAE", "Mean absolute error", lower_is_better=True),
    Metric("mean_f", "mean F", "F-measure (β² = 0.3) at the adaptive threshold, averaged over pictures"),
    Metric("weighted_f", "weighted F", "Weighted F-measure (β² = 1)"),
    Metric("max_f", "max F", "Maximum F-measure over 256 thresholds"),
    Metric("s_measure", "S", "Structure measure (α = 0.5)"),
    Metric("e_measure", "E", "Enhanced-alignment measure at the adaptive threshold"),
    Metric("binary_ratio", "binary %", "Share of pixels above 0.9 or below 0.1", digits=2),
)

BEFORE = "before"
"""The network before a fine-tuning, among the floors."""
FLOOR_LABELS = {"gaussian": "Centred Gaussian", "untrained": "Untrained network", BEFORE: "Before (init)"}


def finite(value: Any) -> float | None:
    """``value`` as a finite float, else None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def floor_label(name: str) -> str:
    """How a floor is called in a table."""
    return FLOOR_LABELS.get(name, name)


@dataclass(frozen=True)
class Cell:
    """One printed figure."""

    text: str
    best: bool = False
    note: int | None = None  # number of its footnote, from 1


@dataclass(frozen=True)
class Row:
    """One method. ``kind`` is "run", "floor" or "published"."""

    label: str
    kind: str
    cells: list[Cell]
    year: int | None = None


@dataclass
class MetricTable:
    """The table of one data set."""

    dataset: str
    metrics: list[Metric]
    rows: list[Row]
    images: int | None = None
    official_images: int | None = None
    footnotes: list[str] = field(default_factory=list)

    @property
    def partial(self) -> bool:
        """Whether another number of pictures was scored than the official set has."""
        return None not in (self.images, self.official_images) and self.images != self.official_images

    @property
    def remark(self) -> str:
        """One sentence where the published figures are not of the same pictures, else empty."""
        if not self.partial:
            return ""
        return (
            f"{self.images:,} pictures were scored; the official {self.dataset} has "
            f"{self.official_images:,}. The published figures are of all of them: compare with care."
        )


def metric_tables(
    metrics: Mapping[str, Figures],
    floors: Mapping[str, Mapping[str, Figures]] | None = None,
    published: Published | None = None,
    label: str = "This run",
) -> list[MetricTable]:
    """One table a data set: the run, its floors, and the published methods where the set is an official one.

    Args:
        metrics: the content of metrics.json.
        floors: the content of floors.json.
        published: the paper's figures (`load_published`); None leaves them out.
        label: what to call the run.

    A column that no row has a figure for is left out. The best figure of a column is the best as printed, so
    equal figures are all best; a published misprint competes with its corrected figure where that is known.
    Beside published methods, a metric that they do not report has no best.
    """
    return [
        _one_table(dataset, figures, (floors or {}).get(dataset) or {}, published, label)
        for dataset, figures in metrics.items()
    ]


def _one_table(
    dataset: str,
    figures: Figures,
    floors: Mapping[str, Figures],
    published: Published | None,
    label: str,
) -> MetricTable:
    entries: list[tuple[str, str, int | None, Figures, dict[str, int]]] = [(label, "run", None, figures, {})]
    entries += [(floor_label(name), "floor", None, values, {}) for name, values in floors.items()]
    # figures that compete for the best: as shown, but for misprints, which compete corrected
    ranked: list[dict[str, float | None]] = [
        {metric.key: finite(entry[3].get(metric.key)) for metric in METRICS} for entry in entries
    ]
    footnotes: list[str] = []
    for row in published.rows("I", dataset) if published and published.official_name(dataset) else []:
        notes = {}
        competing: dict[str, float | None] = {m.key: row.values.get(m.key) for m in METRICS}
        for key, misprint in row.misprints.items():
            footnotes.append(misprint.note)
            notes[key] = len(footnotes)
            competing[key] = misprint.correct
        name = f"{row.method} (paper)" if row.method == "QEFPN" else row.method
        entries.append((name, "published", row.year, row.values, notes))
        ranked.append(competing)
    shown = [m for m in METRICS if any(finite(entry[3].get(m.key)) is not None for entry in entries)]
    best = {metric.key: _best(metric, [row[metric.key] for row in ranked]) for metric in shown}
    if any(entry[1] == "published" for entry in entries):  # a metric that none of them reports has no contest
        reported = set(published.columns("I")) if published else set()
        best = {key: value if key in reported else None for key, value in best.items()}
    rows = []
    for (name, kind, year, values, notes), competing in zip(entries, ranked, strict=True):
        cells = []
        for metric in shown:
            figure = _rounded(metric, competing[metric.key])
            is_best = len(entries) > 1 and figure is not None and figure == best[metric.key]
            cells.append(Cell(metric.text(values.get(metric.key)), is_best, notes.get(metric.key)))
        rows.append(Row(name, kind, cells, year))
    count = finite(figures.get("images"))
    return MetricTable(
        dataset,
        shown,
        rows,
        images=None if count is None else int(count),
        official_images=published.official_images(dataset) if published else None,
        footnotes=footnotes,
    )


def _rounded(metric: Metric, value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{metric.digits}f}")


def _best(metric: Metric, values: list[float | None]) -> float | None:
    present = [value for value in (_rounded(metric, v) for v in values) if value is not None]
    if not present:
        return None
    return min(present) if metric.lower_is_better else max(present)


def terminal_table(
    metrics: Mapping[str, Figures],
    floors: Mapping[str, Mapping[str, Figures]] | None = None,
    published: Published | None = None,
    label: str = "This run",
) -> Table:
    """A rich table of every data set; the best figure of each set and column is bold and green.

    Arguments as those of `metric_tables`. Remarks and footnotes are in the caption. Eighty columns hold it.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    tables = metric_tables(metrics, floors, published, label)
    shown = [m for m in METRICS if any(m in table.metrics for table in tables)]
    out = Table(box=box.SIMPLE_HEAD, header_style="bold", caption_justify="left", caption_style="dim")
    out.collapse_padding, out.pad_edge = True, False
    out.add_column("\nmethod", min_width=max(map(len, FLOOR_LABELS.values())), overflow="fold")
    for metric in shown:
        head = f"{metric.label} {metric.arrow}"
        # in two lines, so that the figures and not the words set the width
        head = head.replace(" ", "\n", 1) if head.count(" ") > 1 else "\n" + head
        out.add_column(head, justify="right", no_wrap=True)
    captions = []
    offset = 0
    for table in tables:
        count = f" ({table.images:,})" if table.images is not None else ""
        out.add_row(escape(table.dataset) + count, style="bold cyan")
        for index, row in enumerate(table.rows):
            texts = []
            by_key = {metric.key: cell for metric, cell in zip(table.metrics, row.cells, strict=True)}
            for metric in shown:
                cell = by_key.get(metric.key, Cell("–"))
                mark = f"[dim]{superscript(cell.note + offset)}[/dim]" if cell.note else ""
                texts.append((f"[bold green]{cell.text}[/bold green]" if cell.best else cell.text) + mark)
            style = {"run": "bold", "floor": "dim"}.get(row.kind)
            out.add_row(escape(row.label), *texts, style=style, end_section=index == len(table.rows) - 1)
        captions += [table.remark] if table.remark else []
        captions += [f"{superscript(n + offset)} {note}" for n, note in enumerate(table.footnotes, 1)]
        offset += len(table.footnotes)
    out.caption = escape("\n".join(captions)) or None
    return out


def markdown_table(
    metrics: Mapping[str, Figures],
    floors: Mapping[str, Mapping[str, Figures]] | None = None,
    published: Published | None = None,
    label: str = "This run",
) -> str:
    """The same table in Markdown, one table a data set; the best figures are bold."""
    blocks = []
    offset = 0
    for table in metric_tables(metrics, floors, published, label):
        count = f" ({table.images:,} pictures)" if table.images is not None else ""
        heads = ["method", *(f"{metric.label} {metric.arrow}" for metric in table.metrics)]
        rule = ["---", *("---:" for _ in table.metrics)]
        lines = [f"**{plain_markdown(table.dataset)}**{count}", "", _line(heads), _line(rule)]
        for row in table.rows:
            texts = [
                (f"**{cell.text}**" if cell.best else cell.text)
                + (superscript(cell.note + offset) if cell.note else "")
                for cell in row.cells
            ]
            lines.append(_line([plain_markdown(row.label), *texts]))
        notes = [f"{superscript(n + offset)} {note}" for n, note in enumerate(table.footnotes, 1)]
        offset += len(table.footnotes)
        for note in [table.remark, *notes] if table.remark else notes:
            lines += ["", note]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table cell."""
    return "".join("\\" + char if char in "\\`*_|[]<>" else char for char in " ".join(text.split()))


def superscript(number: int) -> str:
    """The number of a footnote."""
    return "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(number))
