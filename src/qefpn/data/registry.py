"""The six data sets of the paper: official names, counts and known defects."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["DATASETS", "SetInfo", "close_names", "normalize_name", "official"]


@dataclass(frozen=True)
class SetInfo:
    """What is known of a published data set.

    Attributes:
        name: the official spelling.
        count: pictures in the official release.
        role: ``"train"`` or ``"test"``.
        year: year of publication.
        homepage: where its authors offer it.
        defects: picture name to a known fault of the official release. Such a pair is reported as a
            warning and never stops a run: left out of training, kept for testing as published scores keep it.
    """

    name: str
    count: int
    role: str
    year: int
    homepage: str
    defects: Mapping[str, str] = field(default_factory=dict)


DATASETS: dict[str, SetInfo] = {
    info.name: info
    for info in (
        SetInfo(
            "DUTS-TR",
            10553,
            "train",
            2017,
            "http://saliencydetection.net/duts/",
            {
                name: "picture and mask differ in size in the official release"
                for name in ("ILSVRC2014_train_00023530", "n04442312_17818", "n01532829_13482")
            },
        ),
        SetInfo(
            "DUTS-TE",
            5019,
            "test",
            2017,
            "http://saliencydetection.net/duts/",
            {"ILSVRC2012_test_00036002": "picture and mask differ in size in the official release"},
        ),
        SetInfo(
            "ECSSD", 1000, "test", 2013, "https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html"
        ),
        SetInfo("DUT-OMRON", 5168, "test", 2013, "http://saliencydetection.net/dut-omron/"),
        SetInfo("PASCAL-S", 850, "test", 2014, "http://cbs.ic.gatech.edu/salobj/"),
        SetInfo("HKU-IS", 4447, "test", 2015, "https://i.cs.hku.hk/~gbli/deep_saliency.html"),
    )
}

_ALIASES = {"omron": "DUT-OMRON", "pascal": "PASCAL-S", "dutstrain": "DUTS-TR", "dutstest": "DUTS-TE"}


def normalize_name(name: str) -> str:
    """``name`` in lower case without separators: ``DUT_OMRON``, ``dut-omron`` and ``DUTOMRON`` agree."""
    return re.sub(r"[^a-z0-9]+", "", name.lower())


_NORMALIZED = {normalize_name(name): name for name in DATASETS}
_NORMALIZED.update(_ALIASES)


def official(name: str) -> SetInfo | None:
    """The published set called ``name`` in any case and with any separators; None for a set of one's own."""
    known = _NORMALIZED.get(normalize_name(name))
    return DATASETS[known] if known else None


def close_names(name: str, among: list[str] | None = None) -> list[str]:
    """Names of ``among`` (the official sets by default) that ``name`` may be a misspelling of."""
    table = {normalize_name(entry): entry for entry in (list(DATASETS) if among is None else among)}
    return [table[key] for key in difflib.get_close_matches(normalize_name(name), list(table), n=2)]
