"""The tables of `qefpn profile`: stages, speed, the paper's Table III, quality against solver steps."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qefpn.atomic import write_atomic
from qefpn.reporting.published import Published

if TYPE_CHECKING:
    from rich.table import Table

STAGES = ("backbone", "neck and fusion", "f_theta", "decoder and heads")


@dataclass(frozen=True)
class Sheet:
    """A table of text: the first column to the left, figures to the right."""

    name: str
    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def profile_sheets(result: Mapping[str, Any], published: Published, memory_note: str = "") -> list[Sheet]:
    """Every table of a profile.

    Args:
        result: what `profile_module` returns, with ``machine``, ``network`` and ``quality``.
        published: the paper's figures.
        memory_note: how peak memory was measured.
    """
    sheets = [stage_sheet(result), speed_sheet(result, memory_note), paper_sheet(result, published)]
    return sheets + ([quality_sheet(result["quality"])] if result.get("quality") else [])


def stage_sheet(result: Mapping[str, Any]) -> Sheet:
    """Parameters, MACs and time by stage of a forward pass of one picture."""
    parameters, rows = result["parameters"], []
    for entry in result["stages"]:
        macs, seconds = entry["macs"], entry["seconds"]
        names = ["backbone", "neck and fusion", "one evaluation", "f_theta", "solver", "decoder and heads", "total"]
        for name in names:
            if entry["budget"] is None and name in ("one evaluation", "f_theta", "solver"):
                continue
            shown = {
                "one evaluation": "f_theta, one evaluation",
                "f_theta": f"f_theta, {_count(macs['evaluations'], 'evaluation')}",
                "solver": "solver's own products",
            }.get(name, name)
            count = parameters.get("f_theta" if name == "one evaluation" else name if name != "f_theta" else "")
            rows.append(
                [
                    _place(entry),
                    shown,
                    "–" if count is None else f"{count:,}",
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
    head = ["size, budget", "stage", "parameters", "GMACs", "share", "ms"]
    return Sheet("stages", "Parameters, MACs and time by stage", head, rows, notes)


def speed_sheet(result: Mapping[str, Any], memory_note: str = "") -> Sheet:
    """Latency, frames a second and memory."""
    rows, notes = [], []
    for row in sorted(result["speed"], key=_order):
        mode = {"backbone": "bare backbone", "forward": "forward", "training": "training step"}[row["mode"]]
        if "seconds" not in row:
            rows.append([_place(row), mode, str(row["batch"]), "–", "–", "–", row["ended"], "–"])
            continue
        best = " (best)" if row.get("best") else ""
        rows.append(
            [
                _place(row),
                mode,
                f"{row['batch']}{best}",
                _spread(row["seconds"], 1000, 1),
                f"{row['fps']:.2f}",
                _spread(row["ratio"], 1, 2),
                f"{row['memory'] / 2**20:,.0f}",
                str(row["seconds"]["count"]),
            ]
        )
        if row.get("best"):
            notes.append(f"{_place(row)}: larger batches end there: {row['ended']}.")
    machine = result["machine"]
    place = (
        f"{machine['device']}, {_count(machine['threads'], 'thread')}"
        if machine["kind"] == "cpu"
        else machine["device"]
    )
    notes = [
        f"{place}, torch {machine['torch']}; training in {machine['training precision']}.",
        "Medians [quartiles] of passes after warm-up; every step of a budget is taken, whatever the residual. A "
        "backward solver with steps of its own keeps them.",
        "Over the bare backbone: ratios of passes taken in turns.",
        *([memory_note] if memory_note else []),
        *notes,
    ]
    head = ["size, budget", "pass", "batch", "ms", "FPS", "× backbone", "MiB", "passes"]
    return Sheet("speed", "Speed and memory", head, rows, notes)


def paper_sheet(result: Mapping[str, Any], published: Published) -> Sheet:
    """Table III: ours at the largest size and every budget, the paper's figures below."""
    largest = max(row["size"] for row in result["speed"])
    total = result["parameters"]["total"] / 1e6
    rows, notes = [], []
    forward = [r for r in result["speed"] if r["mode"] == "forward" and r["size"] == largest]
    for one in [r for r in forward if r["batch"] == 1]:
        best = next(r for r in forward if r.get("best") and r["budget"] == one["budget"])
        label = f"this network, {_place(one)}"
        rows.append([label, f"{total:.2f}", f"{one['fps']:.2f}", f"{best['fps']:.2f} (batch {best['batch']})"])
    for row in published.rows("III"):
        texts = []
        for key in ("params_m", "fps"):
            mark = ""
            if key in row.misprints:
                note = row.misprints[key].note
                notes += [] if note in notes else [note]
                mark = " " + "*" * (notes.index(note) + 1)
            texts.append(f"{row.values[key]:.2f}{mark}")
        rows.append([f"{row.method} (paper)", *texts, "–"])
    notes = [f"{'*' * number} {note}" for number, note in enumerate(notes, 1)]
    notes.append("The paper names neither its machine nor its batch for these speeds: they are no yardstick for ours.")
    return Sheet(
        "table_iii", "Table III: size and speed", ["method", "parameters (M)", "FPS", "FPS, best batch"], rows, notes
    )


def quality_sheet(quality: Sequence[Mapping[str, Any]]) -> Sheet:
    """Scores against the solver's largest number of steps."""
    rows = []
    for row in quality:
        solved = "relative_residual" in row
        rows.append(
            [
                f"{row['dataset']} ({int(row['images'])})",
                "–" if row["steps"] is None else f"{row['steps']}{' (run)' if row['own'] else ''}",
                f"{row['evaluations']:.2f}" if solved else "–",
                f"{row['relative_residual']:.2e}" if solved else "–",
                f"{100 * row['converged']:.0f} %" if solved else "–",
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
    head = ["data (pictures)", "steps", "evaluations", "rel. residual", "converged", "max F", "MAE", "ms a picture"]
    return Sheet("quality", "What a solver budget costs in quality", head, rows, notes)


def _place(row: Mapping[str, Any]) -> str:
    return f"{row['size']} px" + ("" if row["budget"] is None else ", " + _count(row["budget"], "step"))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["size"], row["mode"] != "backbone", row["budget"] or 0, row["mode"], row["batch"]


def _spread(spread: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    if spread is None:
        return "–"
    median, lower, upper = (f"{scale * spread[key]:.{digits}f}" for key in ("median", "lower", "upper"))
    return f"{median} [{lower}–{upper}]"


def terminal_sheet(sheet: Sheet) -> Table:
    """A rich table; notes in its caption, a figure that repeats the one above in the first column left out."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    out = Table(
        box=box.SIMPLE_HEAD, header_style="bold", title=escape(sheet.title), title_justify="left",
        caption_justify="left", caption_style="dim",
    )  # fmt: skip
    out.collapse_padding, out.pad_edge = True, False
    for number, head in enumerate(sheet.head):
        text = number == 0 or head in ("stage", "pass")
        out.add_column(head, justify="left" if text else "right", no_wrap=not text)
    former = ""
    for row in sheet.rows:
        first = "" if row[0] == former else row[0]
        out.add_row(*(escape(text) for text in [first, *row[1:]]))
        former = row[0]
    out.caption = escape("\n".join(sheet.notes)) or None
    return out


def markdown_sheet(sheet: Sheet) -> str:
    """The sheet under a heading, its notes below."""
    lines = [f"## {sheet.title}", "", _line(sheet.head)]
    lines.append(_line([":--" if number == 0 else "--:" for number in range(len(sheet.head))]))
    lines += [_line(row) for row in sheet.rows]
    for note in sheet.notes:
        lines += ["", _plain(note)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_plain, cells)) + " |"


def _plain(text: str) -> str:
    return "".join("\\" + char if char in "\\`*_|[]<>" else char for char in text)


def csv_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Plain rows as CSV, all digits kept; what is nested gets a dotted column."""
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            out[prefix + key] = value
    return out


def write_profile(directory: Path, result: Mapping[str, Any], sheets: Sequence[Sheet]) -> list[Path]:
    """profile.json, profile.md, and a CSV file for each list of rows; their paths."""
    network = ", ".join(f"{key} {value}" for key, value in result["network"].items() if value is not None)
    files = {
        "profile.json": json.dumps(result, indent=1) + "\n",
        "profile.md": f"# Profile\n\n{_plain(network)}\n\n" + "\n".join(map(markdown_sheet, sheets)),
        **{f"{name}.csv": csv_rows(result[name]) for name in ("stages", "speed", "quality") if result.get(name)},
    }
    for name, text in files.items():
        write_atomic(directory / name, text)
    return [directory / name for name in files]
