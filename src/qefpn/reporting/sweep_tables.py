"""The tables of a sweep's report, free of any output format: figures beside the paper's, training, jobs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qefpn.reporting.frames import run_records, tidy
from qefpn.reporting.published import Published, canonical
from qefpn.reporting.renderers import csv_text
from qefpn.reporting.results import lookup
from qefpn.reporting.sweep_rows import Section, SweepRow, group_runs, paper_name
from qefpn.reporting.sweep_runs import SweepRun, read_sweep
from qefpn.reporting.sweep_statistics import Stat, differences, stat, within_spread
from qefpn.reporting.tables import DASH, METRICS, Cell, Column, Row, Table, finite, text_table

if TYPE_CHECKING:
    import pandas

EXPLAINED = (
    "Ours are mean ± standard deviation (n − 1) over n seeds. Bold: the best, as printed, of ours and of the paper's "
    "each."
)
_NEAR = {
    "≈": "not told from our best: the difference is smaller than the seeds' spread √(s₁² + s₂²), with s the rows' "
    "standard deviations; Welch's t-test (two-sided, 5 %) is the check beside it."
}
_COUNT = Column("n", "n", "seeds")


@dataclass(frozen=True)
class Block:
    """One ablation on one data set: its figures, and how ours were trained."""

    section: Section
    dataset: str
    table: Table
    training: Table


@dataclass
class SweepReport:
    """Everything that the report says. ``left_out``: run, state, and why its figures are in no table."""

    title: str
    blocks: list[Block]
    sections: list[Section]
    jobs: Table
    left_out: list[tuple[str, str, str]]
    remarks: list[str]
    runs: list[SweepRun]
    source: str = ""

    @property
    def frame(self) -> pandas.DataFrame:
        """Every figure of every run that counts, as `frames.COLUMNS` has it: ``method`` is its row."""
        counted = [(row.label, run) for section in self.sections for row in section.rows for run in row.runs]
        return tidy(one for label, run in counted if run.results for one in run_records(run.results, label, run.name))

    @property
    def left_out_table(self) -> Table:
        return text_table("left-out", "Not in the tables", ["job", "state", "why"], self.left_out, left=True)

    def tables(self) -> Iterator[Table]:
        """Each block's figures, and after the last block of a section its training."""
        for number, block in enumerate(self.blocks):
            yield block.table
            if self.blocks[number + 1 : number + 2] == [] or self.blocks[number + 1].section is not block.section:
                yield block.training


def build_report(directory: Path, published: Published | None) -> SweepReport:
    """Read a directory of runs and lay its figures out.

    Args:
        directory: of a sweep; any number of runs below it.
        published: the paper's figures; None leaves them out.

    Raises:
        UserError: no such directory, or no run in it.
    """
    runs = read_sweep(directory)
    sections, repeated = group_runs(runs, published)
    left_out = [(run.name, run.state, run.reason) for run in runs if run.state != "done"]
    left_out += [(run.name, "repeated", run.reason) for run in repeated]
    told = [run for run in runs if run.state == "done" and run.reason and run not in repeated]
    return SweepReport(
        directory.resolve().name or "sweep",
        [block for section in sections for block in _blocks(section, published)],
        sections,
        _jobs(runs, sections),
        left_out,
        [f"{run.name}: {run.reason}." for run in told],
        runs,
        f"{published.source['authors']}, {published.source['title']}" if published else "",
    )


def stats_of(row: SweepRow, dataset: str, key: str) -> Stat | None:
    """One figure of a row over its seeds."""
    return stat(_figures(run, dataset).get(key) for run in row.runs)


def _figures(run: SweepRun, dataset: str) -> dict[str, Any]:
    return run.results.metrics.get(dataset, {}) if run.results else {}


def datasets_of(section: Section) -> list[str]:
    """Data sets that any run of a section was scored on, the paper's first."""
    names = [name for row in section.rows for run in row.runs if run.results for name in run.results.metrics]
    return sorted(dict.fromkeys(names), key=lambda name: canonical(name) != "dutomron")


def _blocks(section: Section, published: Published | None) -> list[Block]:
    datasets = datasets_of(section)
    printed = published.columns(section.table) if published and section.table else None
    metrics = [metric for metric in METRICS if printed is None or metric.key in printed]
    training = training_table(section)
    has_theirs = any(canonical(name) == "dutomron" for name in datasets)
    out = []
    for dataset in datasets:
        beside = published if canonical(dataset) == "dutomron" or not has_theirs else None
        rows = list(_rows(section, dataset, metrics, beside))
        table = Table("figures", f"{section.title}; ours on {dataset}", metrics, rows, head="row").shown().ranked()
        table = _near(table, section, dataset)
        notes = _notes(section, dataset, table.columns, published)
        table = dataclasses.replace(table, columns=[_COUNT, *table.columns], notes=notes)
        out.append(Block(section, dataset, table, training))
    return out


def _rows(section: Section, dataset: str, metrics: Sequence[Column], published: Published | None) -> Iterator[Row]:
    """Ours, each above the paper's row that it repeats; then those that the paper does not have."""
    ours = [row for row in section.rows if any(stats_of(row, dataset, metric.key) for metric in metrics)]
    theirs = published.rows(section.table) if published and section.table else []
    for printed in theirs:
        own = [row for row in ours if row.paper == paper_name(printed)]
        yield from (_own_row(row, dataset, metrics) for row in own)
        depth = f", depth {printed.depth}" if (printed.depth or "").isdigit() else ""
        cells = {metric.key: metric.cell(printed.values.get(metric.key)) for metric in metrics}
        cells[_COUNT.key] = Cell("")
        yield Row(f"{printed.method}{depth}", cells, "paper", "paper", contest="paper", first=not own)
    known = {paper_name(printed) for printed in theirs}
    yield from (_own_row(row, dataset, metrics) for row in ours if row.paper not in known)


def _own_row(row: SweepRow, dataset: str, metrics: Sequence[Column]) -> Row:
    cells = {}
    found = {metric.key: stats_of(row, dataset, metric.key) for metric in metrics}
    for metric in metrics:
        one = found[metric.key]
        if one is not None:
            deviation = "" if one.deviation is None else f" ± {one.deviation:.{metric.digits}f}"
            cells[metric.key] = Cell(metric.text(one.mean) + deviation, one.mean, one.mean)
    cells[_COUNT.key] = Cell(str(max((one.n for one in found.values() if one), default=0)))
    return Row(row.label, cells, "ours", contest="ours", first=True)


def _near(table: Table, section: Section, dataset: str) -> Table:
    """With ≈ at our figures that the seeds do not tell from our best."""
    rows = {row.label: row for row in section.rows}
    marked = [dict(row.cells) for row in table.rows]
    for metric in table.columns:
        own = [(i, rows[row.label]) for i, row in enumerate(table.rows) if row.kind == "ours"]
        present = [(i, one) for i, row in own if (one := stats_of(row, dataset, metric.key))]
        if len(present) < 2:
            continue
        top = metric.best(one.mean for _, one in present)
        best = next(one for _, one in present if one.mean == top)
        for i, one in present:
            cell = marked[i][metric.key]
            if not cell.best and within_spread(one, best):
                marked[i][metric.key] = dataclasses.replace(cell, mark="≈")
    changed = [dataclasses.replace(row, cells=cells) for row, cells in zip(table.rows, marked, strict=True)]
    return dataclasses.replace(table, rows=changed, marks=_NEAR)


def _notes(section: Section, dataset: str, metrics: Sequence[Column], published: Published | None) -> list[str]:
    notes = []
    rows = [row for row in section.rows if any(_figures(run, dataset) for run in row.runs)]
    counts = {int(n) for row in rows for run in row.runs if (n := finite(_figures(run, dataset).get("images")))}
    official = published.official_images(dataset) if published else None
    if len(counts) > 1:
        notes.append(f"The rows were scored on different numbers of pictures ({_range(counts)}): compare with care.")
    elif counts and official and counts != {official}:
        notes.append(f"{_range(counts)} pictures were scored; the official {dataset} has {official:,}.")
    if published and section.table:
        trained = "The paper's figures are of DUT-OMRON after training on DUTS-TR at up to 352 pixels"
        if canonical(dataset) == "dutomron":
            notes.append(f"{trained}; what ours were trained on is in the table below.")
        else:
            order = "compare the order of the rows and their distances, not values"
            notes.append(f"{trained}, ours of {dataset}: {order}.")
        protocols = {str(run.config.get("protocol", "f3net")) for row in rows for run in row.runs}
        theirs = published.source["protocol"]
        if protocols != {theirs}:
            notes.append(f"The paper's protocol is {theirs}; ours: {', '.join(sorted(protocols))}.")
    fewer = [row.label for row in rows for m in metrics if (s := stats_of(row, dataset, m.key)) and s.n < len(row.runs)]
    if fewer:
        notes.append(f"A figure of {', '.join(dict.fromkeys(fewer))} is of fewer seeds than n, which are without it.")
    return notes + _spread_notes(rows, dataset, metrics)


def _spread_notes(rows: Sequence[SweepRow], dataset: str, metrics: Sequence[Column]) -> list[str]:
    if len(rows) < 2:
        return []
    single = [row.label for row in rows if len(row.runs) < 2]
    if len(single) == len(rows):
        return ["One seed a row: whether any difference is more than chance is not known."]
    notes = [f"One seed only, so that no spread is known: {', '.join(single)}."] if single else []
    said: dict[str, list[str]] = {}  # the same is said once of all figures that it holds for
    for metric in metrics:
        found = differences({row.label: stats_of(row, dataset, metric.key) for row in rows})
        if found.pairs:
            said.setdefault(found.describe(), []).append(metric.label)
    return notes + [f"{', '.join(names)}: {text}" for text, names in said.items()]


def training_table(section: Section) -> Table:
    """What each row was trained on and for how long; ranges where its seeds differ."""
    heads = ["row", "seeds", "data", "pictures", "size", "batch", "steps", "pictures seen", "backbone", "parameters"]
    rows = []
    for row in section.rows:
        runs = row.runs or row.others
        steps, seen, parameters = (
            _range({value for run in runs if (value := getattr(run.costs, key))})
            for key in ("steps", "pictures_seen", "parameters")
        )
        rows.append(
            [
                row.label,
                ", ".join(str(run.seed) for run in row.runs) or DASH,
                *(_same(text(run) for run in runs) for text in (_data, _train_pictures, _size, _batch)),
                steps,
                seen,
                _same(_backbone(run) for run in runs),
                parameters,
            ]
        )
    left = ("seeds", "data", "size", "backbone")
    return text_table("training", f"{section.title}: how ours were trained", heads, rows, left=left)


def _same(texts: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(texts)) or DASH


def _text(value: Any) -> str:
    return DASH if value is None else str(value)


def _range(values: set[int]) -> str:
    if not values:
        return DASH
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _data(run: SweepRun) -> str:
    name, train = lookup(run.config, "data.name"), lookup(run.config, "data.train")
    if isinstance(train, list) and train:
        return ", ".join(map(str, train))
    root = lookup(run.config, "data.root")
    return f"{_text(name)} {os.path.basename(str(root))}".strip() if root else _text(name)


def _train_pictures(run: SweepRun) -> str:
    if run.costs.train_pictures:
        return f"{run.costs.train_pictures:,}" if run.costs.pictures_known else f"≈ {run.costs.train_pictures:,}"
    drawn = lookup(run.config, "data.synthetic.train")
    return f"≤ {drawn:,}" if isinstance(drawn, int) and lookup(run.config, "data.name") == "synthetic" else DASH


def _size(run: SweepRun) -> str:
    test, scales = lookup(run.config, "data.image_size"), lookup(run.config, "data.scales")
    if isinstance(scales, list) and scales:
        return f"{_range({int(s) for s in scales})}, tested at {_text(test)}"
    return _text(test)


def _batch(run: SweepRun) -> str:
    return _text(lookup(run.config, "data.batch_size"))


def _backbone(run: SweepRun) -> str:
    name, weights = lookup(run.config, "backbone.name"), lookup(run.config, "backbone.weights")
    start = "from scratch" if weights is None else "ImageNet weights" if weights == "DEFAULT" else "own weights"
    return f"{_text(name)}, {start}"


#: what a job took: head, attribute of its costs, format
_COSTS = (
    ("steps", "steps", ",d"), ("solver steps", "solver_steps", ".1f"), ("evaluations", "evaluations", ".1f"),
    ("backward evaluations", "backward_evaluations", ".1f"), ("residual", "residual", ".2g"), ("time", "seconds", ""),
    ("ms a step", "pace", ",.0f"), ("memory MB", "memory_mb", ",.0f"), ("parameters", "parameters", ",d"),
)  # fmt: skip


def _labels(sections: Sequence[Section]) -> dict[int, str]:
    return {id(run): row.label for section in sections for row in section.rows for run in row.every}


def _jobs(runs: Sequence[SweepRun], sections: Sequence[Section]) -> Table:
    labels, rows = _labels(sections), []
    for run in runs:
        costs = run.costs
        took = [duration(v) if not form else DASH if v is None else format(v, form)
                for _, key, form in _COSTS for v in [getattr(costs, key)]]  # fmt: skip
        rows.append([run.name, labels.get(id(run), DASH), _text(run.seed), run.state, *took])
    heads = ["job", "row", "seed", "state", *(head for head, _, _ in _COSTS)]
    return text_table("jobs", "Jobs", heads, rows, left=("row", "state"))


def duration(seconds: float | None) -> str:
    """Seconds as ``1:02:03`` or ``2:03``; a dash for None."""
    if seconds is None:
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def csv_jobs(report: SweepReport) -> str:
    """A line a run: what it took, in full; blank where not known."""
    costs = [
        "steps", "pictures_seen", "solver_steps", "evaluations", "backward_evaluations", "residual", "seconds",
        "memory_mb", "parameters",
    ]  # fmt: skip
    labels = _labels(report.sections)
    return csv_text(
        {"job": run.name, "row": labels.get(id(run)), "seed": run.seed, "state": run.state, "why": run.reason}
        | {key: getattr(run.costs, key) for key in costs}
        for run in report.runs
    )


def csv_figures(report: SweepReport, published: Published | None) -> str:
    """A line a row and data set, ours and the paper's, every figure in full, for a program to read.

    Columns: table, ablation, row, source ("ours" or "paper"), paper_row, dataset, images, n, seeds, and of each
    figure its mean and, as ``<figure>_sd``, its deviation over seeds.
    """
    lines = list(_csv_lines(report, published))
    keys = [m.key for m in METRICS if m in METRICS[:7] or any(m.key in line for line in lines)]
    figures = [f"{key}{end}" for key in keys for end in ("", "_sd")]
    heads = ["table", "ablation", "row", "source", "paper_row", "dataset", "images", "n", "seeds", *figures]
    return csv_text(lines, heads)


def _csv_lines(report: SweepReport, published: Published | None) -> Iterator[Mapping[str, Any]]:
    for section in report.sections:
        papers = published.rows(section.table) if published and section.table else []
        names = {
            paper_name(row): f"{row.method} {row.depth}" if (row.depth or "").isdigit() else row.method
            for row in papers
        }
        head = {"table": section.table, "ablation": section.title}
        for dataset in datasets_of(section):
            for row in section.rows:
                stats = {m.key: one for m in METRICS if (one := stats_of(row, dataset, m.key))}
                if not stats:
                    continue
                runs = [run for run in row.runs if _figures(run, dataset)]
                images = {count for run in runs if (count := finite(_figures(run, dataset).get("images"))) is not None}
                yield head | {
                    "row": row.label, "source": "ours", "paper_row": names.get(row.paper or ""), "dataset": dataset,
                    "images": "/".join(f"{int(count)}" for count in sorted(images)), "n": len(runs),
                    "seeds": " ".join(str(run.seed) for run in runs),
                    **{key: one.mean for key, one in stats.items()},
                    **{f"{key}_sd": one.deviation for key, one in stats.items()},
                }  # fmt: skip
        for paper in papers:
            name = names[paper_name(paper)]
            ours = {"row": name, "source": "paper", "paper_row": name, "dataset": "DUT-OMRON"}
            yield head | ours | dict(paper.values)
