"""A table in LaTeX: to be put into a paper, and a document around several that compiles as it is."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence

from qefpn.reporting.tables import Cell, Column, Row, Table

PACKAGES = r"\usepackage{booktabs,graphicx,xcolor}"

_CHARACTERS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", "±": r"$\pm$",
    "≈": r"$\approx$", "≤": r"$\leq$", "≥": r"$\geq$", "×": r"$\times$", "√": r"$\surd$", "−": "$-$", "–": "--",
    "—": "---", "∞": r"$\infty$", "β": r"$\beta$", "²": r"$^2$", "₁": r"$_1$", "₂": r"$_2$", "…": r"\dots{}",
    "“": "``", "”": "''", "’": "'", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "†": r"$^\dagger$", '"': "''",
}  # fmt: skip
#: letters with an accent that LaTeX builds in its default encoding
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030c": "v", "\u0327": "c"}
_COLOURS = ("red", "blue", "green!60!black")
_LEGEND = r"Best three: \textcolor{red}{red}, \textcolor{blue}{blue}, \textcolor{green!60!black}{green}."


def latex_document(title: str, tables: str) -> str:
    """A document that reads a file of tables beside it."""
    return "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage[margin=2cm,landscape]{geometry}",
            PACKAGES,
            r"\begin{document}",
            rf"\section*{{{escape_latex(title)}}}",
            rf"\input{{{tables}}}",
            r"\end{document}",
            "",
        ]
    )


def latex(tables: Table | Sequence[Table], wide: bool = False) -> str:
    """Each table as a ``table``, its title the caption. Needs booktabs, graphicx and xcolor.

    The best figure is bold; where three are marked, they are red, blue and green, as in the field's papers.

    Args:
        wide: over both columns of a page (``table*``).
    """
    every = [tables] if isinstance(tables, Table) else list(tables)
    return "\n\n".join([f"% {PACKAGES}", *(_table(table, wide) for table in every)]) + "\n"


def _table(table: Table, wide: bool) -> str:
    environment = "table*" if wide else "table"
    footnotes = table.footnotes
    body = []
    for index, row in enumerate(table.rows):
        if row.first and index:
            body.append(r"    \addlinespace")
        body.append(_line([_label(row), *(_cell(row.cell(c), table.places, footnotes) for c in table.columns)]))
    # $n$ stands in captions of ours alone; everything else of them is text
    caption = "$n$".join(escape_latex(part) for part in table.title.split("$n$"))
    caption = " ".join(filter(None, [caption, _LEGEND if table.places > 1 else ""]))
    notes = [*table.remarks, *(f"({number}) {note}" for number, note in enumerate(footnotes, 1))]
    return "\n".join(
        [
            rf"\begin{{{environment}}}[htbp]",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"  \begin{{tabular}}{{l{''.join('l' if c.left else 'r' for c in table.columns)}}}",
            r"    \toprule",
            *_groups(table.columns),
            _line([escape_latex(table.head), *(c.latex or escape_latex(c.head) for c in table.columns)]),
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"  \end{tabular}}",
            *(rf"  \par\smallskip\footnotesize {escape_latex(note)}" for note in notes),
            rf"\end{{{environment}}}",
        ]
    )


def _groups(columns: Sequence[Column]) -> list[str]:
    """The heads above several columns, with a rule below each."""
    if not any(column.group for column in columns):
        return []
    widths = [(group, len(list(own))) for group, own in itertools.groupby(columns, key=lambda column: column.group)]
    ends = list(itertools.accumulate((width for _, width in widths), initial=1))
    heads = ["", *(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(group)}}}" for group, width in widths)]
    rules = [rf"\cmidrule(lr){{{start + 1}-{end}}}" for start, end in itertools.pairwise(ends)]
    return [_line(heads), "    " + " ".join(rules)]


def _line(cells: Sequence[str]) -> str:
    return "    " + " & ".join(cells) + r" \\"


def _label(row: Row) -> str:
    label = escape_latex(row.name)
    if row.kind != "paper":
        return label
    return rf"\textit{{{label}}}" if row.first else rf"\quad\textit{{{label}}}"


def _cell(cell: Cell, places: int, footnotes: Sequence[str]) -> str:
    figure, between, deviation = cell.text.partition(" ± ")
    text = escape_latex(figure)
    if cell.rank:
        text = rf"\textbf{{{text}}}" if places == 1 else rf"\textcolor{{{_COLOURS[cell.rank - 1]}}}{{{text}}}"
    text += rf" $\pm$ {deviation}" if between else ""
    text += rf"\,{escape_latex(cell.mark)}" if cell.mark else ""
    return text + (f"$^{{({footnotes.index(cell.note) + 1})}}$" if cell.note else "")


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it; a character that its default fonts lack becomes a question mark."""
    return "".join(map(_character, " ".join(text.split())))


def _character(char: str) -> str:
    if char in _CHARACTERS:
        return _CHARACTERS[char]
    if char.isascii():
        return char
    parts = unicodedata.normalize("NFD", char)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        return rf"\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    folded = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return "".join(_CHARACTERS.get(one, one) for one in folded) or "?"
