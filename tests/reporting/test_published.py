"""The transcription of the paper's tables, spot-checked figure by figure."""

from __future__ import annotations

import pytest

from qefpn.reporting import load_published

METRICS = ["mae", "mean_f", "weighted_f", "max_f", "s_measure"]
SETS = {"ECSSD": 1000, "DUTS-TE": 5019, "DUT-OMRON": 5168, "PASCAL-S": 850, "HKU-IS": 4447}


def test_official_sets() -> None:
    published = load_published()
    assert {name: published.official_images(name) for name in SETS} == SETS
    assert sum(SETS.values()) == 16_484  # the total that Sec. IV-B names
    assert published.official_name("dut_omron") == "DUT-OMRON"
    assert published.official_name("synthetic") is None


def test_table_one_is_complete() -> None:
    published = load_published()
    methods = ["BMPM", "CPD-R", "EGNet-R", "BANet", "BASNet", "SCRN"]
    methods += ["PoolNet", "F3Net", "GateNet", "MINet", "QEFPN"]
    for dataset in SETS:
        rows = published.rows("I", dataset)
        assert [row.method for row in rows] == methods
        assert all(list(row.values) == METRICS for row in rows)
        assert all(0 < value < 1 for row in rows for value in row.values.values())


@pytest.mark.parametrize(
    ("dataset", "method", "figures"),
    [
        ("ECSSD", "BMPM", [0.045, 0.868, 0.871, 0.928, 0.911]),
        ("ECSSD", "BASNet", [0.037, 0.880, 0.904, 0.942, 0.834]),
        ("ECSSD", "QEFPN", [0.031, 0.932, 0.920, 0.951, 0.930]),
        ("DUTS-TE", "F3Net", [0.035, 0.791, 0.835, 0.891, 0.888]),
        ("DUTS-TE", "SCRN", [0.040, 0.809, 0.803, 0.888, 0.885]),
        ("DUT-OMRON", "GateNet", [0.055, 0.746, 0.729, 0.818, 0.838]),
        ("DUT-OMRON", "QEFPN", [0.057, 0.778, 0.762, 0.825, 0.845]),
        ("PASCAL-S", "CPD-R", [0.074, 0.829, 0.800, 0.870, 0.844]),
        ("PASCAL-S", "F3Net", [0.064, 0.844, 0.823, 0.882, 0.855]),
        ("HKU-IS", "MINet", [0.028, 0.908, 0.899, 0.935, 0.920]),
        ("HKU-IS", "PoolNet", [0.030, 0.903, 0.888, 0.936, 0.919]),
    ],
)
def test_table_one(dataset: str, method: str, figures: list[float]) -> None:
    row = next(row for row in load_published().rows("I", dataset) if row.method == method)
    assert list(row.values.values()) == figures


@pytest.mark.parametrize(
    ("table", "method", "depth", "figures"),
    [
        ("III", "QEFPN", None, [27.82, 99.81]),
        ("III", "F3Net", None, [25.54, 74.67]),
        ("IV", "Unrolling", "2", [0.063, 0.767, 0.754, 0.823, 0.840]),
        ("IV", "Equilibrium", "∞", [0.060, 0.771, 0.757, 0.822, 0.843]),
        ("V", "Without edge extractor", None, [0.059, 0.758, 0.750, 0.818, 0.830, 96.32]),
        ("V", "Weighted IoU loss", None, [0.058, 0.773, 0.759, 0.822, 0.846, 97.32]),
        ("VI", "Frei-Chen", None, [0.058, 0.773, 0.760, 0.827, 0.843]),
        ("VII", "Intermediate supervision", None, [0.056, 0.780, 0.763, 0.824, 0.837]),
        ("VII", "Pyramid without F2", None, [0.060, 0.762, 0.751, 0.810, 0.829]),
    ],
)
def test_other_tables(table: str, method: str, depth: str | None, figures: list[float]) -> None:
    published = load_published()
    row = next(r for r in published.rows(table) if r.method == method and r.depth == depth)
    assert list(row.values.values()) == figures
    assert list(row.values) == published.columns(table)
    assert published.title(table)


def test_the_method_has_one_set_of_figures_on_dut_omron() -> None:
    """Tables IV to VII each repeat Table I's row of the method."""
    published = load_published()
    own = [row for row in published.rows("I", "DUT-OMRON") if row.method == "QEFPN"][0].values
    for table, name in [("IV", "Quasi-equilibrium"), ("V", "Edge extractor"), ("VI", "Sobel")]:
        row = next(row for row in published.rows(table) if row.method == name)
        assert {key: row.values[key] for key in METRICS} == dict(own)


def test_misprints_are_marked_where_they_are_printed() -> None:
    published = load_published()
    marked = {
        (dataset, row.method, key, misprint.correct)
        for dataset in SETS
        for row in published.rows("I", dataset)
        for key, misprint in row.misprints.items()
    }
    assert marked == {
        ("DUTS-TE", "F3Net", "mean_f", 0.840),
        ("ECSSD", "BASNet", "s_measure", 0.916),
    }
    for misprint in published.misprints:
        if misprint.printed is None:
            continue
        rows = published.rows(misprint.table, misprint.dataset)
        row = next(row for row in rows if row.method == misprint.method)
        assert row.values[misprint.metric] == misprint.printed


def test_table_two_repeats_weighted_f() -> None:
    published = load_published()
    for dataset in ("ECSSD", "DUTS-TE", "HKU-IS", "PASCAL-S"):
        two = next(row for row in published.rows("II", dataset) if row.method == "QEFPN")
        one = next(row for row in published.rows("I", dataset) if row.method == "QEFPN")
        assert two.values["mean_f"] == one.values["weighted_f"]
        assert "mean_f" in two.misprints
