"""Tables of methods beside each other: ranks, daggers, misprints, and forms that other programs read."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import false_discovery_control
from tests.reporting.benchmark_entries import make

from qefpn.benchmark.entries import Entry
from qefpn.metrics.figures import known_names
from qefpn.reporting.comparison import benchmark_tables, csv_benchmark, json_benchmark
from qefpn.reporting.intervals import interval_table, rank_sentences, rank_table, sentences
from qefpn.reporting.latex import latex
from qefpn.reporting.published import load_published
from qefpn.reporting.renderers import markdown, terminal, terminals
from qefpn.reporting.tables import beside, in_parts


def entry(method: str, mae: float, max_f: float, *, scored: int = 10, dataset: str = "ECSSD") -> Entry:
    pictures = [{"name": str(i), "mae": mae, "weighted_f": max_f} for i in range(scored)]
    scores = {"mae": mae, "max_f": max_f, "weighted_f": max_f}
    return Entry(method, dataset, scores, {}, pictures, 10, [], [], [], {}, {})


ENTRIES = [
    entry("a", 0.0501, 0.9), entry("b", 0.0499, 0.8), entry("c", 0.04, 0.7), entry("d", 0.06, 0.6),
    entry("e", 0.07, 0.5), entry("best but not whole", 0.01, 0.99, scored=9),
]  # fmt: skip


def ranks(entries: list[Entry], key: str, published: bool = False) -> dict[str, int | None]:
    (table,) = benchmark_tables(entries, load_published() if published else None)
    return {row.label.rstrip("†"): row.cells[key].rank for row in table.rows if row.kind == "measured"}


def test_ranks() -> None:
    # .0501 and .0499 are both printed .050 and share a rank; an incomplete method has none
    assert ranks(ENTRIES, "mae") == {"a": 2, "b": 2, "c": 1, "d": 3, "e": None, "best but not whole": None}
    assert ranks(ENTRIES, "max_f") == {"a": 1, "b": 2, "c": 3, "d": None, "e": None, "best but not whole": None}
    assert ranks(ENTRIES[:1], "mae") == {"a": None}  # nothing to compare with


def test_published_figures_rank_only_on_the_whole_set() -> None:
    whole = [dataclasses.replace(one, expected=1000, pictures=one.pictures * 100) for one in ENTRIES[:2]]
    assert ranks(whole, "max_f", published=True) == {"a": None, "b": None}
    assert ranks(ENTRIES[:2], "max_f", published=True) == {"a": 1, "b": 2}
    (table,) = benchmark_tables(ENTRIES[:2], load_published())
    assert "the official ECSSD has 1,000" in table.notes[0]


def test_misprints_are_marked_and_rank_corrected() -> None:
    own = dataclasses.replace(entry("own", 0.5, 0.5, dataset="DUTS-TE"), expected=5019)
    (table,) = benchmark_tables([own], load_published())
    row = next(one for one in table.rows if one.label == "F3Net")
    assert row.cells["mean_f"].value == 0.791 and row.cells["mean_f"].note in table.footnotes
    assert "F3Net's own paper has .840" in row.cells["mean_f"].note


def test_forms(tmp_path: Path) -> None:
    entries, _ = make(tmp_path)
    tables = benchmark_tables(entries, load_published())
    stream = io.StringIO()
    Console(file=stream, width=110).print(terminal(tables))
    text = stream.getvalue()
    assert "sharp" in text and "A <i>&amp;</i> é†" in text and "1 of 6 maps are missing" in text
    assert all(len(line) <= 110 for line in text.splitlines())

    text = markdown(tables)
    assert "\\<i\\>" in text and "**" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows if "sharp" in line or "MAE" in line}) == 1

    table = list(csv.DictReader(io.StringIO(csv_benchmark(entries))))
    assert [(row["method"], row["dataset"]) for row in table] == [(one.method, one.dataset) for one in entries]
    assert all(float(row["mae"]) == one.scores["mae"] for row, one in zip(table, entries, strict=True))

    data = json_benchmark(entries, "f3net")
    assert (
        all(data["results"][0][key] == values for key, values in entries[0].curves.items())
        and data["thresholds"][0] == 255
    )


def test_latex_rows_have_one_length_and_marks(tmp_path: Path) -> None:
    entries, _ = make(tmp_path)
    text = latex(beside(benchmark_tables(entries, load_published())), wide=True)
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1
    assert r"\textcolor{red}" in text and r"$^\dagger$" in text and "&amp" not in text.replace(r"\&amp", "")


def test_many_figures_are_set_in_several_tables() -> None:
    many = {f"iou_{i}": i / 30 for i in range(25)} | {"ber_max": 0.2}
    entries = [dataclasses.replace(one, scores=one.scores | many) for one in ENTRIES]
    parts = in_parts(benchmark_tables(entries, load_published()))
    assert [[len(table.columns) for table in part] for part in parts] == [[11], [11], [9]]  # of 26, 3 and 2 printed
    keys = [column.key for part in parts for column in part[0].columns]
    assert len(set(keys)) == 31 and keys[:2] == ["mae", "mean_f"] and {*many} <= {*keys}
    assert [bool(part[0].notes) for part in parts] == [True, False, False]
    for part in parts:
        stream = io.StringIO()
        Console(file=stream, width=120).print(terminal(part))
        assert "best but not whole" in stream.getvalue() and "…" not in stream.getvalue()
    assert len(in_parts([])) == 1 and benchmark_tables(entries)[0].columns[-1].better == "low"


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_terminal_of_any_width_cuts_no_figure(width: int) -> None:
    everything = {name: 0.25 + i / 1000 for i, name in enumerate(known_names()) if not name.endswith("_curve")}
    entries = [dataclasses.replace(one, scores=one.scores | everything) for one in ENTRIES]
    near = [{"dataset": "ECSSD", "next": "b", "metric": key, "apart": False} for key in everything]
    tables = benchmark_tables(entries, load_published(), ranks=near)
    stream = io.StringIO()
    parts = terminals(tables, width)
    for part in parts:
        Console(file=stream, width=width).print(part)
    lines = stream.getvalue().splitlines()
    assert all(len(line) <= width for line in lines) and "…" not in stream.getvalue()
    assert sum(line.strip().startswith("d  ") for line in lines) == len(parts) > 1
    printed = " ".join(lines).split()
    assert all(printed.count(column.text(entries[3].scores[column.key])) for column in tables[0].columns)
    assert printed.count("≈") >= len(tables[0].columns)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex: LaTeX is not compiled")
def test_latex_compiles(tmp_path: Path) -> None:
    entries, _ = make(tmp_path)
    body = latex(beside(benchmark_tables(entries, load_published())), wide=True)
    document = "\\documentclass[twocolumn]{article}\\usepackage{booktabs,graphicx,xcolor}\\begin{document}\n"
    (tmp_path / "t.tex").write_text(document + body + "\\end{document}\n", encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def method(name: str, shift: float, seed: int = 0) -> Entry:
    """A method on 80 pictures, of which each is as hard for all methods."""
    base = np.random.default_rng(1).random(80)
    noise = np.random.default_rng([seed, *name.encode()]).normal(0, 0.02, 80)
    rows = [
        {"name": str(i), "weighted_f": float(base[i] + shift + noise[i]), "mae": math.nan, "mean_f": 0.0,
         "s_measure": 0.0, "e_measure": 0.0} for i in range(80)
    ]  # fmt: skip
    scores = {"weighted_f": float(np.mean([row["weighted_f"] for row in rows]))}
    return Entry(name, "X", scores, {}, rows, 80, [], [], [], {}, {})


def test_intervals() -> None:
    rows = interval_table([method("good", 0.1), method("bad", 0.0)], 1000)
    (row,) = [row for row in rows if row["metric"] == "weighted_f"]
    assert (row["method"], row["best"], row["pictures"]) == ("bad", "good", 80)
    assert float(row["low"]) <= float(row["difference"]) <= float(row["high"]) < 0
    assert "told apart" in sentences(rows)[0] and "not" not in sentences(rows)[0]
    assert interval_table([method("good", 0.1)], 1000) == []
    assert interval_table([method("good", 0.1), method("bad", 0.0)], 0) == []


def test_false_discoveries_are_controlled_over_methods() -> None:
    entries = [method("best", 0.1), *(method(f"m{i}", 0.1 - 0.0008 * i) for i in range(12))]
    rows = interval_table(entries, 500)
    assert len(rows) == 12 and len({row["best"] for row in rows}) == 1
    p = sorted(row["p_value"] for row in rows)
    # Benjamini and Hochberg, by hand: the smallest p·m/k of this and all larger p
    q = [min(p[k] * 12 / (k + 1) for k in range(i, 12)) for i in range(12)]
    assert sorted(row["q_value"] for row in rows) == pytest.approx([min(1, one) for one in q])
    assert all(row["q_value"] >= row["p_value"] for row in rows)
    by_scipy = false_discovery_control([row["p_value"] for row in rows])
    assert [row["q_value"] for row in rows] == pytest.approx(by_scipy.tolist(), rel=1e-14)


def test_among_equal_methods_no_rank_is_told_apart_more_often_than_is_said() -> None:
    told = 0
    for seed in range(60):
        rows = rank_table([method(f"m{i}", 0.0, seed) for i in range(4)], 200, seed)
        assert [row["rank"] for row in rows] == [1, 2, 3]
        told += any(row["apart"] for row in rows)
    assert told <= 12  # ranks are sorted by what was drawn: some are told, but few


def test_ranks_in_a_sentence() -> None:
    entries = [method("near", 0.099), method("far", -0.3), method("first", 0.1), method("last", -0.6)]
    rows = rank_table(entries, 500)
    by_value = sorted(entries, key=lambda entry: -entry.scores["weighted_f"])
    assert [row["method"] for row in rows] == [entry.method for entry in by_value[:-1]]
    for row, (a, b) in zip(rows, itertools.pairwise(by_value), strict=True):
        assert row["difference"] == pytest.approx(a.scores["weighted_f"] - b.scores["weighted_f"])
        assert row["low"] < row["difference"] < row["high"]
    assert [row["apart"] for row in rows] == [False, True, True]
    (sentence,) = rank_sentences(rows)
    assert f"{by_value[0].method}, {by_value[1].method} | far | last (2 of 3" in sentence
    assert rank_table(entries, 0) == [] and rank_table(entries[:1], 500) == []


def test_a_method_with_missing_maps_has_a_place_in_no_order() -> None:
    part = dataclasses.replace(method("part", 0.2), expected=90)
    rows = interval_table([method("good", 0.1), method("bad", 0.0), part], 300)
    (row,) = [row for row in rows if row["method"] == "part"]
    assert row["best"] == "good" and row["q_value"] == "" and row["difference"] > 0
    assert {row["method"] for row in rank_table([method("good", 0.1), method("bad", 0.0), part], 300)} == {"good"}


def test_figures_that_are_not_told_from_the_one_above_are_marked() -> None:
    entries = [method("near", 0.099), method("far", -0.3), method("first", 0.1), method("last", -0.6)]
    ranks_found = rank_table(entries, 500)
    (close,) = {row["next"] for row in ranks_found if not row["apart"]}
    (table,) = benchmark_tables(entries, ranks=ranks_found)
    marked = {row.label for row in table.rows if row.cells["weighted_f"].mark}
    assert marked == {close} and close in ("near", "first")
    said = "≈ not told from the figure of the method ranked just above it"
    stream = io.StringIO()
    Console(file=stream, width=120).print(terminal([table]))
    figure = f"{dict((e.method, e) for e in entries)[close].scores['weighted_f']:.3f}"
    assert f"{figure} ≈" in stream.getvalue() and said in " ".join(stream.getvalue().split())
    text = markdown([table])
    assert f"{figure}** ≈ |" in text and said in text and text.count("≈") == 2
    assert r"\,$\approx$" in latex(beside([table, table]))
    assert latex(beside([table])).count(r"$\approx$") == 2
    (plain,) = benchmark_tables(entries)
    assert not plain.remarks and "≈" not in markdown([plain])


def test_every_f_and_e_says_which() -> None:
    figures = {"mean_f": 0.1, "mean_curve_f": 0.2, "max_f": 0.3, "e_measure": 0.4, "mean_e": 0.5, "max_e": 0.6}
    aliases = {"f_adaptive": 0.1, "f_mean": 0.2, "f_max": 0.3, "e_adaptive": 0.4, "e_mean": 0.5, "e_max": 0.6}
    entries = [dataclasses.replace(one, scores=one.scores | figures | aliases) for one in ENTRIES[:2]]
    tables = benchmark_tables(entries)
    heads = {column.head.replace(".", "") for column in tables[0].columns}
    assert heads >= {f"{of} {which} ↑" for of in "FE" for which in ("adapt", "mean", "max")}
    assert "adaptive" not in heads and len(tables[0].columns) == 2 + 6  # one column a figure, MAE and weighted F beside
    assert all(column.head.split()[0] != "E" or len(column.head.split()) == 3 for column in tables[0].columns)
    text = latex(beside(tables))
    for of, sign in (("F", r"\beta"), ("E", r"\xi")):
        for which in (r"{\mathrm{adp}}", r"{\mathrm{mean}}", r"{\max}"):
            assert f"${of}_{sign}^{which}$$\\uparrow$" in text
    rows = list(csv.DictReader(io.StringIO(csv_benchmark(entries))))
    assert all(float(rows[0][key]) == value for key, value in (figures | aliases).items())
