"""A table in the terminal, in Markdown and as CSV; and pages, of one template, each in one file."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from qefpn.reporting.tables import Cell, Column, Table, in_parts

if TYPE_CHECKING:
    from rich.table import Table as RichTable

#: styles of the first places by how many are marked: the best in green; three in the field's red, blue and green
STYLES = {1: ("bold green",), 3: ("bold red", "bold blue", "bold green")}
_ROWS = {"run": "bold", "floor": "dim", "published": "dim", "paper": "dim"}
_MARKS = (("**", "**"), ("*", "*"), ("<u>", "</u>"))
LEGEND = {
    "terminal": "best three: red, blue, green",
    "markdown": "Best **bold**, second *italic*, third <u>underlined</u>.",
}


class Numbered:
    """Footnotes of one or several tables: each text has one number, from 1 on."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, note: str) -> str:
        """The number of a note, raised; empty for none."""
        if not note:
            return ""
        if note not in self.texts:
            self.texts.append(note)
        return superscript(self.texts.index(note) + 1)

    def lines(self) -> list[str]:
        return [f"{superscript(number)} {text}" for number, text in enumerate(self.texts, 1)]


def superscript(number: int) -> str:
    """A number as raised digits."""
    return "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(number))


def terminal(tables: Table | Sequence[Table]) -> RichTable:
    """A rich table. Several are set below each other under the same columns, each with its title in a line.

    Notes and footnotes are in the caption. Where nothing is ranked, a label that repeats the one above is left out.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    alone = isinstance(tables, Table)
    every = [tables] if isinstance(tables, Table) else list(tables)
    columns = list({column.key: column for table in every for column in table.columns}.values())
    out = RichTable(
        box=box.SIMPLE_HEAD, header_style="bold", title_justify="left", caption_justify="left", caption_style="dim"
    )
    out.collapse_padding, out.pad_edge = True, False
    out.title = escape(every[0].title) or None if alone else None
    labels = [row.name for table in every for row in table.rows]
    heads = [_narrow(column) for column in columns]
    deep = any("\n" in head for head in heads)
    heads = [f"\n{head}" if deep and "\n" not in head else head for head in heads]
    first = every[0].head if every else "method"
    least = min(18, max(map(len, labels), default=0))
    out.add_column("\n" + first if deep else first, overflow="fold", min_width=least)
    for column, head in zip(columns, heads, strict=True):
        out.add_column(
            head, justify="left" if column.left else "right", no_wrap=not column.left,
            overflow="fold" if column.left else "ellipsis",
        )  # fmt: skip
    notes, captions = Numbered(), []
    for table in every:
        if not alone:
            count = "" if table.images is None else f" ({table.images:,})"
            out.add_row(escape(table.title) + count, style="bold cyan")
        former = ""
        for index, row in enumerate(table.rows):
            texts = [_terminal_cell(row.cell(column), table.places, notes) for column in columns]
            name = "" if row.name == former and not any(c.better for c in columns) else row.name
            indent = "" if row.first or row.kind != "paper" else "  "
            last = not alone and index == len(table.rows) - 1
            out.add_row(indent + escape(name), *texts, style=_ROWS.get(row.kind), end_section=last)
            former = row.name
        captions += [note for note in table.remarks if note not in captions]
    if any(table.places > 1 for table in every):
        captions.insert(0, LEGEND["terminal"])
    out.caption = escape("\n".join([*captions, *notes.lines()])) or None
    return out


def terminals(tables: Sequence[Table], width: int) -> list[RichTable]:
    """Tables as :func:`terminal` sets several, in as many parts as a terminal of so many columns needs."""

    def size(key: str) -> int:
        """Of a column with its gap, marks and numbers of notes."""
        texts = [
            line for table in tables for one in table.columns if one.key == key for line in _narrow(one).split("\n")
        ]
        cells = [row.cells[key] for table in tables for row in table.rows if key in row.cells]
        return 2 + max(
            len(text) for text in [*texts, *(f"{c.text} {c.mark}".rstrip() + "¹" * bool(c.note) for c in cells)]
        )

    label = min(18, max((len(row.name) for table in tables for row in table.rows), default=0))
    return [terminal(part) for part in in_parts(tables, max(1, width - label - 4), size)]


def _narrow(column: Column) -> str:
    """A head in two lines, the arrow behind the shorter one, so that the figures and not the words set the width."""
    first, space, rest = column.label.partition(" ")
    if not space or not column.better:
        return column.head
    return f"{first} {column.arrow}\n{rest}" if len(first) < len(rest) else f"{first}\n{rest} {column.arrow}"


def _terminal_cell(cell: Cell, places: int, notes: Numbered) -> str:
    from rich.markup import escape

    text = escape(cell.text)
    text = f"[{STYLES[places][cell.rank - 1]}]{text}[/]" if cell.rank else text
    return text + (f" {cell.mark}" if cell.mark else "") + (f"[dim]{notes.mark(cell.note)}[/]" if cell.note else "")


def markdown(tables: Table | Sequence[Table], heading: str = "**{}**") -> str:
    """Tables in Markdown, each under its title and with its notes; best bold, second italic, third underlined.

    Args:
        heading: how a title is set; a table without a title has none.
    """
    every = [tables] if isinstance(tables, Table) else list(tables)
    notes, blocks = Numbered(), []
    for table in every:
        before = len(notes.texts)
        count = "" if table.images is None else f" ({table.images:,} pictures)"
        parts = [heading.format(plain_markdown(table.title)) + count] if table.title else []
        parts.append("\n".join(_markdown_lines(table, notes)))
        parts += [plain_markdown(note) for note in table.remarks]
        parts += [plain_markdown(line) for line in notes.lines()[before:]]
        blocks.append("\n\n".join(parts))
    if any(table.places > 1 for table in every):
        blocks.append(LEGEND["markdown"])
    return "\n\n".join(blocks) + "\n"


def _markdown_lines(table: Table, notes: Numbered) -> Iterable[str]:
    yield _line([table.head, *(plain_markdown(column.head) for column in table.columns)])
    yield _line(["---", *("---" if column.left else "---:" for column in table.columns)])
    for row in table.rows:
        label = plain_markdown(row.name)
        cells = [_markdown_cell(row.cell(column), notes) for column in table.columns]
        yield _line([f"*{label}*" if row.kind == "paper" else label, *cells])


def _markdown_cell(cell: Cell, notes: Numbered) -> str:
    before, after = _MARKS[cell.rank - 1] if cell.rank else ("", "")
    return before + plain_markdown(cell.text) + after + (f" {cell.mark}" if cell.mark else "") + notes.mark(cell.note)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table cell too."""
    return "".join("\\" + char if char in "\\`*_|[]<>" else char for char in " ".join(text.split()))


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as CSV, for a program to read: all digits, blank where there is nothing, nested keys dotted."""
    import pandas

    frame = pandas.DataFrame([_flat(row) for row in rows], columns=columns, dtype=object)
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in row.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return out


def of_metrics(columns: Sequence[Column], figures: Mapping[str, Any], competes: bool = True) -> dict[str, Cell]:
    """The cells of a record of figures."""
    return {column.key: column.cell(figures.get(column.key), competes) for column in columns}


@functools.cache
def _environment() -> Any:
    import jinja2

    templates = resources.files("qefpn.reporting") / "templates"
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip


def page(template: str, **values: Any) -> str:
    """A page as text.

    Args:
        template: its name; it extends ``page.html``.
        values: what it shows. Each page has ``title`` and ``contents``, pairs of a section's identifier and name.
    """
    return str(_environment().get_template(template).render(**values))
