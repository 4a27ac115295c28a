"""Attributes of pictures, and results split by them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from tests.reporting.benchmark_entries import DATASETS, METHODS, PICTURES, make

from qefpn.benchmark.attributes import GROUPS, attribute_table, lab_contrast, picture_attributes
from qefpn.data.layouts import Pair


def mask_of(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (100, 100)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = 255
    return mask


@pytest.mark.parametrize(
    ("boxes", "size", "number", "border"),
    [
        (((10, 10, 10, 10),), "small", "one", "inside"),
        (((10, 10, 25, 40),), "medium", "one", "inside"),  # 10 % exactly belongs to the upper group
        (((10, 10, 50, 60),), "large", "one", "inside"),
        (((10, 10, 5, 5), (20, 20, 5, 5)), "small", "two", "inside"),
        (((10, 10, 5, 5), (15, 15, 5, 5)), "small", "one", "inside"),  # corners that touch are one object
        (((10, 10, 5, 5), (30, 30, 5, 5), (50, 50, 5, 5), (70, 70, 5, 5)), "small", "three", "inside"),
        (((10, 10, 5, 5), (40, 40, 2, 2)), "small", "one", "inside"),  # the second is a speck
        (((40, 40, 2, 2),), "small", "one", "inside"),  # nothing but a speck
        (((95, 10, 5, 5),), "small", "one", "touches"),
        (((10, 0, 5, 5),), "small", "one", "touches"),
        (((94, 94, 5, 5),), "small", "one", "inside"),
        ((), "no object", "no object", "no object"),
    ],
)  # fmt: skip
def test_size_number_and_border(
    boxes: tuple[tuple[int, int, int, int], ...], size: str, number: str, border: str
) -> None:
    groups = picture_attributes(mask_of(*boxes), None).groups
    assert groups["object size"].startswith(size)
    assert groups["number of objects"].startswith(number)
    assert groups["border contact"].startswith(border)
    assert groups["contrast"] == "not defined"
    assert all(group in GROUPS[attribute] for attribute, group in groups.items())


def test_soft_edges_are_cut_at_half() -> None:
    mask = np.full((10, 10), 127, np.uint8)
    mask[0] = 128
    assert picture_attributes(mask, None).size == pytest.approx(0.1)


def test_contrast_of_known_histograms() -> None:
    mask = mask_of((0, 0, 100, 50))
    black = np.zeros((100, 100, 3), np.uint8)
    halves = black.copy()
    halves[:, :50] = 255
    assert lab_contrast(black, mask) == 0.0
    assert lab_contrast(halves, mask) == 1.0
    half = black.copy()
    half[:50, :50] = 255  # object: half white, half black; background: black
    # ½ [(½ − 0)² / ½ + (½ − 1)² / 1½] = ½ (½ + 1/6)
    assert lab_contrast(half, mask) == pytest.approx(1 / 3)
    assert lab_contrast(black, np.zeros((100, 100), np.uint8)) is None
    assert lab_contrast(black, np.full((100, 100), 255, np.uint8)) is None


def test_contrast_of_a_large_picture_and_a_mask_of_another_size() -> None:
    picture = np.zeros((900, 1200, 3), np.uint8)
    picture[:, :600] = (255, 0, 0)
    contrast = lab_contrast(picture, mask_of((0, 0, 30, 20), shape=(30, 40)))
    assert contrast is not None and contrast > 0.98


def test_every_method_and_the_means_of_its_pictures(tmp_path: Path) -> None:
    entries, pairs = make(tmp_path)
    rows = attribute_table(entries, pairs)
    assert list(rows[0]) == [
        "method", "dataset", "attribute", "group", "images", "mae", "mean_f", "weighted_f", "s_measure", "e_measure",
    ]  # fmt: skip
    for entry in entries:
        for attribute in GROUPS:
            own = [
                row for row in rows
                if (row["method"], row["dataset"], row["attribute"]) == (entry.method, entry.dataset, attribute)
            ]  # fmt: skip
            assert sum(int(row["images"]) for row in own) == len(entry.pictures)
            # groups add up to the mean of all
            total = sum(int(row["images"]) * float(row["mae"]) for row in own) / len(entry.pictures)
            assert total == pytest.approx(entry.scores["mae"], rel=1e-12)
    assert {row["dataset"] for row in rows} == set(DATASETS) and {row["method"] for row in rows} == set(METHODS)
    assert sum(
        int(row["images"]) for row in rows if row["method"] == METHODS[2] and row["attribute"] == "contrast"
    ) == (2 * PICTURES - 1)


def test_undefined_scores_are_left_out(tmp_path: Path) -> None:
    entries, pairs = make(tmp_path)
    pictures = [{**row, "s_measure": math.nan if index == 0 else 0.5} for index, row in enumerate(entries[0].pictures)]
    undefined = dataclasses.replace(entries[0], pictures=pictures)
    rows = [row for row in attribute_table([undefined], pairs) if row["attribute"] == "border contact"]
    assert [(row["images"], row["s_measure"]) for row in rows] == [(PICTURES, 0.5)]
    alone = dataclasses.replace(entries[0], pictures=pictures[:1])
    assert math.isnan(float(attribute_table([alone], pairs)[0]["s_measure"]))


def test_unreadable_files_do_not_end_the_table(tmp_path: Path) -> None:
    entries, pairs = make(tmp_path)
    Path(str(pairs["ECSSD"][0].image)).write_text("no picture")
    Path(str(pairs["ECSSD"][1].mask)).write_text("no picture")
    rows = attribute_table(entries[:1], pairs)
    contrast = {row["group"]: row["images"] for row in rows if row["attribute"] == "contrast"}
    assert contrast["not defined"] == 1 and sum(int(count) for count in contrast.values()) == PICTURES - 1
    assert attribute_table(entries[:1], {"ECSSD": list[Pair]()}) == []
