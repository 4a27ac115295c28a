"""A sweep's report in the terminal, in Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qefpn.reporting.published import Published
from qefpn.reporting.sweep_rows import paper_name
from qefpn.reporting.sweep_tables import (
    EXPLAINED,
    Block,
    FigureCell,
    Plain,
    SweepReport,
    datasets_of,
    stats_of,
)
from qefpn.reporting.tables import METRICS, finite

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def figure_text(cell: FigureCell) -> str:
    """The figure with its mark."""
    return cell.text + (" ≈" if cell.near else "")


def terminal_sweep(report: SweepReport) -> list[RenderableType]:
    """Rich tables: a block each, then what ours were trained on, then what was left out."""
    from rich.text import Text

    out: list[RenderableType] = []
    for number, block in enumerate(report.blocks):
        out.append(_terminal_block(block))
        following = report.blocks[number + 1 :]
        if not following or following[0].training is not block.training:
            out.append(_terminal_plain(f"{block.title}: how ours were trained", block.training))
    if report.blocks:
        out.append(Text(EXPLAINED, style="dim"))
    if report.left_out:
        table = _terminal_plain("Not in the tables", Plain(["job", "state", "why"], [list(r) for r in report.left_out]))
        table.columns[-1].no_wrap = False
        out.append(table)
    out += [Text(remark) for remark in report.remarks]
    return out


def _terminal_block(block: Block) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    out = Table(
        box=box.SIMPLE_HEAD, header_style="bold", title=escape(f"{block.title}; ours on {block.dataset}"),
        title_justify="left", caption_justify="left", caption_style="dim",
    )  # fmt: skip
    out.collapse_padding, out.pad_edge = True, False
    out.add_column("row", overflow="fold", min_width=16)
    out.add_column("n", justify="right")
    for metric in block.metrics:
        out.add_column(f"{metric.label} {metric.arrow}", justify="right", no_wrap=True)
    for line in block.lines:
        texts = [f"[bold green]{figure_text(c)}[/bold green]" if c.best else figure_text(c) for c in line.cells]
        label = escape(line.label) if line.first else "  " + escape(line.label)
        out.add_row(label, _count(line.n), *texts, style="dim" if line.kind == "paper" else None)
    out.caption = escape("\n".join(block.notes)) or None
    return out


def _count(n: int | None) -> str:
    return "" if n is None else str(n)


def _terminal_plain(title: str, plain: Plain) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    out = Table(box=box.SIMPLE_HEAD, header_style="bold", title=escape(title), title_justify="left")
    out.collapse_padding, out.pad_edge = True, False
    for index, column in enumerate(plain.columns):
        numbers = column not in ("job", "row", "seeds", "data", "state", "why", "backbone", "size")
        longest = max((len(row[index]) for row in plain.rows), default=0)
        least = min(longest, 28) if column == "row" else None
        out.add_column(column, justify="right" if numbers and index else "left", overflow="fold", min_width=least)
    for row in plain.rows:
        out.add_row(*map(escape, row))
    return out


def markdown_sweep(report: SweepReport) -> str:
    """The whole report but its curves."""
    parts = [f"# Ablations: {plain_markdown(report.title)}"]
    if report.blocks:
        parts.append(EXPLAINED + (f" Figures marked (paper) are those of {report.source}." if report.source else ""))
    for number, block in enumerate(report.blocks):
        parts.append(f"## {plain_markdown(block.title)}; ours on {plain_markdown(block.dataset)}")
        heads = ["row", "n", *(f"{metric.label} {metric.arrow}" for metric in block.metrics)]
        rows = []
        for line in block.lines:
            label = plain_markdown(line.label)
            texts = [f"**{figure_text(c)}**" if c.best else figure_text(c) for c in line.cells]
            if line.kind == "paper":
                label = f"*{label}*"
            rows.append([label, _count(line.n), *texts])
        parts.append(_markdown_table(heads, rows, left=1))
        parts += [plain_markdown(note) for note in block.notes]
        following = report.blocks[number + 1 :]
        if not following or following[0].training is not block.training:
            parts.append("How ours were trained:")
            parts.append(_markdown_plain(block.training))
    parts.append("## Jobs")
    parts.append(_markdown_plain(report.jobs))
    parts += [plain_markdown(remark) for remark in report.remarks]
    if report.left_out:
        parts.append("## Not in the tables")
        parts.append(_markdown_plain(Plain(["job", "state", "why"], [list(row) for row in report.left_out])))
    return "\n\n".join(parts) + "\n"


def _markdown_plain(plain: Plain) -> str:
    rows = [[plain_markdown(text) for text in row] for row in plain.rows]
    return _markdown_table(plain.columns, rows, left=len(plain.columns))


def _markdown_table(heads: list[str], rows: list[list[str]], left: int) -> str:
    rule = ["---" if index < left else "---:" for index in range(len(heads))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, rule, *rows])


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table cell too."""
    return "".join("\\" + char if char in "\\`*_|[]<>" else char for char in " ".join(text.split()))


def csv_figures(report: SweepReport, published: Published | None) -> str:
    """A line a row and data set, ours and the paper's, every figure in full, for a program to read.

    Columns: table, ablation, row, source ("ours" or "paper"), paper_row, dataset, images, n, seeds, and of each
    figure its mean and, as ``<figure>_sd``, its deviation over seeds.
    """
    lines = list(_csv_lines(report, published))
    figures = [f"{metric.key}{end}" for metric in METRICS for end in ("", "_sd")]
    heads = ["table", "ablation", "row", "source", "paper_row", "dataset", "images", "n", "seeds", *figures]
    return csv_text(heads, [[line.get(head, "") for head in heads] for line in lines])


def _csv_lines(report: SweepReport, published: Published | None) -> Iterator[Mapping[str, Any]]:
    for section in report.sections:
        papers = published.rows(section.table) if published and section.table else []
        by_name = {paper_name(row): row for row in papers}
        for dataset in datasets_of(section):
            for row in section.rows:
                stats = {metric.key: stats_of(row, dataset, metric.key) for metric in METRICS}
                if not any(stats.values()):
                    continue
                found = by_name.get(row.paper or "")
                runs = [run for run in row.runs if run.results and run.results.metrics.get(dataset)]
                images = {finite(run.results.metrics[dataset].get("images")) for run in runs if run.results}
                line: dict[str, Any] = {
                    "table": section.table or "", "ablation": section.title, "row": row.label, "source": "ours",
                    "paper_row": _method(found) if found else "", "dataset": dataset, "n": len(runs),
                    "images": "/".join(f"{int(count)}" for count in sorted(i for i in images if i is not None)),
                    "seeds": " ".join(str(run.seed) for run in runs),
                }  # fmt: skip
                for key, one in stats.items():
                    if one is not None:
                        line[key] = repr(one.mean)
                        line[f"{key}_sd"] = "" if one.deviation is None else repr(one.deviation)
                yield line
        for paper in papers:
            yield {
                "table": section.table, "ablation": section.title, "row": _method(paper), "source": "paper",
                "paper_row": _method(paper), "dataset": "DUT-OMRON",
                **{key: repr(value) for key, value in paper.values.items()},
            }  # fmt: skip


def _method(row: Any) -> str:
    return f"{row.method} {row.depth}" if (row.depth or "").isdigit() else str(row.method)


def csv_jobs(report: SweepReport) -> str:
    """A line a run: what it took, in full; blank where not known."""
    heads = [
        "job", "row", "seed", "state", "why", "steps", "pictures_seen", "solver_steps", "evaluations",
        "backward_evaluations", "residual", "seconds", "memory_mb", "parameters",
    ]  # fmt: skip
    labels = {id(run): row.label for section in report.sections for row in section.rows for run in row.every}
    rows = []
    for run in report.runs:
        known = [getattr(run.costs, name) for name in heads[5:]]
        start = [run.name, labels.get(id(run), ""), "" if run.seed is None else run.seed, run.state, run.reason]
        rows.append([*start, *("" if value is None else value for value in known)])
    return csv_text(heads, rows)


def csv_text(heads: list[str], rows: list[list[Any]]) -> str:
    """Comma-separated values with a head."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    return stream.getvalue()
