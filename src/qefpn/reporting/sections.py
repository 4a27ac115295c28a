"""What each section of the run report shows: charts, settings and tables, ready for the template."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qefpn.option_names import option_name
from qefpn.reporting.charts import Chart, Series, line_chart
from qefpn.reporting.results import RunResults, finite_points, lookup
from qefpn.reporting.tables import BEFORE, FLOOR_LABELS, Cell, Column, Row, Table, finite, floor_label, metrics_of

#: settings that tell runs apart, in the order in which a reader asks; nested keys with dots
INTERESTING = (
    "data", "data.root", "data.train", "data.test", "data.image_size", "data.scales", "data.batch_size",
    "data.val_fraction", "backbone", "backbone.weights", "pyramid", "decoder", "solver", "residual",
    "adjoint", "warmup", "edge_filter", "loss", "optimizer", "schedule", "callbacks", "trainer.max_epochs",
    "trainer.max_steps", "trainer.max_time", "trainer.precision", "trainer.accumulate_grad_batches",
    "trainer.devices", "protocol", "seed", "resume",
)  # fmt: skip

#: groups too large to print whole: only their name stands among the settings
_NAME_ONLY = ("data", "backbone", "trainer")

CURVE_LABELS = {"model": "This run", **FLOOR_LABELS}


@dataclass(frozen=True)
class Learned:
    """What was learned on one data set: every figure of the run beside its floors, and the gain on the better floor."""

    dataset: str
    verdict: str
    table: Table


def settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, value) of the interesting settings that the config has; groups as name (option value, ...)."""
    out = []
    for key in INTERESTING:
        value = lookup(config, key)
        if value is None or value == {} or value == -1:  # -1: no limit
            continue
        text = _setting_text(value, name_only=key in _NAME_ONLY)
        if text:
            out.append((key, text))
    return out


def _setting_text(value: Any, name_only: bool) -> str:
    if not isinstance(value, Mapping):
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if option_name(value) is None and all(isinstance(one, Mapping) for one in value.values()):
        return ", ".join(_setting_text({"name": part, **one}, False) for part, one in value.items())
    name = option_name(value) or ""
    if name_only:
        return name
    options = [
        f"{key} {_setting_text(one, False)}"
        for key, one in value.items()
        if key not in ("name", "_target_", "_partial_") and one is not None and not isinstance(one, Mapping)
    ]
    if not name:
        return ", ".join(options)
    return f"{name} ({', '.join(options)})" if options else name


def training_charts(results: RunResults) -> list[Chart]:
    """Losses, validation, learning rate, solver steps and residuals over the optimizer steps."""
    log = {name: points for name, points in results.log.items() if finite_points(points)}
    losses = [c for c in log if c == "loss" or c.startswith("loss_")]
    validation_loss = [c for c in log if c == "val_loss" or c.startswith("val_loss_")]
    validation = [c for c in log if c.startswith("val_") and c not in validation_loss]
    rates = [c for c in log if c == "lr" or c.startswith(("lr_", "lr-"))]
    residuals = [c for c in log if "residual" in c and c not in validation]
    shares = [c for c in log if c.endswith("_converged")]
    steps = [c for c in log if "_steps" in c or c.endswith("_evaluations")]
    known = {"epoch", "seconds", *losses, *validation_loss, *validation, *rates, *residuals, *shares, *steps}
    others = [c for c in log if c not in known]

    takes_over = finite(lookup(results.config, "warmup.steps"))
    marker = (takes_over, "solver takes over") if takes_over else None
    groups: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Loss", losses + validation_loss, {"y_range": None, "marker": marker}),
        ("Validation", validation, {}),
        ("Learning rate", rates, {}),
        ("Solver steps", steps, {"marker": marker}),
        ("Relative residual", residuals, {"log_y": True, "marker": marker}),
        ("Share of samples converged", shares, {"y_range": (-0.02, 1.02), "marker": marker}),
        *((column, [column], {}) for column in others[:6]),
    ]
    charts = []
    for number, (title, columns, options) in enumerate(groups):
        series = [
            Series(
                _column_label(column),
                finite_points(log[column]),
                smooth=column not in rates and not column.startswith("val_"),
                dashed=column.endswith("_max") or column in validation_loss,
                markers=column.startswith("val_") and len(log[column]) < 40,
            )
            for column in columns[:6]
        ]
        svg = line_chart(f"training{number}", series, title=title, x_label="optimizer step", **options)
        if svg:
            charts.append(Chart(title, svg, _not_finite(log, columns)))
    return charts


def _column_label(column: str) -> str:
    if column == "loss":
        return "total"
    for prefix in ("val_", "loss_"):
        if column.startswith(prefix) and column != "val_loss":
            column = column.removeprefix(prefix)
    return column.replace("_", " ")


def _not_finite(log: Mapping[str, Sequence[tuple[float, float]]], columns: Sequence[str]) -> str:
    counts = {c: len(log[c]) - len(finite_points(list(log[c]))) for c in columns}
    parts = [f"{count} in {column}" for column, count in counts.items() if count]
    return f"Values that are not finite are left out: {', '.join(parts)}." if parts else ""


def curve_charts(results: RunResults) -> dict[str, list[Chart]]:
    """Data set → its precision-recall chart, its F and its E chart, of the run and its floors."""
    out = {}
    unit = (-0.02, 1.02)
    for number, (dataset, entrants) in enumerate(results.curves.items()):
        pr: list[Series] = []
        over: dict[str, list[Series]] = {"f_curve": [], "e_curve": []}
        for entrant, curves in entrants.items():
            label, dashed = CURVE_LABELS.get(entrant, entrant), entrant != "model"
            both = list(zip(curves.get("recall", []), curves.get("precision", []), strict=False))
            pr.append(Series(label, _finite_pairs(both), dashed=dashed))
            for key, series in over.items():
                values = [(255.0 - index, value) for index, value in enumerate(curves.get(key, []))]
                series.append(Series(label, _finite_pairs(values[::-1]), dashed=dashed))  # index 0 is threshold 255
        kinds: list[tuple[str, str, list[Series], dict[str, Any]]] = [
            ("Precision and recall", "precision over recall", pr,
             {"x_label": "recall", "y_label": "precision", "x_range": unit}),
            ("F-measure over the threshold", "F-measure over the threshold", over["f_curve"],
             {"x_label": "threshold", "y_label": "F (β² = 0.3)", "x_range": (0, 255)}),
            ("E-measure over the threshold", "E-measure over the threshold", over["e_curve"],
             {"x_label": "threshold", "y_label": "E", "x_range": (0, 255)}),
        ]  # fmt: skip
        charts = [
            Chart(name, line_chart(f"{kind[0]}{number}", series, title=f"{dataset}: {kind}", y_range=unit, **options))
            for name, kind, series, options in kinds
        ]
        out[dataset] = [chart for chart in charts if chart.svg]
    return out


def _finite_pairs(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def learned(results: RunResults) -> list[Learned]:
    """Each data set that has floors."""
    out = []
    for dataset, figures in results.metrics.items():
        found = results.floors.get(dataset) or {}
        floors = {name: values for name, values in found.items() if name != BEFORE}  # which has learned
        if not floors:
            continue
        columns = [Column("run", "This run"), *(Column(name, floor_label(name)) for name in floors)]
        rows, won = [], []
        for metric in metrics_of([figures, *floors.values()]):
            run, beside = (
                metric.cell(figures.get(metric.key)),
                {n: metric.cell(f.get(metric.key)) for n, f in floors.items()},
            )
            cells = {"run": run, **{name: dataclasses.replace(cell, kind="soft") for name, cell in beside.items()}}
            known = [cell.value for cell in beside.values() if cell.value is not None]
            if run.value is not None and known:
                toughest = metric.best(known)
                won.append(metric.beats(run.value, toughest))
                mark, kind = ("✓", "yes") if won[-1] else ("✗", "no")
                cells["gain"] = Cell(f"{metric.signed(run.value - toughest)} {mark}", kind=kind)
            rows.append(Row(metric.head, cells))
        table = Table(dataset, dataset, [*columns, Column("gain", "Gain")], rows, head="Metric")
        out.append(Learned(dataset, _verdict(won), table))
    return out


def _verdict(won: Sequence[bool]) -> str:
    if not won:
        return "no floors were scored"
    share = f"all {len(won)}" if all(won) else f"{sum(won)} of {len(won)}"
    return f"better than every floor in {share} figures"
