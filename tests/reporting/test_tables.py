"""The metrics table, in the terminal and in Markdown."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console

from qefpn.reporting import load_published, markdown_table, metric_tables, terminal_table

RUN: dict[str, Any] = {"mae": 0.0312, "mean_f": 0.8, "weighted_f": 0.9204, "max_f": 0.97}
RUN |= {"s_measure": 0.5, "images": 300}
FLOOR = {"mae": 0.2, "mean_f": 0.3, "weighted_f": 0.3, "max_f": 0.4, "s_measure": 0.6, "images": 300}


def printed(table: Any, width: int = 160) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(table)
    return stream.getvalue()


def test_without_published_figures_the_run_meets_its_floors() -> None:
    [table] = metric_tables({"mine": RUN}, {"mine": {"gaussian": FLOOR}})
    assert [row.label for row in table.rows] == ["This run", "Centred Gaussian"]
    assert [metric.key for metric in table.metrics] == ["mae", "mean_f", "weighted_f", "max_f", "s_measure"]
    assert [cell.best for cell in table.rows[0].cells] == [True, True, True, True, False]
    assert [cell.best for cell in table.rows[1].cells] == [False, False, False, False, True]
    assert table.rows[0].cells[0].text == "0.031"
    assert table.images == 300 and table.official_images is None and not table.remark


def test_a_lone_row_is_not_called_best() -> None:
    [table] = metric_tables({"mine": RUN})
    assert not any(cell.best for cell in table.rows[0].cells)


def test_published_methods_stand_beside_an_official_set() -> None:
    [table] = metric_tables({"ECSSD": RUN | {"binary_ratio": 90.0}}, None, load_published())
    rows = {row.label: row for row in table.rows}
    assert len(rows) == 12 and rows["F3Net"].year == 2020
    best = {label: [cell.best for cell in row.cells] for label, row in rows.items()}
    # 0.0312 and 0.9204 print as the paper's 0.031 and 0.920: both are best; binary_ratio has no contest
    assert best["This run"] == [True, False, True, True, False, False]
    assert best["QEFPN (paper)"] == [True, True, True, False, True, False]
    assert table.partial and "300 pictures were scored" in table.remark and "1,000" in table.remark


def test_all_pictures_need_no_remark() -> None:
    [table] = metric_tables({"ECSSD": RUN | {"images": 1000}}, None, load_published())
    assert not table.partial and table.remark == ""


def test_misprints_get_footnotes_and_compete_corrected() -> None:
    [table] = metric_tables({"DUTS-TE": {"mean_f": 0.1}}, None, load_published())
    cells = next(row for row in table.rows if row.label == "F3Net").cells
    assert [(cell.text, cell.note) for cell in cells[1:2]] == [("0.791", 1)]
    assert ".840" in table.footnotes[0]
    [table] = metric_tables({"pascal_s": {"mean_f": 0.1}}, None, load_published())
    cells = next(row for row in table.rows if row.label == "F3Net").cells
    assert [(cell.text, cell.note) for cell in cells[:2]] == [("0.064", None), ("0.844", None)]
    [table] = metric_tables({"ECSSD": {"s_measure": 0.9}}, None, load_published())
    assert len(table.footnotes) == 1 and "BASNet's S-measure on ECSSD is .916" in table.footnotes[0]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "no number"])
def test_a_figure_that_is_none_is_a_dash_and_never_best(value: Any) -> None:
    [table] = metric_tables({"mine": RUN | {"mae": value}}, {"mine": {"untrained": FLOOR}})
    assert table.rows[0].cells[0].text == "–" and not table.rows[0].cells[0].best
    assert table.rows[1].cells[0].best


def test_terminal() -> None:
    floors = {"ECSSD": {"gaussian": FLOOR}}
    text = printed(terminal_table({"ECSSD": RUN, "DUTS-TE": RUN}, floors, load_published()))
    assert "ECSSD (300)" in text and "DUTS-TE (300)" in text and "Centred Gaussian" in text
    assert "0.834¹" in text and "0.791²" in text and "² F3Net's own paper has .840" in text
    assert "MAE ↓" in text and "F ↑" in text


def test_terminal_marks_the_best_and_escapes_names() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=120, force_terminal=True, color_system="standard")
    console.print(terminal_table({"[red]set": RUN}, {"[red]set": {"gaussian": FLOOR}}, label="[bold]x"))
    text = stream.getvalue()
    assert "[red]set" in text and "[bold]x" in text
    best = next(line for line in text.splitlines() if "[bold]x" in line)
    assert "\x1b[1;32m0.031" in best and "\x1b[1;32m0.500" not in best


def test_terminal_of_eighty_columns_cuts_nothing() -> None:
    run = RUN | {"e_measure": 0.9, "binary_ratio": 97.87}
    sets = {"ECSSD": run, "synthetic-test": run}
    text = printed(terminal_table(sets, {"ECSSD": {"gaussian": FLOOR}}, load_published()), width=80)
    assert "…" not in text and all(len(line) <= 80 for line in text.splitlines())
    for figure in ("97.87", "0.834¹", "Centred Gaussian", "QEFPN (paper)", "synthetic-test (300)", "binary"):
        assert figure in text


def test_terminal_without_anything() -> None:
    assert "method" in printed(terminal_table({}))


def test_markdown() -> None:
    text = markdown_table({"a|b": RUN, "DUTS-TE": RUN}, {"a|b": {"gaussian": FLOOR}}, load_published())
    lines = text.splitlines()
    assert lines[0] == r"**a\|b** (300 pictures)"
    assert lines[2] == "| method | MAE ↓ | mean F ↑ | weighted F ↑ | max F ↑ | S ↑ |"
    assert lines[3] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert lines[4] == "| This run | **0.031** | **0.800** | **0.920** | **0.970** | 0.500 |"
    assert "| F3Net | 0.035 | 0.791¹ | 0.835 | 0.891 | 0.888 |" in lines
    assert any(line.startswith("¹ F3Net's own paper has .840") for line in lines)
    assert any(line.startswith("300 pictures were scored") for line in lines)
