"""Masks of classes: 0 and 1 are black and white, all others are refused in a line that says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.pictures import blob, picture

from qefpn.benchmark.map_scores import score_map
from qefpn.data import find_pairs
from qefpn.data.contents import label_values
from qefpn.data.integrity import check_pairs

INSIDE = blob(3) > 0
EDGE = np.zeros_like(INSIDE)
EDGE[:, 20:23] = True


def mask_of(kind: str) -> Image.Image:
    values = {
        "0/1": INSIDE.astype(np.uint8),
        "0/255": INSIDE.astype(np.uint8) * 255,
        "0/2": INSIDE.astype(np.uint8) * 2,
        "1/2/3": np.where(INSIDE, 1, 2).astype(np.uint8) + EDGE,
        "classes": np.where(INSIDE, 15, 0).astype(np.uint8) + EDGE * np.uint8(5),
        "classes with border": np.where(EDGE, 255, np.where(INSIDE, 15, 0)).astype(np.uint8),
        "0/1 with border": np.where(EDGE, 255, INSIDE).astype(np.uint8),
        "soft": np.asarray(Image.fromarray(blob(3)).resize((28, 20)).resize((56, 40), Image.Resampling.BICUBIC)),
        "dim": np.asarray(Image.fromarray(picture(1)).convert("L")) // 3,
        "PASCAL-S": np.where(EDGE, 21, np.where(INSIDE, 255, 0)).astype(np.uint8),
        "PASCAL-S, two": np.where(EDGE, 43, np.where(INSIDE, 255, 21)).astype(np.uint8),
        "specks": np.where(np.arange(INSIDE.size).reshape(INSIDE.shape) == 9, 1, INSIDE * 255).astype(np.uint8),
    }[kind]
    return Image.fromarray(values)


def voc() -> Image.Image:
    image = Image.fromarray(np.where(EDGE, 255, np.where(INSIDE, 15, 0)).astype(np.uint8), mode="P")
    palette = [0] * 768
    palette[45:48], palette[765:768] = (192, 128, 128), (224, 224, 192)
    image.putpalette(palette)
    return image


@pytest.mark.parametrize("role", ["train", "test"])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("0/1", ""), ("0/255", ""), ("soft", ""), ("specks", ""), ("PASCAL-S", ""), ("PASCAL-S, two", ""),
        ("0/2", "0, 2"), ("1/2/3", "1, 2, 3"), ("classes", "0, 5, 15, 20"),
        ("classes with border", "0, 15, 255"), ("0/1 with border", "0, 1, 255"),
    ],
)  # fmt: skip
def test_labels_are_told(make_set, tmp_path: Path, kind: str, values: str, role: str) -> None:
    root = make_set(tmp_path / "s", count=2)
    mask_of(kind).save(root / "masks" / "p001.png")
    usable, _, findings = check_pairs(find_pairs(root), role=role)
    told = [one for one in findings if one.kind == "label map"]
    assert [one.level for one in told] == (["error"] if values else [])
    assert len(usable) == (1 if values else 2)
    if values:
        assert f"its values are {values}: make the object 255" in told[0].detail
        assert (
            "label map"
            in score_map(str(root / "masks" / "p000.png"), str(root / "masks" / "p001.png"), "f3net").failure
        )


def test_a_dim_mask_is_no_label_map() -> None:
    assert label_values(np.asarray(mask_of("dim"))) == ""


def test_colours_are_objects_and_it_is_said(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "s", count=2)
    voc().save(root / "masks" / "p001.png")
    usable, _, findings = check_pairs(find_pairs(root))
    assert len(usable) == 2
    assert [(one.kind, one.level) for one in findings] == [("mask in colours", "warning")]
    assert "2 colours, each of them read as object, a border between them too" in findings[0].detail
