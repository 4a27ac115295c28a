"""The tables of `qefpn profile`: stages, speed, the paper's Table III, quality against solver steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qefpn.atomic import write_atomic
from qefpn.reporting.published import Published
from qefpn.reporting.renderers import csv_text, markdown, plain_markdown
from qefpn.reporting.tables import DASH, Cell, Column, Row, Table, text_table

_STAGES = ("backbone", "neck and fusion", "one evaluation", "f_theta", "solver", "decoder and heads", "total")
_PASSES = {"backbone": "bare backbone", "forward": "forward", "training": "training step"}


def profile_tables(result: Mapping[str, Any], published: Published, memory_note: str = "") -> list[Table]:
    """Every table of a profile.

    Args:
        result: what `profile_module` returns, with ``machine``, ``network`` and ``quality``.
        published: the paper's figures.
        memory_note: how peak memory was measured.
    """
    tables = [stage_table(result), speed_table(result, memory_note), paper_table(result, published)]
    return tables + ([quality_table(result["quality"])] if result.get("quality") else [])


def stage_table(result: Mapping[str, Any]) -> Table:
    """Parameters, MACs and time by stage of a forward pass of one picture."""
    parameters, rows = result["parameters"], []
    for entry in result["stages"]:
        macs, seconds = entry["macs"], entry["seconds"]
        shown = {
            "one evaluation": "f_theta, one evaluation",
            "f_theta": f"f_theta, {_count(macs['evaluations'], 'evaluation')}" if entry["budget"] is not None else "",
            "solver": "solver's own products",
        }
        for name in _STAGES:
            if entry["budget"] is None and name in shown:
                continue
            # the parameters of f_theta stand beside one evaluation
            count = parameters.get({"one evaluation": "f_theta", "f_theta": ""}.get(name, name))
            rows.append(
                [
                    _place(entry),
                    shown.get(name, name),
                    DASH if count is None else f"{count:,}",
                    f"{macs[name] / 1e9:.3f}",
                    f"{100 * macs[name] / macs['total']:.1f} %",
                    f"{1000 * seconds[name]:.2f}",
                ]
            )
    notes = [
        "MACs of one picture: convolutions and matrix products; norms, activations and resizing are not counted. "
        "1 MAC is 2 FLOPs as torch.utils.flop_counter counts them.",
        "Time a stage is the median of three passes; resizing between the stages is in the total alone.",
    ]
    heads = ["size, budget", "stage", "parameters", "GMACs", "share", "ms"]
    return text_table("stages", "Parameters, MACs and time by stage", heads, rows, notes, left=("stage",))


def speed_table(result: Mapping[str, Any], memory_note: str = "") -> Table:
    """Latency, frames a second and memory."""
    rows, ends = [], []
    for row in sorted(result["speed"], key=_order):
        start = [_place(row), _PASSES[row["mode"]]]
        if "seconds" not in row:
            rows.append([*start, str(row["batch"]), DASH, DASH, DASH, row["ended"], DASH])
            continue
        best = row.get("best")
        rows.append(
            [
                *start,
                f"{row['batch']}{' (best)' if best else ''}",
                _spread(row["seconds"], 1000, 1),
                f"{row['fps']:.2f}",
                _spread(row["ratio"], 1, 2),
                f"{row['memory'] / 2**20:,.0f}",
                str(row["seconds"]["count"]),
            ]
        )
        ends += [f"{_place(row)}: larger batches end there: {row['ended']}."] if best else []
    machine = result["machine"]
    threads = f", {_count(machine['threads'], 'thread')}" if machine["kind"] == "cpu" else ""
    notes = [
        f"{machine['device']}{threads}, torch {machine['torch']}; training in {machine['training precision']}.",
        "Medians [quartiles] of passes after warm-up; every step of a budget is taken, whatever the residual. A "
        "backward solver with steps of its own keeps them.",
        "Over the bare backbone: ratios of passes taken in turns.",
        *([memory_note] if memory_note else []),
        *ends,
    ]
    heads = ["size, budget", "pass", "batch", "ms", "FPS", "× backbone", "MiB", "passes"]
    return text_table("speed", "Speed and memory", heads, rows, notes, left=("pass",))


def paper_table(result: Mapping[str, Any], published: Published) -> Table:
    """Table III: ours at the largest size and every budget, the paper's figures below."""
    largest = max(row["size"] for row in result["speed"])
    forward = [row for row in result["speed"] if row["mode"] == "forward" and row["size"] == largest]
    size = Cell(f"{result['parameters']['total'] / 1e6:.2f}")
    rows = []
    for one in (row for row in forward if row["batch"] == 1):
        best = next(row for row in forward if row.get("best") and row["budget"] == one["budget"])
        cells = {"params_m": size, "fps": Cell(f"{one['fps']:.2f}")}
        cells["best"] = Cell(f"{best['fps']:.2f} (batch {best['batch']})")
        rows.append(Row(f"this network, {_place(one)}", cells))
    note = "The paper names neither its machine nor its batch for these speeds: they are no yardstick for ours."
    columns = [*paper_columns(), Column("best", "FPS, best batch")]
    return Table("table_iii", "Table III: size and speed", columns, rows + paper_rows(published), [note])


def paper_columns() -> list[Column]:
    """Of Table III."""
    return [Column("params_m", "parameters (M)", digits=2), Column("fps", "FPS", "pictures a second", digits=2)]


def paper_rows(published: Published) -> list[Row]:
    """Table III as printed, misprints with footnotes."""
    return [
        Row(
            row.method,
            {
                column.key: Cell(
                    column.text(row.values[column.key]), note=getattr(row.misprints.get(column.key), "note", "")
                )
                for column in paper_columns()
            },
            aside="paper",
        )
        for row in published.rows("III")
    ]


def quality_table(quality: Sequence[Mapping[str, Any]]) -> Table:
    """Scores against the solver's largest number of steps."""
    rows = []
    for row in quality:
        solved = "relative_residual" in row
        rows.append(
            [
                f"{row['dataset']} ({int(row['images'])})",
                DASH if row["steps"] is None else f"{row['steps']}{' (run)' if row['own'] else ''}",
                f"{row['evaluations']:.2f}" if solved else DASH,
                f"{row['relative_residual']:.2e}" if solved else DASH,
                f"{100 * row['converged']:.0f} %" if solved else DASH,
                f"{row['max_f']:.4f}",
                f"{row['mae']:.4f}",
                f"{1000 * row['seconds']:.1f}",
            ]
        )
    notes = [
        "Steps is the largest number that the solver may take; it stops sooner by the run's own rule. (run) is what "
        "the network was trained with.",
        "Evaluations of f_theta, residual and time (network and upsampling) are means over pictures.",
    ]
    heads = ["data (pictures)", "steps", "evaluations", "rel. residual", "converged", "max F", "MAE", "ms a picture"]
    return text_table("quality", "What a solver budget costs in quality", heads, rows, notes)


def _place(row: Mapping[str, Any]) -> str:
    return f"{row['size']} px" + ("" if row["budget"] is None else ", " + _count(row["budget"], "step"))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["size"], row["mode"] != "backbone", row["budget"] or 0, row["mode"], row["batch"]


def _spread(spread: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    if spread is None:
        return DASH
    median, lower, upper = (f"{scale * spread[key]:.{digits}f}" for key in ("median", "lower", "upper"))
    return f"{median} [{lower}–{upper}]"


def write_profile(directory: Path, result: Mapping[str, Any], tables: Sequence[Table]) -> list[Path]:
    """profile.json, profile.md, and a CSV file for each list of rows; their paths."""
    network = ", ".join(f"{key} {value}" for key, value in result["network"].items() if value is not None)
    files = {
        "profile.json": json.dumps(result, indent=1) + "\n",
        "profile.md": f"# Profile\n\n{plain_markdown(network)}\n\n" + markdown(tables, "## {}"),
        **{f"{name}.csv": csv_text(result[name]) for name in ("stages", "speed", "quality") if result.get(name)},
    }
    for name, text in files.items():
        write_atomic(directory / name, text)
    return [directory / name for name in files]
