"""The one table behind every report: columns, rows, what is best, marks and notes; free of any output format.

Renderers are in `renderers` (terminal, Markdown, CSV), `latex` and, for pages, ``templates/parts.html``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DASH = "–"
DAGGER = "†"
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
    """One printed entry.

    Attributes:
        text: as printed.
        value: in full, for programs and for sorting; None where there is no figure.
        rival: the figure that it is sorted and ranked by; another one than ``value`` for a misprint.
        competes: whether it is ranked.
        rank: 1 is the best of its column and contest; None beyond the table's places.
        mark: printed behind the text, such as ``≈``; the table's `marks` say what it means.
        note: text of its footnote.
        kind: "yes", "no" or "soft", for renderers with colours.
        details: more than fits, for pages, which fold it away.
    """

    text: str = DASH
    value: float | None = None
    rival: float | None = None
    competes: bool = True
    rank: int | None = None
    mark: str = ""
    note: str = ""
    kind: str = ""
    details: str = ""

    @property
    def best(self) -> bool:
        return self.rank == 1


NOTHING = Cell()


@dataclass(frozen=True)
class Column:
    """A column: its key in metrics.json, how its figures are written, and which way is better.

    Attributes:
        better: "low", "high", or "" where nothing is ranked.
        digits: decimals that are printed; figures that print alike rank alike.
        latex: the head in LaTeX; the escaped label without.
        left: text, to be set to the left and wrapped.
        group: a head above, of several columns.
    """

    key: str
    label: str
    title: str = ""
    better: str = ""
    digits: int = 3
    latex: str = ""
    left: bool = False
    group: str = ""

    @property
    def head(self) -> str:
        return f"{self.label} {self.arrow}".rstrip()

    @property
    def arrow(self) -> str:
        return {"low": "↓", "high": "↑"}.get(self.better, "")

    def text(self, value: Any) -> str:
        """The value as tables print it; a dash where there is none."""
        number = finite(value)
        return DASH if number is None else f"{number:.{self.digits}f}"

    def signed(self, value: float) -> str:
        """A difference as tables print it."""
        return f"{value:+.{self.digits}f}".replace("-", "−")

    def beats(self, a: float, b: float) -> bool:
        """Whether ``a`` is better than ``b``."""
        return a < b if self.better == "low" else a > b

    def best(self, values: Iterable[float]) -> float:
        """The best of some values."""
        return min(values) if self.better == "low" else max(values)

    def cell(self, value: Any, competes: bool = True) -> Cell:
        """A figure that is ranked as it is, or not at all."""
        number = finite(value)
        return Cell(self.text(number), number, number, competes)


def _figure(key: str, label: str, title: str, latex: str = "", better: str = "high", digits: int = 3) -> Column:
    arrow = r"\downarrow" if better == "low" else r"\uparrow"
    return Column(key, label, title, better, digits, f"{latex}${arrow}$" if latex else "")


METRICS = (
    _figure("mae", "MAE", "Mean absolute error", "MAE ", "low"),
    _figure(
        "mean_f",
        "F adapt.",
        "F-measure (β² = 0.3) at each picture's threshold of twice its mean, averaged over "
        "pictures: mean F in the field's older tables",
        r"$F_\beta^{\mathrm{adp}}$",
    ),
    _figure("weighted_f", "weighted F", "Weighted F-measure (β² = 1)", r"$F^\omega_\beta$"),
    _figure("max_f", "F max", "Maximum F-measure over 256 thresholds", r"$F_\beta^{\max}$"),
    _figure("s_measure", "S", "Structure measure (α = 0.5)", "$S_m$"),
    _figure("e_measure", "E adapt.", "Enhanced-alignment measure at the adaptive threshold", r"$E_\xi^{\mathrm{adp}}$"),
    _figure("binary_ratio", "binary %", "Share of pixels above 0.9 or below 0.1", r"Binary \% ", digits=2),
    _figure("mean_curve_f", "F mean", "F-measure averaged over 256 thresholds", r"$F_\beta^{\mathrm{mean}}$"),
    _figure("mean_e", "E mean", "Enhanced-alignment measure averaged over 256 thresholds", r"$E_\xi^{\mathrm{mean}}$"),
    _figure("max_e", "E max", "Maximum enhanced-alignment measure over 256 thresholds", r"$E_\xi^{\max}$"),
)
"""Every figure that a table prints, in its order; the first seven are those of metrics.json. The heads of F and E say
which threshold: a bare mean F is the adaptive one in some papers, and the curve's mean in others."""

_LOWER = ("mae", "ber", "fpr", "hce")
_BY_KEY = {one.key: one for one in METRICS}
_SAME = {
    "f_adaptive": "mean_f", "f_mean": "mean_curve_f", "f_max": "max_f",
    "e_adaptive": "e_measure", "e_mean": "mean_e", "e_max": "max_e",
}  # fmt: skip
"""Names that say which, of figures that have another key too."""
_KINDS = {"adaptive": "adapt.", "binary": "binary", "mean": "mean", "max": "max"}
_FAMILIES = {
    "iou": "IoU", "dice": "Dice", "f1": "F1", "fpr": "FPR", "ber": "BER", "msiou": "MSIoU", "hce": "HCE",
    "biou": "BIoU", "mba": "mBA", "si_mae": "SI MAE", "si_f": "SI F", "specificity": "Spec.", "kappa": "Kappa",
    "overall_accuracy": "Acc.", "context_measure": "Context",
}  # fmt: skip


def metric(key: str) -> Column:
    """The column of a figure; one that `METRICS` does not have is called by its key.

    >>> metric("mae").head, metric("ber_max").head, metric("e_max").label
    ('MAE ↓', 'BER max ↓', 'E max')
    """
    known = _BY_KEY.get(_SAME.get(key, key))
    if known is not None:
        return known
    low = any(part in _LOWER for part in key.split("_"))
    family, kind = _family(key), _KINDS.get(key.removeprefix(_family(key) + "_"), "")
    label = f"{_FAMILIES.get(family, family.replace('_', ' '))} {kind}".rstrip()
    return Column(key, label, key.replace("_", " "), "low" if low else "high")


def _family(key: str) -> str:
    """A figure's name without its kind.

    >>> _family("iou_max"), _family("context_measure")
    ('iou', 'context_measure')
    """
    stem, _, kind = key.rpartition("_")
    return stem if kind in _KINDS else key


def metrics_of(figures: Iterable[Mapping[str, Any]]) -> list[Column]:
    """The columns of what any of the records has a figure for: the known ones in their order, then the others."""
    keys = dict.fromkeys(key for one in figures for key, value in one.items() if finite(value) is not None)
    others = [key for key in keys if key not in _BY_KEY and key not in _SAME and key != "images"]
    families = list(dict.fromkeys(map(_family, others)))
    others.sort(key=lambda key: families.index(_family(key)))  # all kinds of a figure side by side
    return [one for one in METRICS if one.key in keys] + [metric(key) for key in others]


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        cells: by column; what is not there is a dash.
        kind: "run", "floor", "published", "paper", "ours" or "", for renderers.
        aside: what stands behind the label in brackets, such as a year.
        contest: rows are ranked among those of the same one.
        first: begins a group of rows.
    """

    label: str
    cells: Mapping[str, Cell]
    kind: str = ""
    aside: str = ""
    contest: str = ""
    first: bool = False

    @property
    def name(self) -> str:
        return f"{self.label} ({self.aside})" if self.aside else self.label

    def cell(self, column: Column) -> Cell:
        return self.cells.get(column.key, NOTHING)


@dataclass(frozen=True)
class Table:
    """Rows under columns.

    Attributes:
        name: for identifiers and files.
        head: over the rows' labels.
        notes: sentences below.
        marks: what each of the cells' marks means.
        images: pictures of its data set, beside the title.
        places: how many of a column are marked: the best, or the best three.
    """

    name: str
    title: str
    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    head: str = "method"
    images: int | None = None
    places: int = 1
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def remarks(self) -> list[str]:
        """The notes, and what the marks that are there mean."""
        there = {row.cell(column).mark for row in self.rows for column in self.columns}
        return [*self.notes, *(f"{mark} {meaning}" for mark, meaning in self.marks.items() if mark in there)]

    @property
    def footnotes(self) -> list[str]:
        """The texts of all cells' notes, each once, in the order in which they are numbered."""
        return list(dict.fromkeys(c.note for row in self.rows for one in self.columns if (c := row.cell(one)).note))

    def texts(self, row: Row) -> list[str]:
        """A row as printed, its label first."""
        return [row.name, *(row.cell(column).text for column in self.columns)]

    def shown(self) -> Table:
        """Without the columns that no row has a figure for."""
        some = [c for c in self.columns if any(row.cell(c).value is not None for row in self.rows)]
        return dataclasses.replace(self, columns=some)

    def ranked(self) -> Table:
        """With the ranks of all cells: the one rule of every table.

        In each column that has a better direction, and among the rows of each contest, the figures that compete are
        ordered as they are printed: equal ones rank alike, and the next place follows without a gap. The first
        `places` are marked. A figure with no other to compare with has no rank.
        """
        ranks: dict[tuple[int, str], int] = {}
        for column in (one for one in self.columns if one.better):
            for contest in {row.contest for row in self.rows}:
                rivals = {
                    index: column.text(cell.rival)
                    for index, row in enumerate(self.rows)
                    if row.contest == contest and (cell := row.cell(column)).competes and cell.rival is not None
                }
                if len(rivals) < 2:
                    continue
                order = sorted(set(rivals.values()), key=float, reverse=column.better == "high")[: self.places]
                ranks |= {(i, column.key): order.index(text) + 1 for i, text in rivals.items() if text in order}
        rows = [
            dataclasses.replace(
                row, cells={k: dataclasses.replace(c, rank=ranks.get((i, k))) for k, c in row.cells.items()}
            )
            for i, row in enumerate(self.rows)
        ]
        return dataclasses.replace(self, rows=rows)


def text_table(
    name: str,
    title: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    notes: Sequence[str] = (),
    left: Any = (),
) -> Table:
    """A table of texts, nothing ranked.

    Args:
        heads: the first is that of the rows' labels.
        left: heads whose column is text, or True for all of them.
    """
    columns = [Column(head, head, left=left is True or head in left) for head in heads[1:]]
    lines = [Row(row[0], {c.key: Cell(text) for c, text in zip(columns, row[1:], strict=True)}) for row in rows]
    return Table(name, title, columns, lines, list(notes), heads[0])


def beside(tables: Sequence[Table]) -> Table:
    """Tables of several data sets as one: data sets across, rows down, a group of columns each."""
    columns: list[Column] = []
    merged: dict[tuple[str, str], Row] = {}
    for number, table in enumerate(tables):
        count = "" if table.images is None else f" ({table.images:,})"
        own = [dataclasses.replace(c, key=f"{number}:{c.key}", group=table.title + count) for c in table.columns]
        columns += own
        for row in table.rows:
            cells = {new.key: row.cell(old) for new, old in zip(own, table.columns, strict=True)}
            key = (row.kind, row.name.rstrip(DAGGER))
            known = merged.get(key) or dataclasses.replace(row, cells={})
            label = max(known.label, row.label, key=len)  # with a dagger where it is incomplete anywhere
            merged[key] = dataclasses.replace(known, label=label, cells={**known.cells, **cells})
    kinds = list(dict.fromkeys(kind for kind, _ in merged))
    rows = [row for kind in kinds for row in merged.values() if row.kind == kind]
    rows = [dataclasses.replace(row, first=i > 0 and rows[i - 1].kind != row.kind) for i, row in enumerate(rows)]
    notes = list(dict.fromkeys(note for table in tables for note in table.notes))
    marks = {mark: meaning for table in tables for mark, meaning in table.marks.items()}
    first = tables[0] if tables else Table("", "", [], [])
    return dataclasses.replace(first, title="", columns=columns, rows=rows, notes=notes, marks=marks, images=None)


def in_parts(tables: Sequence[Table], most: int = 11, size: Callable[[str], int] = lambda key: 1) -> list[list[Table]]:
    """Tables of many figures as several of some columns each, for where a page or a terminal ends.

    Args:
        most: columns of each, or the sum of their sizes.
        size: of the column with a key.
    """
    parts, used = [list[str]()], 0
    for key in dict.fromkeys(column.key for table in tables for column in table.columns):
        used += size(key)
        if parts[-1] and used > most:
            parts.append([])
            used = size(key)
        parts[-1].append(key)
    out = []
    for number, own in enumerate(parts):
        part = [dataclasses.replace(one, columns=[c for c in one.columns if c.key in own]) for one in tables]
        out.append([one if number == 0 else dataclasses.replace(one, notes=[]) for one in part])  # said once
    return out
