"""A sweep's tables in LaTeX: tables to be put into a paper, and a document around them that compiles as it is."""

from __future__ import annotations

import unicodedata

from qefpn.reporting.sweep_tables import Block, FigureCell, Plain, SweepReport
from qefpn.reporting.tables import Metric

_HEADS = {
    "mae": r"MAE $\downarrow$", "mean_f": r"$mF_\beta\uparrow$", "weighted_f": r"$F^\omega_\beta\uparrow$",
    "max_f": r"Max $F_\beta\uparrow$", "s_measure": r"$S_m\uparrow$", "e_measure": r"$E_m\uparrow$",
    "binary_ratio": r"Binary \% $\uparrow$",
}  # fmt: skip

_CHARACTERS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", "±": r"$\pm$",
    "≈": r"$\approx$", "≤": r"$\leq$", "≥": r"$\geq$", "×": r"$\times$", "√": r"$\surd$", "−": "$-$", "–": "--",
    "—": "---", "∞": r"$\infty$", "β": r"$\beta$", "²": r"$^2$", "₁": r"$_1$", "₂": r"$_2$", "…": r"\dots{}",
    "“": "``", "”": "''", "’": "'", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "†": r"$^\dagger$", '"': "''",
}  # fmt: skip
#: letters with an accent that LaTeX builds in its default encoding
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030c": "v", "\u0327": "c"}

PACKAGES = r"\usepackage{booktabs,graphicx}"


def latex_document(report: SweepReport, tables: str = "sweep_tables.tex") -> str:
    """A document that reads the file of tables beside it."""
    return "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage[margin=2cm,landscape]{geometry}",
            PACKAGES,
            r"\begin{document}",
            rf"\section*{{Ablations: {escape_latex(report.title)}}}",
            rf"\input{{{tables}}}",
            r"\end{document}",
            "",
        ]
    )


def latex_tables(report: SweepReport) -> str:
    """Every block and every table of training as a ``table``. Needs booktabs and graphicx."""
    out = [f"% {PACKAGES}"]
    for number, block in enumerate(report.blocks):
        out.append(_block(block))
        following = report.blocks[number + 1 :]
        if not following or following[0].training is not block.training:
            out.append(_plain(f"{block.title}: how ours were trained.", block.training))
    out.append(_plain("Jobs.", report.jobs))
    if report.left_out:
        rows = [[job, state, why[:80]] for job, state, why in report.left_out]
        out.append(_plain("Not in the tables.", Plain(["job", "state", "why"], rows)))
    return "\n\n".join(out) + "\n"


def _block(block: Block) -> str:
    body = []
    for index, line in enumerate(block.lines):
        label = escape_latex(line.label)
        label = (
            label if line.kind == "ours" else rf"\quad\textit{{{label}}}" if not line.first else rf"\textit{{{label}}}"
        )
        if line.first and index:
            body.append(r"    \addlinespace")
        cells = [label, "" if line.n is None else str(line.n), *(_figure(cell) for cell in line.cells)]
        body.append("    " + " & ".join(cells) + r" \\")
    caption = f"{block.title}; ours on {block.dataset}. Mean and standard deviation over $n$ seeds."
    notes = [rf"  \par\smallskip\footnotesize {escape_latex(note)}" for note in block.notes]
    heads = ["Row", "$n$", *(_head(metric) for metric in block.metrics)]
    return _table(caption, "lr" + "r" * len(block.metrics), heads, body, notes)


def _head(metric: Metric) -> str:
    return _HEADS.get(metric.key, escape_latex(f"{metric.label} {metric.arrow}"))


def _figure(cell: FigureCell) -> str:
    if cell.stat is None:
        return "--"
    mean, _, deviation = cell.text.partition(" ± ")
    text = rf"\textbf{{{mean}}}" if cell.best else mean
    text += rf" $\pm$ {deviation}" if deviation else ""
    return text + (r"\,$\approx$" if cell.near else "")


def _plain(caption: str, plain: Plain) -> str:
    body = ["    " + " & ".join(map(escape_latex, row)) + r" \\" for row in plain.rows]
    return _table(caption, "l" * len(plain.columns), [escape_latex(c) for c in plain.columns], body, [])


def _table(caption: str, columns: str, heads: list[str], body: list[str], notes: list[str]) -> str:
    # $n$ stands in captions of ours alone; everything else of them is text
    text = "$n$".join(escape_latex(part) for part in caption.split("$n$"))
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"  \centering",
            rf"  \caption{{{text}}}",
            r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"  \begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            "    " + " & ".join(heads) + r" \\",
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"  \end{tabular}}",
            *notes,
            r"\end{table}",
        ]
    )


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
