"""The metrics table, in the terminal and in Markdown."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console

from qefpn.reporting import Table, load_published, markdown, run_tables, terminal
from qefpn.reporting.tables import Row

RUN: dict[str, Any] = {"mae": 0.0312, "mean_f": 0.8, "weighted_f": 0.9204, "max_f": 0.97}
RUN |= {"s_measure": 0.5, "images": 300}
FLOOR = {"mae": 0.2, "mean_f": 0.3, "weighted_f": 0.3, "max_f": 0.4, "s_measure": 0.6, "images": 300}


def best(table: Table, row: Row) -> list[bool]:
    return [row.cell(column).best for column in table.columns]


def printed(table: Any, width: int = 160) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(table)
    return stream.getvalue()


def test_without_published_figures_the_run_meets_its_floors() -> None:
    [table] = run_tables({"mine": RUN}, {"mine": {"gaussian": FLOOR}})
    assert [row.name for row in table.rows] == ["This run", "Centred Gaussian"]
    assert [column.key for column in table.columns] == ["mae", "mean_f", "weighted_f", "max_f", "s_measure"]
    assert best(table, table.rows[0]) == [True, True, True, True, False]
    assert best(table, table.rows[1]) == [False, False, False, False, True]
    assert table.rows[0].cells["mae"].text == "0.031"
    assert table.images == 300 and not table.notes


def test_a_lone_row_is_not_called_best() -> None:
    [table] = run_tables({"mine": RUN})
    assert not any(best(table, table.rows[0]))


def test_published_methods_stand_beside_an_official_set() -> None:
    [table] = run_tables({"ECSSD": RUN | {"binary_ratio": 90.0, "images": 1000}}, None, load_published())
    rows = {row.name: row for row in table.rows}
    assert len(rows) == 12 and "F3Net (2020)" in rows
    # 0.0312 and 0.9204 print as the paper's 0.031 and 0.920: both are best; binary_ratio has no contest
    assert best(table, rows["This run"]) == [True, False, True, True, False, False]
    assert best(table, rows["QEFPN (paper)"]) == [True, True, True, False, True, False]


def test_figures_of_other_pictures_stand_there_and_are_not_ranked() -> None:
    [table] = run_tables({"ECSSD": RUN}, {"ECSSD": {"gaussian": FLOOR}}, load_published())
    rows = {row.name: row for row in table.rows}
    assert best(table, rows["This run"]) == [True, True, True, True, False]
    assert best(table, rows["Centred Gaussian"]) == [False, False, False, False, True]
    assert rows["QEFPN (paper)"].cells["mae"].text == "0.031" and not any(best(table, rows["QEFPN (paper)"]))
    [note] = table.notes
    assert "300 pictures were scored" in note and "1,000" in note


def test_all_pictures_need_no_remark() -> None:
    [table] = run_tables({"ECSSD": RUN | {"images": 1000}}, None, load_published())
    assert table.notes == []


def test_misprints_get_footnotes_and_compete_corrected() -> None:
    [table] = run_tables({"DUTS-TE": {"mean_f": 0.1}}, None, load_published())
    cells = next(row for row in table.rows if row.label == "F3Net").cells
    assert cells["mean_f"].text == "0.791" and cells["mean_f"].note == table.footnotes[0]
    assert ".840" in table.footnotes[0]
    [table] = run_tables({"pascal_s": {"mean_f": 0.1}}, None, load_published())
    cells = next(row for row in table.rows if row.label == "F3Net").cells
    assert [(cells[key].text, cells[key].note) for key in ("mae", "mean_f")] == [("0.064", ""), ("0.844", "")]
    [table] = run_tables({"ECSSD": {"s_measure": 0.9}}, None, load_published())
    assert len(table.footnotes) == 1 and "BASNet's S-measure on ECSSD is .916" in table.footnotes[0]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "no number"])
def test_a_figure_that_is_none_is_a_dash_and_never_best(value: Any) -> None:
    floors = {"untrained": FLOOR, "gaussian": FLOOR | {"mae": 0.3}}
    [table] = run_tables({"mine": RUN | {"mae": value}}, {"mine": floors})
    assert table.rows[0].cells["mae"].text == "–" and not table.rows[0].cells["mae"].best
    assert table.rows[1].cells["mae"].best
    [table] = run_tables({"mine": RUN | {"mae": value}}, {"mine": {"untrained": FLOOR}})
    assert not table.rows[1].cells["mae"].best  # there is no other figure to be better than


def test_terminal() -> None:
    floors = {"ECSSD": {"gaussian": FLOOR}}
    text = printed(terminal(run_tables({"ECSSD": RUN, "DUTS-TE": RUN}, floors, load_published())))
    assert "ECSSD (300)" in text and "DUTS-TE (300)" in text and "Centred Gaussian" in text
    assert "0.834¹" in text and "0.791²" in text and "² F3Net's own paper has .840" in text
    assert "MAE ↓" in text and "F ↑" in text


def test_terminal_marks_the_best_and_escapes_names() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=120, force_terminal=True, color_system="standard")
    console.print(terminal(run_tables({"[red]set": RUN}, {"[red]set": {"gaussian": FLOOR}}, label="[bold]x")))
    text = stream.getvalue()
    assert "[red]set" in text and "[bold]x" in text
    line = next(line for line in text.splitlines() if "[bold]x" in line)
    assert "\x1b[1;32m0.031" in line and "\x1b[1;32m0.500" not in line


def test_terminal_of_eighty_columns_cuts_nothing() -> None:
    run = RUN | {"e_measure": 0.9, "binary_ratio": 97.87}
    sets = {"ECSSD": run, "synthetic-test": run}
    text = printed(terminal(run_tables(sets, {"ECSSD": {"gaussian": FLOOR}}, load_published())), width=80)
    assert "…" not in text and all(len(line) <= 80 for line in text.splitlines())
    for figure in ("97.87", "0.834¹", "Centred Gaussian", "QEFPN (paper)", "synthetic-test (300)", "binary"):
        assert figure in text


def test_terminal_without_anything() -> None:
    assert "method" in printed(terminal(run_tables({})))


def test_markdown() -> None:
    text = markdown(run_tables({"a|b": RUN, "DUTS-TE": RUN}, {"a|b": {"gaussian": FLOOR}}, load_published()))
    lines = text.splitlines()
    assert lines[0] == r"**a\|b** (300 pictures)"
    assert lines[2] == "| method | MAE ↓ | F adapt. ↑ | weighted F ↑ | F max ↑ | S ↑ |"
    assert lines[3] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert lines[4] == "| This run | **0.031** | **0.800** | **0.920** | **0.970** | 0.500 |"
    assert "| F3Net (2020) | 0.035 | 0.791¹ | 0.835 | 0.891 | 0.888 |" in lines
    assert any(line.startswith("¹ F3Net's own paper has .840") for line in lines)
    assert any(line.startswith("300 pictures were scored") for line in lines)
