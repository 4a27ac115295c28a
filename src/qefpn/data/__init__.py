"""Saliency data sets: finding, checking, reading, augmenting and loading them.

Everything is loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qefpn.data.datamodule import SaliencyDataModule
    from qefpn.data.dataset import SaliencyDataset, collate_test, collate_train
    from qefpn.data.integrity import Finding
    from qefpn.data.layouts import Pair, Pairs, find_pairs
    from qefpn.data.reading import TestTransform, read_image, read_mask
    from qefpn.data.registry import DATASETS, SetInfo, official
    from qefpn.data.sampler import MultiScaleBatchSampler, SampleKey, ShardSampler
    from qefpn.data.survey import DataReport, SetReport, describe
    from qefpn.data.synthetic import synthesize
    from qefpn.data.transforms import (
        RandomTrim,
        TrainTransform,
    )

__all__ = [
    "DATASETS",
    "DataReport",
    "Finding",
    "MultiScaleBatchSampler",
    "Pair",
    "Pairs",
    "RandomTrim",
    "SaliencyDataModule",
    "SaliencyDataset",
    "SampleKey",
    "SetInfo",
    "SetReport",
    "ShardSampler",
    "TestTransform",
    "TrainTransform",
    "collate_test",
    "collate_train",
    "describe",
    "find_pairs",
    "official",
    "read_image",
    "read_mask",
    "synthesize",
]

_MODULES = {
    "datamodule": ("SaliencyDataModule",),
    "dataset": ("SaliencyDataset", "collate_test", "collate_train"),
    "integrity": ("Finding",),
    "layouts": ("Pair", "Pairs", "find_pairs"),
    "reading": ("TestTransform", "read_image", "read_mask"),
    "registry": ("DATASETS", "SetInfo", "official"),
    "sampler": ("MultiScaleBatchSampler", "SampleKey", "ShardSampler"),
    "survey": ("DataReport", "SetReport", "describe"),
    "synthetic": ("synthesize",),
    "transforms": (
        "RandomTrim",
        "TrainTransform",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
