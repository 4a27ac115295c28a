"""The tables of a sweep's report, free of any output format: figures beside the paper's, training, jobs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qefpn.reporting.published import Published, canonical
from qefpn.reporting.results import lookup
from qefpn.reporting.sweep_rows import Section, SweepRow, group_runs, paper_name
from qefpn.reporting.sweep_runs import SweepRun, read_sweep
from qefpn.reporting.sweep_statistics import Differences, Stat, differences, listed, stat, within_spread
from qefpn.reporting.tables import METRICS, Metric, finite

DASH = "–"
EXPLAINED = (
    "Ours are mean ± standard deviation (n − 1) over n seeds. Bold: the best, as printed, of ours and of the paper's "
    "each. ≈: not told from our best, since the difference is smaller than the seeds' spread √(s₁² + s₂²), with s the "
    "rows' standard deviations; Welch's t-test (two-sided, 5 %) is the check beside it."
)


@dataclass(frozen=True)
class FigureCell:
    """A printed figure. ``near``: its difference to our best is smaller than the seeds' spread."""

    stat: Stat | None
    text: str
    best: bool = False
    near: bool = False


@dataclass(frozen=True)
class FigureLine:
    """A row of figures. ``kind`` is "ours" or "paper"; ``n`` counts seeds."""

    label: str
    kind: str
    cells: list[FigureCell]
    n: int | None = None
    first: bool = False  # of a group: ours with the paper's line below


@dataclass
class Plain:
    """A table of texts; of a column a dash where nothing is known."""

    columns: list[str]
    rows: list[list[str]]


@dataclass
class Block:
    """One ablation on one data set."""

    title: str
    dataset: str
    metrics: list[Metric]
    lines: list[FigureLine]
    training: Plain
    notes: list[str] = field(default_factory=list)
    table: str | None = None


@dataclass
class SweepReport:
    """Everything that the report says. ``left_out``: run → why its figures are in no table."""

    title: str
    blocks: list[Block]
    sections: list[Section]
    jobs: Plain
    left_out: list[tuple[str, str, str]]
    remarks: list[str]
    runs: list[SweepRun]
    source: str = ""


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
    blocks = [block for section in sections for block in _blocks(section, published)]
    left_out = [(run.name, run.state, run.reason) for run in runs if run.state != "done"]
    left_out += [(run.name, "repeated", run.reason) for run in repeated]
    remarks = [
        f"{run.name}: {run.reason}." for run in runs if run.state == "done" and run.reason and run not in repeated
    ]
    rows = {id(run): row.label for section in sections for row in section.rows for run in row.every}
    if published:
        source = f"{published.source['authors']}, {published.source['title']}"
    else:
        source = ""
    title = directory.resolve().name or "sweep"
    return SweepReport(title, blocks, sections, _jobs(runs, rows), left_out, remarks, runs, source)


def metrics_of(section: Section, published: Published | None) -> list[Metric]:
    """The columns of the paper's table, or all where it has none."""
    if published and section.table:
        keys = published.columns(section.table)
        return [metric for metric in METRICS if metric.key in keys]
    return list(METRICS)


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
    training = training_table(section.rows)
    theirs = "DUT-OMRON" if published and section.table else ""
    has_theirs = any(canonical(name) == canonical(theirs) for name in datasets)
    out = []
    for dataset in datasets:
        metrics = metrics_of(section, published)
        with_paper = published if not has_theirs or canonical(dataset) == canonical(theirs) else None
        lines = _lines(section, dataset, metrics, with_paper)
        shown = [i for i in range(len(metrics)) if any(line.cells[i].stat is not None for line in lines)]
        lines = [
            FigureLine(line.label, line.kind, [line.cells[i] for i in shown], line.n, line.first) for line in lines
        ]
        block = Block(section.title, dataset, [metrics[i] for i in shown], lines, training, table=section.table)
        block.notes = _notes(section, dataset, block.metrics, published)
        out.append(block)
    return out


def _lines(section: Section, dataset: str, metrics: Sequence[Metric], published: Published | None) -> list[FigureLine]:
    ours = [(row, {m.key: stats_of(row, dataset, m.key) for m in metrics}) for row in section.rows]
    ours = [(row, stats) for row, stats in ours if any(stats.values())]
    best = {m.key: _best(m, [stats[m.key] for _, stats in ours]) for m in metrics}
    rows = published.rows(section.table) if published and section.table else []
    paper = [(row, {m.key: stat([row.values.get(m.key)]) for m in metrics}) for row in rows]
    paper_best = {m.key: _best(m, [stats[m.key] for _, stats in paper]) for m in metrics}

    def own_line(row: SweepRow, stats: dict[str, Stat | None]) -> FigureLine:
        count = max((one.n for one in stats.values() if one), default=0)
        cells = [_cell(m, stats[m.key], best[m.key], alone=len(ours) < 2) for m in metrics]
        return FigureLine(row.label, "ours", cells, count, first=True)

    lines = []
    placed: set[int] = set()
    for published_row, stats in paper:
        own = [one for one in ours if one[0].paper == paper_name(published_row)]
        placed |= {id(row) for row, _ in own}
        lines += [own_line(*one) for one in own]
        cells = [_cell(m, stats[m.key], paper_best[m.key], alone=False) for m in metrics]
        depth = f", depth {published_row.depth}" if (published_row.depth or "").isdigit() else ""
        label = f"{published_row.method}{depth} (paper)"
        lines.append(FigureLine(label, "paper", cells, first=not own))
    lines += [own_line(row, stats) for row, stats in ours if id(row) not in placed]
    return lines


def _best(metric: Metric, stats: Sequence[Stat | None]) -> Stat | None:
    present = [one for one in stats if one is not None]
    if not present:
        return None
    return (min if metric.lower_is_better else max)(present, key=lambda one: one.mean)


def _cell(metric: Metric, one: Stat | None, best: Stat | None, *, alone: bool) -> FigureCell:
    if one is None:
        return FigureCell(None, DASH)
    text = metric.text(one.mean)
    if one.deviation is not None:
        text += f" ± {one.deviation:.{metric.digits}f}"
    is_best = not alone and best is not None and metric.text(one.mean) == metric.text(best.mean)
    near = not alone and not is_best and best is not None and bool(within_spread(one, best))
    return FigureCell(one, text, is_best, near)


def _notes(section: Section, dataset: str, metrics: Sequence[Metric], published: Published | None) -> list[str]:
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
            notes.append(
                f"{trained}, ours of {dataset}: compare the order of the rows and their distances, not values."
            )
    protocols = {str(run.config.get("protocol", "f3net")) for row in rows for run in row.runs}
    if published and section.table and protocols != {published.source["protocol"]}:
        notes.append(f"The paper's protocol is {published.source['protocol']}; ours: {', '.join(sorted(protocols))}.")
    fewer = [row.label for row in rows for m in metrics if (s := stats_of(row, dataset, m.key)) and s.n < len(row.runs)]
    if fewer:
        notes.append(f"A figure of {', '.join(dict.fromkeys(fewer))} is of fewer seeds than n, which are without it.")
    return notes + _spread_notes(rows, dataset, metrics)


def _spread_notes(rows: Sequence[SweepRow], dataset: str, metrics: Sequence[Metric]) -> list[str]:
    if len(rows) < 2:
        return []
    single = [row.label for row in rows if len(row.runs) < 2]
    notes = []
    if len(single) == len(rows):
        return ["One seed a row: whether any difference is more than chance is not known."]
    if single:
        notes.append(f"One seed only, so that no spread is known: {', '.join(single)}.")
    said: dict[str, list[str]] = {}  # the same is said once of all figures that it holds for
    for metric in metrics:
        found = differences({row.label: stats_of(row, dataset, metric.key) for row in rows})
        if found.pairs:
            said.setdefault(_describe(found), []).append(metric.label)
    return notes + [f"{', '.join(names)}: {text}" for text, names in said.items()]


MOST_NAMED = 3
"""Pairs of rows that a note names; more are counted."""


def _describe(found: Differences) -> str:
    """What the seeds tell of the differences between rows, in a sentence."""
    not_apart = len(found.within) + len(found.unclear)
    if not not_apart:
        return "the seeds tell every two rows apart, by the spread and by Welch's test."
    if not_apart <= MOST_NAMED or len(found.within) == found.pairs:
        parts = []
        if found.within:
            parts.append(f"smaller than the seeds' spread between {listed(found.within, found.pairs)}")
        if found.unclear:
            between = listed(found.unclear, found.pairs)
            parts.append(f"larger, but not significant by Welch's test, between {between}")
        return f"the difference is {', and '.join(parts)}."
    counts = f"{len(found.within)} of the {found.pairs} differences between two rows are smaller than the seeds' spread"
    if found.unclear:
        counts += f", {len(found.unclear)} larger, but not significant by Welch's test"
    if not found.apart:
        return f"{counts}: no two rows are told apart."
    if len(found.apart) <= MOST_NAMED:
        return f"{counts}; told apart: {listed(found.apart, found.pairs)}."
    return f"{counts}; the other {len(found.apart)} tell the rows apart."


def training_table(rows: Sequence[SweepRow]) -> Plain:
    """What each row was trained on and for how long; ranges where its seeds differ."""
    columns = ["row", "seeds", "data", "pictures", "size", "batch", "steps", "pictures seen", "backbone", "parameters"]
    out = []
    for row in rows:
        runs = row.runs or row.others
        known = [run.costs for run in runs]
        seen = [c.pictures_seen for c in known]
        parameters = [c.parameters for c in known]
        out.append(
            [
                row.label,
                ", ".join(str(run.seed) for run in row.runs) or DASH,
                _same(_data(run) for run in runs),
                _same(_train_pictures(run) for run in runs),
                _same(_size(run) for run in runs),
                _same(_text(lookup(run.config, "data.batch_size")) for run in runs),
                _range({c.steps for c in known if c.steps}),
                _range({n for n in seen if n}),
                _same(_backbone(run) for run in runs),
                _range({n for n in parameters if n}),
            ]
        )
    return Plain(columns, out)


def _same(texts: Any) -> str:
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


def _backbone(run: SweepRun) -> str:
    name, weights = lookup(run.config, "backbone.name"), lookup(run.config, "backbone.weights")
    start = "from scratch" if weights is None else "ImageNet weights" if weights == "DEFAULT" else "own weights"
    return f"{_text(name)}, {start}"


def _jobs(runs: Sequence[SweepRun], rows: dict[int, str]) -> Plain:
    columns = [
        "job", "row", "seed", "state", "steps", "solver steps", "evaluations", "backward evaluations", "residual",
        "time", "ms a step", "memory MB", "parameters",
    ]  # fmt: skip
    out = []
    for run in runs:
        c = run.costs
        pace = 1000 * c.seconds / c.steps if c.seconds and c.steps else None
        out.append(
            [
                run.name,
                rows.get(id(run), DASH),
                _text(run.seed),
                run.state,
                _number(c.steps, ",d"),
                _number(c.solver_steps, ".1f"),
                _number(c.evaluations, ".1f"),
                _number(c.backward_evaluations, ".1f"),
                _number(c.residual, ".2g"),
                duration(c.seconds),
                _number(pace, ",.0f"),
                _number(c.memory_mb, ",.0f"),
                _number(c.parameters, ",d"),
            ]  # fmt: skip
        )
    return Plain(columns, out)


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def duration(seconds: float | None) -> str:
    """Seconds as ``1:02:03`` or ``2:03``; a dash for None."""
    if seconds is None:
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
