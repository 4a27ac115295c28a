"""What `qefpn benchmark` knows of a method on a data set: what every table, chart and page is drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qefpn.data.files import ZipMember
from qefpn.metrics.bootstrap import Resampled


@dataclass(frozen=True)
class Entry:
    """One method on one data set.

    Attributes:
        method, dataset: their names.
        scores: figures of the set by the keys of metrics.json, without ``images``: means over the pictures that
            were scored.
        curves: of the set, ``precision``, ``recall``, ``f_curve``, ``e_curve`` and those asked for beside, 256 values
            each, index 0 = threshold 255; empty where no picture was scored.
        pictures: rows of scores.csv: ``name`` and the scores of one picture.
        expected: pictures of the data set; ``len(pictures)`` of them were scored.
        missing: names of pictures without a map.
        extra: maps that belong to no picture, below the method's folder.
        resized: names of pictures whose map had another size than the mask.
        failed: name of a picture → why its map could not be scored.
        maps: name of a picture → its saliency map.
        notes: remarks on how maps were read (names of pictures by remark), for example 16-bit ones.
        resampled: figure → itself over resamples of the set, the same ones for every method; empty where none were
            asked for.
        key: stands for what was scored and how: the maps' and masks' content, protocol, figures, code.
    """

    method: str
    dataset: str
    scores: dict[str, float]
    curves: dict[str, list[float]]
    pictures: list[dict[str, Any]]
    expected: int
    missing: list[str]
    extra: list[str]
    resized: list[str]
    failed: dict[str, str]
    maps: dict[str, Path | ZipMember]
    notes: dict[str, list[str]] = field(default_factory=dict)
    resampled: dict[str, Resampled] = field(default_factory=dict)
    key: bytes = b""

    @property
    def complete(self) -> bool:
        """Whether every picture of the data set was scored."""
        return len(self.pictures) == self.expected
