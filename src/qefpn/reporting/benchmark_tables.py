"""The tables of `qefpn benchmark`: like the paper's Table I, the best three of each column marked."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qefpn.benchmark.entries import Entry
from qefpn.reporting.published import Published
from qefpn.reporting.sweep_latex import escape_latex
from qefpn.reporting.tables import METRICS, Metric, finite, plain_markdown, superscript

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = tuple(metric for metric in METRICS if metric.key != "binary_ratio")
RANKS = 3
DAGGER = "†"


@dataclass(frozen=True)
class Figure:
    """One figure: its value, its rank among the first three of its column, the number of its footnote."""

    value: float | None
    rank: int | None = None
    note: int | None = None


@dataclass(frozen=True)
class Line:
    """One method on one data set. ``kind`` is "measured", "published" or, for Table II, "published II"."""

    method: str
    kind: str
    figures: Mapping[str, Figure]
    complete: bool = True
    scored: int = 0
    expected: int = 0
    year: int | None = None


@dataclass
class Block:
    """All methods on one data set."""

    dataset: str
    images: int
    lines: list[Line]
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """All blocks, and the footnotes that their figures point to, from 1."""

    blocks: list[Block]
    footnotes: list[str]


def compare(entries: Sequence[Entry], published: Published | None = None) -> Comparison:
    """Set methods beside each other, a block a data set.

    The best three figures of a column are ranked as printed, equal ones alike. A method with missing maps is not
    ranked, since its figures are of other pictures; nor are published figures where the pictures scored are not the
    whole official set. A published misprint is ranked by its right figure, or not at all where that is not known.

    Args:
        entries: the methods' results.
        published: the paper's figures; None leaves them out.
    """
    footnotes: list[str] = []
    blocks = []
    for dataset in dict.fromkeys(entry.dataset for entry in entries):
        own = [entry for entry in entries if entry.dataset == dataset]
        blocks.append(_block(dataset, own, published, footnotes))
    return Comparison(blocks, footnotes)


def _block(dataset: str, entries: Sequence[Entry], published: Published | None, footnotes: list[str]) -> Block:
    images = max(entry.expected for entry in entries)
    drafts = []  # (line without ranks, the figures that compete)
    for entry in entries:
        values = {metric.key: finite(entry.scores.get(metric.key)) for metric in COLUMNS}
        line = Line(
            entry.method, "measured", {key: Figure(value) for key, value in values.items()}, entry.complete,
            len(entry.pictures), entry.expected,
        )  # fmt: skip
        drafts.append((line, values if entry.complete else {}))
    remarks = []
    official = published.official_images(dataset) if published else None
    if published is not None and official is not None:
        partial = official != images
        if partial:
            remarks.append(
                f"{images:,} pictures of {dataset} were scored; the official set has {official:,}, of which the "
                f"published figures are: they are not ranked here."
            )
        drafts += [
            (line, {} if partial else competing) for line, competing in _published(dataset, published, footnotes)
        ]
    ranked = _rank(drafts)
    for line in ranked:
        if not line.complete:
            missing = line.expected - line.scored
            remarks.append(
                f"{DAGGER} {line.method}: {missing:,} of {line.expected:,} maps are missing or unreadable; its figures "
                f"are of the others, and are not ranked."
            )
    return Block(dataset, images, ranked, remarks)


def _published(
    dataset: str, published: Published, footnotes: list[str]
) -> Iterable[tuple[Line, dict[str, float | None]]]:
    for table, kind in (("I", "published"), ("II", "published II")):
        for row in published.rows(table, dataset):
            figures: dict[str, Figure] = {}
            competing: dict[str, float | None] = {}
            for metric in COLUMNS:
                value = finite(row.values.get(metric.key))
                misprint = row.misprints.get(metric.key)
                number = None
                competing[metric.key] = value
                if misprint is not None and value is not None:
                    if misprint.note not in footnotes:
                        footnotes.append(misprint.note)
                    number = footnotes.index(misprint.note) + 1
                    competing[metric.key] = misprint.correct
                figures[metric.key] = Figure(value, note=number)
            yield Line(row.method, kind, figures, year=row.year), competing


def _rank(drafts: Sequence[tuple[Line, Mapping[str, float | None]]]) -> list[Line]:
    if len(drafts) < 2:
        return [line for line, _ in drafts]
    ranks: dict[str, dict[str, int]] = {}
    for metric in COLUMNS:
        texts = {metric.text(competing[metric.key]) for _, competing in drafts if competing.get(metric.key) is not None}
        ordered = sorted(texts, key=float, reverse=not metric.lower_is_better)
        ranks[metric.key] = {text: position + 1 for position, text in enumerate(ordered[:RANKS])}
    lines = []
    for line, competing in drafts:
        figures = {
            key: Figure(one.value, ranks[key].get(_text(key, competing.get(key))), one.note)
            for key, one in line.figures.items()
        }
        lines.append(Line(line.method, line.kind, figures, line.complete, line.scored, line.expected, line.year))
    return lines


_BY_KEY = {metric.key: metric for metric in COLUMNS}


def _text(key: str, value: float | None) -> str:
    return _BY_KEY[key].text(value)


def _shown(block: Block) -> list[Metric]:
    return [
        metric for metric in COLUMNS if any(line.figures[metric.key].value is not None for line in block.lines)
    ] or list(COLUMNS)


def _label(line: Line) -> str:
    label = line.method + ("" if line.complete else DAGGER)
    if line.kind == "published II":
        return f"{label} (Table II)"
    return f"{label} ({line.year})" if line.year else label


_STYLES = {1: "bold red", 2: "bold blue", 3: "bold green"}


def terminal_benchmark(comparison: Comparison) -> Table:
    """A rich table; the best three in the field's red, blue and green."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    shown = [metric for metric in COLUMNS if any(metric in _shown(block) for block in comparison.blocks)]
    out = Table(box=box.SIMPLE_HEAD, header_style="bold", caption_justify="left", caption_style="dim")
    out.collapse_padding, out.pad_edge = True, False
    out.add_column("method", overflow="fold")
    for metric in shown:
        out.add_column(f"{metric.label} {metric.arrow}", justify="right", no_wrap=True)
    captions = []
    for block in comparison.blocks:
        out.add_row(f"{escape(block.dataset)} ({block.images:,})", style="bold cyan")
        for index, line in enumerate(block.lines):
            texts = []
            for metric in shown:
                figure = line.figures[metric.key]
                text = metric.text(figure.value)
                if figure.rank:
                    text = f"[{_STYLES[figure.rank]}]{text}[/]"
                texts.append(text + (f"[dim]{superscript(figure.note)}[/]" if figure.note else ""))
            style = None if line.kind == "measured" else "dim"
            out.add_row(escape(_label(line)), *texts, style=style, end_section=index == len(block.lines) - 1)
        captions += block.remarks
    captions += [f"{superscript(number)} {note}" for number, note in enumerate(comparison.footnotes, 1)]
    out.caption = escape("\n".join(["best three: red, blue, green", *captions]))
    return out


_MARKS = {1: ("**", "**"), 2: ("*", "*"), 3: ("<u>", "</u>"), None: ("", "")}


def markdown_benchmark(comparison: Comparison) -> str:
    """The same in Markdown, a table a data set; best bold, second italic, third underlined."""
    blocks = []
    for block in comparison.blocks:
        shown = _shown(block)
        lines = [
            f"**{plain_markdown(block.dataset)}** ({block.images:,} pictures)",
            "",
            "| " + " | ".join(["method", *(f"{metric.label} {metric.arrow}" for metric in shown)]) + " |",
            "| " + " | ".join(["---", *("---:" for _ in shown)]) + " |",
        ]
        for line in block.lines:
            cells = []
            for metric in shown:
                figure = line.figures[metric.key]
                before, after = _MARKS[figure.rank]
                cells.append(
                    before + metric.text(figure.value) + after + (superscript(figure.note) if figure.note else "")
                )
            lines.append("| " + " | ".join([plain_markdown(_label(line)), *cells]) + " |")
        for remark in block.remarks:
            lines += ["", plain_markdown(remark)]
        blocks.append("\n".join(lines))
    notes = [f"{superscript(number)} {note}" for number, note in enumerate(comparison.footnotes, 1)]
    return "\n\n".join([*blocks, "Best **bold**, second *italic*, third <u>underlined</u>.", *notes]) + "\n"


_LATEX_COLOURS = {1: "red", 2: "blue", 3: "green!60!black"}
_LATEX_HEADS = {
    "mae": r"MAE $\downarrow$", "mean_f": r"$mF_\beta\uparrow$", "weighted_f": r"$wF_\beta\uparrow$",
    "max_f": r"$F_{\max}\uparrow$", "s_measure": r"$S_m\uparrow$", "e_measure": r"$E_m\uparrow$",
}  # fmt: skip


def latex_benchmark(comparison: Comparison) -> str:
    """A LaTeX table as wide as Table I: methods down, data sets across. Needs booktabs, graphicx and xcolor."""
    keys = [(block, metric) for block in comparison.blocks for metric in _shown(block)]
    methods = list(dict.fromkeys((line.kind, line.method) for block in comparison.blocks for line in block.lines))
    found = {
        (block.dataset, line.kind, line.method): line for block in comparison.blocks for line in block.lines
    }  # fmt: skip
    labels = {(line.kind, line.method): _label(line) for block in comparison.blocks for line in block.lines}
    heads, rules, position = [], [], 2
    for block in comparison.blocks:
        width = len(_shown(block))
        heads.append(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(block.dataset)} ({block.images})}}")
        rules.append(rf"\cmidrule(lr){{{position}-{position + width - 1}}}")
        position += width
    out = [
        r"% \usepackage{booktabs,graphicx,xcolor}",
        r"\begin{table*}[t]",
        r"  \centering",
        r"  \caption{Best three: \textcolor{red}{red}, \textcolor{blue}{blue}, \textcolor{green!60!black}{green}.}",
        r"  \resizebox{\textwidth}{!}{%",
        rf"  \begin{{tabular}}{{l{'c' * len(keys)}}}",
        r"    \toprule",
        "    & " + " & ".join(heads) + r" \\",
        "    " + " ".join(rules),
        "    Method & " + " & ".join(_LATEX_HEADS[metric.key] for _, metric in keys) + r" \\",
        r"    \midrule",
    ]
    previous = methods[0][0] if methods else ""
    for kind, method in methods:
        if kind != previous:
            out.append(r"    \midrule")
            previous = kind
        cells = []
        for block, metric in keys:
            line = found.get((block.dataset, kind, method))
            cells.append("--" if line is None else _latex_cell(metric, line.figures[metric.key]))
        out.append(f"    {escape_latex(labels[kind, method])} & " + " & ".join(cells) + r" \\")
    out += [r"    \bottomrule", r"  \end{tabular}}"]
    notes = [remark for block in comparison.blocks for remark in block.remarks]
    notes += [f"({number}) {note}" for number, note in enumerate(comparison.footnotes, 1)]
    out += [rf"  \par\smallskip\footnotesize {escape_latex(note)}" for note in notes]
    return "\n".join([*out, r"\end{table*}"]) + "\n"


def _latex_cell(metric: Metric, figure: Figure) -> str:
    if figure.value is None:
        return "--"
    text = metric.text(figure.value)
    if figure.rank:
        text = rf"\textcolor{{{_LATEX_COLOURS[figure.rank]}}}{{{text}}}"
    return text + (f"$^{{({figure.note})}}$" if figure.note else "")


def csv_benchmark(entries: Sequence[Entry]) -> str:
    """A row a method and data set, every figure in full, for a program to read."""
    figures = list(dict.fromkeys(key for entry in entries for key in entry.scores))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["dataset", "method", "complete", "scored", "expected", *figures])
    for entry in entries:
        values = [repr(value) if (value := entry.scores.get(key)) is not None else "" for key in figures]
        writer.writerow([entry.dataset, entry.method, entry.complete, len(entry.pictures), entry.expected, *values])
    return stream.getvalue()


def json_benchmark(entries: Sequence[Entry], protocol: str) -> dict[str, Any]:
    """Everything but the maps' scores a picture: figures, curves, and what is missing, extra or odd."""
    results = [
        {
            "dataset": entry.dataset, "method": entry.method, "complete": entry.complete,
            "scored": len(entry.pictures), "expected": entry.expected,
            "scores": {key: finite(value) for key, value in entry.scores.items()},
            "precision": entry.precision, "recall": entry.recall, "f_curve": entry.f_curve,
            "missing": entry.missing, "extra": entry.extra, "resized": entry.resized, "failed": entry.failed,
            "notes": entry.notes,
        }
        for entry in entries
    ]  # fmt: skip
    return {"protocol": protocol, "thresholds": list(range(255, -1, -1)), "results": results}
