"""Runs of a sweep as rows of tables: which belong together, what a row is called, which row of the paper it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qefpn.option_names import with_names
from qefpn.reporting.published import Published, PublishedRow, canonical
from qefpn.reporting.results import lookup
from qefpn.reporting.sweep_runs import SweepRun

Settings = Mapping[str, str]

#: what two runs of the same row may differ in: the seed, and what has no part in the result
_NOT_SETTINGS = (
    "seed", "ablation", "sweep", "resume", "logger", "report", "evaluate",
    "data.num_workers", "trainer.num_threads", "trainer.enable_progress_bar", "trainer.log_every_n_steps",
)  # fmt: skip

#: tables of the paper by the name of the ablation that repeats them
TABLES = {"solver": "IV", "edge": "V", "filter": "VI", "pyramid": "VII"}

#: without an ablation's name: the settings that a table of the paper varies
_AXES = {
    "IV": ("solver", "residual", "adjoint", "warmup", "pyramid.name"),
    "V": ("loss",),
    "VI": ("edge_filter",),
    "VII": ("pyramid.intermediate_supervision", "pyramid.levels"),
}

#: canonical names of rows besides the paper's own
_ROWS = {
    "IV": {
        "unroll1": "unrolling1", "unroll2": "unrolling2", "unroll3": "unrolling3", "quasi": "quasiequilibrium",
        "ours": "quasiequilibrium",
    },
    "V": {
        "ssim": "ssimloss", "weightediou": "weightediouloss", "noedges": "withoutedgeextractor",
        "none": "withoutedgeextractor", "paper": "edgeextractor", "ours": "edgeextractor",
    },
    "VI": {"ours": "sobel"},
    "VII": {"withoutf2": "pyramidwithoutf2", "ours": "quasiequilibrium", "quasi": "quasiequilibrium"},
}  # fmt: skip


@dataclass
class SweepRow:
    """Runs that are equal but for their seeds.

    Attributes:
        runs: those with figures, one a seed.
        others: those without figures.
        paper: canonical name of the paper's row, or None.
    """

    label: str
    runs: list[SweepRun] = field(default_factory=list)
    others: list[SweepRun] = field(default_factory=list)
    place: int = 0
    paper: str | None = None

    @property
    def every(self) -> list[SweepRun]:
        return [*self.runs, *self.others]


@dataclass
class Section:
    """The rows of one ablation. ``table`` is the paper's, "IV" to "VII", or None beyond the paper."""

    title: str
    table: str | None
    rows: list[SweepRow]


def paper_name(row: PublishedRow) -> str:
    """A row of the paper by one canonical name: method, and depth where that is a number."""
    return canonical(row.method + (row.depth if row.depth and row.depth.isdigit() else ""))


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Dotted key → value as text, of all settings that may change a result."""
    out: dict[str, str] = {}

    def add(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            name = f"{prefix}{key}"
            if name in _NOT_SETTINGS:
                continue
            if isinstance(value, Mapping) and value:
                add(value, f"{name}.")
            else:
                out[name] = value if isinstance(value, str) else json.dumps(value, default=str).replace('"', "")

    add(with_names(config), "")
    return out


def group_runs(runs: Iterable[SweepRun], published: Published | None = None) -> tuple[list[Section], list[SweepRun]]:
    """Sections with their rows, and the runs that are left out since another has the same settings and seed.

    A row is the runs that share the row of their ablation and every setting but the seed. Of runs that also share
    the seed the one whose figures are the newest counts, and ``reason`` of the others says so.

    Args:
        runs: those whose settings cannot be read are passed over.
        published: the paper's tables, for their titles.
    """
    groups: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[SweepRun]] = {}
    for run in runs:
        if run.readable:
            name, place = (str(run.ablation.get(key) or "") for key in ("name", "row"))
            key = (name if place else "", place, tuple(sorted(settings_of(run.config).items())))
            groups.setdefault(key, []).append(run)
    repeated: list[SweepRun] = []
    sections = []
    for ablation in dict.fromkeys(name for name, _, _ in groups):
        named = [(place, found) for (name, place, _), found in groups.items() if name == ablation]
        own = [(place, settings_of(found[0].config), found) for place, found in named]
        if ablation:
            section = _ablation_section(ablation, own, published)
        else:
            section = _plain_section([(settings, found) for _, settings, found in own], published)
        for row in section.rows:
            repeated += _keep_one_a_seed(row)
        section.rows.sort(key=lambda row: row.place)
        sections.append(section)
    order = list(TABLES.values())
    sections.sort(key=lambda section: order.index(section.table) if section.table in order else len(order))
    return sections, repeated


def _title(table: str | None, published: Published | None, otherwise: str) -> str:
    if table is None:
        return otherwise
    return f"Table {table}: {published.title(table)}" if published else f"Table {table}"


def _ablation_section(
    name: str, groups: Sequence[tuple[str, Settings, list[SweepRun]]], published: Published | None
) -> Section:
    stated = next((run.ablation["table"] for *_, runs in groups for run in runs if run.ablation.get("table")), None)
    table = str(stated) if str(stated) in _ROWS else TABLES.get(name)
    rows: list[SweepRow] = []
    for row_name in dict.fromkeys(row for row, *_ in groups):
        own = [(settings, runs) for row, settings, runs in groups if row == row_name]
        places = [run.ablation.get("place") for _, runs in own for run in runs]
        place = next((p for p in places if isinstance(p, int)), len(rows))
        paper = _ROWS[table].get(canonical(row_name), canonical(row_name)) if table else None
        for extra, (_, runs) in zip(labels([settings for settings, _ in own]), own, strict=True):
            text = row_name.replace("_", " ") + (f" ({extra})" if extra else "")
            rows.append(SweepRow(text, runs, place=place, paper=paper))
    return Section(_title(table, published, f"Ablation {name}"), table, rows)


def _plain_section(groups: Sequence[tuple[Settings, list[SweepRun]]], published: Published | None) -> Section:
    settings = [one for one, _ in groups]
    keys = differing(settings)
    table = next((t for t, axes in _AXES.items() if keys and all(_within(key, axes) for key in keys)), None)
    rows = []
    for place, (label, (_, runs)) in enumerate(zip(labels(settings), groups, strict=True)):
        paper = _paper_row_of(table, runs[0].config) if table else None
        rows.append(SweepRow(label or "all runs", runs, place=place, paper=paper))
    return Section(_title(table, published, "Settings that differ" if keys else "Runs"), table, rows)


def _within(key: str, axes: Sequence[str]) -> bool:
    return any(key == axis or key.startswith(f"{axis}.") for axis in axes)


def _paper_row_of(table: str, config: Mapping[str, Any]) -> str | None:
    """The paper's row that a configuration is, by what the table varies."""
    if table == "IV":
        if lookup(config, "pyramid.name") == "none":
            return None
        if lookup(config, "solver.name") == "unroll":
            return f"unrolling{lookup(config, 'solver.max_steps')}"
        name = lookup(config, "residual.name")
    elif table == "V":
        name = lookup(config, "loss.name")
    elif table == "VI":
        name = lookup(config, "edge_filter.name")
    elif lookup(config, "pyramid.levels") == [3, 4, 5]:
        return "pyramidwithoutf2"
    else:
        name = "intermediate supervision" if lookup(config, "pyramid.intermediate_supervision") else "ours"
    found = canonical(str(name))
    return _ROWS[table].get(found, found)


def differing(settings: Sequence[Settings]) -> list[str]:
    """The keys in which they differ, in the order of the configuration; a key that one lacks counts."""
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({one.get(key) for one in settings}) > 1]


def labels(settings: Sequence[Settings]) -> list[str]:
    """One label each, of the settings that differ; empty where none does.

    The options of a group (``solver.memory``) are named only where the group's name (``solver=broyden``) does not
    tell the rows apart already.
    """
    keys = differing(settings)
    named = {key.removesuffix(".name") for key in keys if key.endswith(".name")}
    first = [key for key in keys if key.endswith(".name") or key.split(".")[0] not in named]
    shown = list(first)
    for key in keys:
        if key not in first:
            parts = {tuple(one.get(k) for k in shown) for one in settings}
            if len({tuple(one.get(k) for k in [*shown, key]) for one in settings}) > len(parts):
                shown.append(key)
    return [", ".join(f"{key.removesuffix('.name')}={one[key]}" for key in shown if key in one) for one in settings]


def _keep_one_a_seed(row: SweepRow) -> list[SweepRun]:
    """Sort a row's runs into those that count and those without figures; the ones that are repeated are returned."""
    done = [run for run in row.runs if run.state == "done"]
    row.others = [run for run in row.runs if run.state != "done"]
    newest: dict[str, SweepRun] = {}
    repeated = []
    for run in sorted(done, key=lambda run: (run.directory / "metrics.json").stat().st_mtime):
        former = newest.pop(str(run.seed), None)
        if former is not None:
            former.reason = f"the same settings and seed as {run.name}, whose figures are newer"
            repeated.append(former)
        newest[str(run.seed)] = run
    row.runs = sorted(newest.values(), key=lambda run: (run.seed if isinstance(run.seed, int) else -1, run.name))
    return repeated
