"""Charts: what is drawn, and that the SVG fits into a page."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from qefpn.reporting.charts import MOST_POINTS, Series, line_chart, moving_average, thin


def chart(**kwargs: object) -> str:
    series = [Series("a <b>", [(0, 1.0), (1, 2.0)]), Series("second", [(0, 2.0), (1, 1.0)], dashed=True)]
    return line_chart("one", series, title='a "title"', x_label="step", **kwargs)  # type: ignore[arg-type]


def test_an_element_without_outside_references() -> None:
    svg = chart()
    assert "http" not in svg and "<?xml" not in svg and "<!DOCTYPE" not in svg
    root = ET.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
    assert root.attrib["aria-label"] == 'a "title"'
    identifiers = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
    assert len(set(identifiers)) == len(identifiers)
    assert all(identifier.startswith("one-") for identifier in identifiers)
    assert {"a <b>", "second", "step"} <= {node.text for node in root.iter() if node.text}


def test_colours_follow_the_page() -> None:
    svg = chart(marker=(0.5, "here"))
    assert "var(--series-1)" in svg and "var(--series-2)" in svg and "var(--ink-soft)" in svg
    assert "#0101" not in svg and "here" in svg


def test_the_same_data_give_the_same_bytes() -> None:
    assert chart() == chart()


def test_nothing_to_draw_is_no_chart() -> None:
    assert line_chart("x", [Series("empty", [])], title="t", x_label="x") == ""
    assert line_chart("x", [Series("zero", [(0, 0.0)])], title="t", x_label="x", log_y=True) == ""


def test_long_series_are_averaged() -> None:
    points = [(float(i), float(i % 2)) for i in range(10 * MOST_POINTS)]
    short = thin(points)
    assert len(short) == MOST_POINTS
    assert short[0] == (4.5, 0.5)
    assert thin(points[:10]) == points[:10]


def test_moving_average_by_hand() -> None:
    assert moving_average([1.0, 2.0, 6.0, 3.0], 1) == pytest.approx([1.5, 3.0, 11 / 3, 4.5])
