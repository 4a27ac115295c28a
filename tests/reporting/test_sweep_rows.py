"""Which runs make a row, what it is called, and which row of the paper it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from tests.reporting.sweep_directories import config, figures, write_job, write_solver_sweep

from qefpn.reporting import load_published
from qefpn.reporting.sweep_rows import Section, differing, group_runs, labels, paper_name, settings_of
from qefpn.reporting.sweep_runs import read_sweep


def sections(directory: Path) -> list[Section]:
    return group_runs(read_sweep(directory), load_published())[0]


def test_rows_of_an_ablation_in_their_order_and_with_the_papers(tmp_path: Path) -> None:
    (section,) = sections(write_solver_sweep(tmp_path / "sweep"))
    assert section.table == "IV" and section.title == "Table IV: Solvers, on DUT-OMRON"
    assert [(row.label, len(row.runs), row.paper) for row in section.rows] == [
        ("unroll 1", 3, "unrolling1"),
        ("unroll 2", 3, "unrolling2"),
        ("equilibrium", 3, "equilibrium"),
        ("quasi", 3, "quasiequilibrium"),
        ("no pyramid", 3, "nopyramid"),
    ]


@pytest.mark.parametrize("name", ["solver", "edge", "filter", "pyramid"])
def test_every_row_of_the_paper_is_a_row_of_our_ablation(name: str, tmp_path: Path) -> None:
    rows = {path.stem: yaml.safe_load(path.read_text()) for path in Path(f"conf/ablation/{name}").glob("*.yaml")}
    (table,) = {content["ablation"]["table"] for content in rows.values()}
    for row, content in rows.items():
        number = content["ablation"]["place"]
        place = {"name": name, "table": table, "row": row, "place": number}
        write_job(tmp_path / f"{number}", config(loss={"name": row}), {"X": figures(0.5)}, steps=0, ablation=place)
    (section,) = sections(tmp_path)
    assert section.table == table
    papers = {paper_name(row) for row in load_published().rows(table)}
    assert papers <= {row.paper for row in section.rows}


def test_an_ablation_beyond_the_paper_has_no_table(tmp_path: Path) -> None:
    for number, p in enumerate((0.0, 1e-4)):
        place = {"name": "p", "table": None, "row": f"p_{p:g}", "place": number}
        write_job(tmp_path / str(number), config(residual__p=p), {"X": figures(0.5)}, steps=0, ablation=place)
    (section,) = sections(tmp_path)
    assert section.table is None and section.title == "Ablation p"
    assert [row.label for row in section.rows] == ["p 0", "p 0.0001"]


def test_without_an_ablation_rows_are_named_by_what_differs(tmp_path: Path) -> None:
    number = 0
    for solver in ({"name": "broyden", "max_steps": 4, "memory": None}, {"name": "anderson", "max_steps": 4}):
        for edge in ("sobel", "prewitt"):
            for seed in (0, 1):
                content = config(solver=solver, edge_filter__name=edge, seed=seed)
                content["ablation"] = {"name": None}
                write_job(tmp_path / str(number), content, {"X": figures(0.5)}, steps=0)
                number += 1
    (section,) = sections(tmp_path)
    assert section.table is None and section.title == "Settings that differ"
    assert [row.label for row in section.rows] == [
        f"solver={solver}, edge_filter={edge}" for solver in ("broyden", "anderson") for edge in ("sobel", "prewitt")
    ]
    assert [[run.seed for run in row.runs] for row in section.rows] == [[0, 1]] * 4


def test_one_axis_of_the_paper_is_its_table_without_a_name_too(tmp_path: Path) -> None:
    choices = [("unroll", "equilibrium"), ("broyden", "equilibrium"), ("broyden", "quasi")]
    for number, (solver, residual) in enumerate(choices):
        content = config(solver={"name": solver, "max_steps": 2}, residual={"name": residual})
        write_job(tmp_path / "solver" / str(number), content, {"X": figures(0.5)}, steps=0)
    (section,) = sections(tmp_path / "solver")
    assert section.table == "IV"
    assert [row.paper for row in section.rows] == ["unrolling2", "equilibrium", "quasiequilibrium"]
    for number, levels in enumerate(([2, 3, 4, 5], [3, 4, 5])):
        write_job(tmp_path / "levels" / str(number), config(pyramid__levels=levels), {"X": figures(0.5)}, steps=0)
    (section,) = sections(tmp_path / "levels")
    assert section.table == "VII"
    assert [row.paper for row in section.rows] == ["quasiequilibrium", "pyramidwithoutf2"]
    assert [row.label for row in section.rows] == ["pyramid.levels=[2, 3, 4, 5]", "pyramid.levels=[3, 4, 5]"]


def test_an_ablation_under_two_settings_keeps_them_apart(tmp_path: Path) -> None:
    number = 0
    for size in (112, 224):
        for place, edge in enumerate(("sobel", "prewitt")):
            ablation = {"name": "filter", "row": edge, "place": place}
            content = config(edge_filter__name=edge, data__image_size=size)
            write_job(tmp_path / str(number), content, {"X": figures(0.5)}, steps=0, ablation=ablation)
            number += 1
    (section,) = sections(tmp_path)
    assert [row.label for row in section.rows] == [
        f"{edge} (data.image_size={size})" for edge in ("sobel", "prewitt") for size in (112, 224)
    ]
    assert {row.paper for row in section.rows} == {"sobel", "prewitt"}


def test_only_seeds_differ(tmp_path: Path) -> None:
    for seed in range(2):
        write_job(tmp_path / str(seed), config(seed=seed), {"X": figures(0.5)}, steps=0)
    (section,) = sections(tmp_path)
    assert section.title == "Runs" and [(row.label, len(row.runs)) for row in section.rows] == [("all runs", 2)]


def test_of_runs_with_the_same_seed_the_newest_counts(tmp_path: Path) -> None:
    for number, level in enumerate((0.4, 0.6)):
        run = write_job(tmp_path / str(number), config(), {"X": figures(level)}, steps=0)
        os.utime(run / "metrics.json", (number, number))
    (section,), repeated = group_runs(read_sweep(tmp_path))
    assert [run.name for run in section.rows[0].runs] == ["1"]
    assert [run.name for run in repeated] == ["0"] and "same settings and seed as 1" in repeated[0].reason


def test_labels_name_options_of_a_group_only_where_its_name_does_not_tell() -> None:
    one = {"solver.name": "a", "solver.memory": "1", "optimizer.lr": "1"}
    two = {"solver.name": "b", "solver.rtol": "2", "optimizer.lr": "2"}
    assert labels([one, two]) == ["solver=a, optimizer.lr=1", "solver=b, optimizer.lr=2"]
    three = {**one, "solver.memory": "3"}
    assert labels([one, two, three])[2] == "solver=a, optimizer.lr=1, solver.memory=3"
    assert labels([one]) == [""] and differing([one, dict(one)]) == []


def test_what_has_no_part_in_the_result_is_no_setting() -> None:
    plain = settings_of(config())
    assert plain == settings_of(config(seed=7, resume="x.ckpt", logger={"name": "wandb"}, data__num_workers=3))
    assert plain["pyramid.levels"] == "[2, 3, 4, 5]" and plain["backbone.weights"] == "null"
