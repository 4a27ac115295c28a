"""What each section of the run report shows: charts, settings and tables, ready for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qefpn.option_names import option_name
from qefpn.reporting.charts import Series, line_chart
from qefpn.reporting.results import RunResults, finite_points, lookup
from qefpn.reporting.tables import BEFORE, FLOOR_LABELS, METRICS, Metric, finite, floor_label

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
class Chart:
    """An SVG and its caption."""

    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Gain:
    """One line of "what was learned": the run against its floors in one metric."""

    metric: Metric
    run: str
    floors: list[str]
    gain: str
    beaten: bool | None  # None where there is nothing to compare


@dataclass
class Learned:
    """What was learned, on one data set."""

    dataset: str
    floors: list[str]
    gains: list[Gain] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        compared = [gain for gain in self.gains if gain.beaten is not None]
        beaten = sum(bool(gain.beaten) for gain in compared)
        if not compared:
            return "no floors were scored"
        if beaten == len(compared):
            return f"better than every floor in all {beaten} figures"
        return f"better than every floor in {beaten} of {len(compared)} figures"


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
    """Data set → its precision-recall chart and its F chart, of the run and its floors."""
    out = {}
    for number, (dataset, entrants) in enumerate(results.curves.items()):
        pr, f = [], []
        for entrant, curves in entrants.items():
            label = CURVE_LABELS.get(entrant, entrant)
            dashed = entrant != "model"
            precision, recall = curves.get("precision", []), curves.get("recall", [])
            points = [(r, p) for p, r in zip(precision, recall, strict=False)]
            pr.append(Series(label, _finite_pairs(points), dashed=dashed))
            values = curves.get("f_curve", [])  # index 0 is threshold 255
            points = [(255.0 - index, value) for index, value in enumerate(values)][::-1]
            f.append(Series(label, _finite_pairs(points), dashed=dashed))
        options: dict[str, Any] = {"y_range": (-0.02, 1.02)}
        charts = [
            Chart(
                "Precision and recall",
                line_chart(
                    f"pr{number}",
                    pr,
                    title=f"{dataset}: precision over recall",
                    x_label="recall",
                    y_label="precision",
                    x_range=(-0.02, 1.02),
                    **options,
                ),  # fmt: skip
            ),
            Chart(
                "F-measure over the threshold",
                line_chart(
                    f"f{number}",
                    f,
                    title=f"{dataset}: F-measure over the threshold",
                    x_label="threshold",
                    y_label="F (β² = 0.3)",
                    x_range=(0, 255),
                    **options,
                ),  # fmt: skip
            ),
        ]
        out[dataset] = [chart for chart in charts if chart.svg]
    return out


def _finite_pairs(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in finite_points(points) if x == x and abs(x) != float("inf")]


def learned(results: RunResults) -> list[Learned]:
    """Each data set with floors: every metric of the run and its floors, and the gain on the better floor."""
    out = []
    for dataset, figures in results.metrics.items():
        found = results.floors.get(dataset) or {}
        floors = {name: figures for name, figures in found.items() if name != BEFORE}  # which has learned
        if not floors:
            continue
        table = Learned(dataset, [floor_label(name) for name in floors])
        for metric in METRICS:
            run = finite(figures.get(metric.key))
            values = [finite(floor.get(metric.key)) for floor in floors.values()]
            present = [value for value in values if value is not None]
            if run is None and not present:
                continue
            gain, beaten = "–", None
            if run is not None and present:
                toughest = min(present) if metric.lower_is_better else max(present)
                beaten = metric.better(run, toughest)
                gain = f"{run - toughest:+.{metric.digits}f}".replace("-", "−")
            texts = [metric.text(value) for value in values]
            table.gains.append(Gain(metric, metric.text(run), texts, gain, beaten))
        out.append(table)
    return out
