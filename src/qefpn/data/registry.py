"""The six data sets of the paper: official names, counts and known defects."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["DATASETS", "Archive", "SetInfo", "close_names", "normalize_name", "official"]


@dataclass(frozen=True)
class Archive:
    """A zip that the authors of a data set offer under a plain URL.

    The URLs are those that the authors' pages and users of the sets name; whether each still answers is not
    known.

    Attributes:
        url: where it is.
        folders: folder inside the zip to the folder of the set that it becomes. Only these are taken, where
            the zip has any of them; empty: everything is.
    """

    url: str
    folders: Mapping[str, str] = field(default_factory=dict)


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
        archives: what makes up the set; empty where its authors offer it in a way only a browser can follow.
    """

    name: str
    count: int
    role: str
    year: int
    homepage: str
    defects: Mapping[str, str] = field(default_factory=dict)
    archives: tuple[Archive, ...] = ()


_DUTS = "http://saliencydetection.net/duts/download"
_OMRON = "http://saliencydetection.net/dut-omron/download"
_ECSSD = "https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/data/ECSSD"

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
            (Archive(f"{_DUTS}/DUTS-TR.zip"),),
        ),
        SetInfo(
            "DUTS-TE",
            5019,
            "test",
            2017,
            "http://saliencydetection.net/duts/",
            {"ILSVRC2012_test_00036002": "picture and mask differ in size in the official release"},
            (Archive(f"{_DUTS}/DUTS-TE.zip"),),
        ),
        SetInfo(
            "ECSSD",
            1000,
            "test",
            2013,
            "https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html",
            archives=(Archive(f"{_ECSSD}/images.zip"), Archive(f"{_ECSSD}/ground_truth_mask.zip")),
        ),
        SetInfo(
            "DUT-OMRON",
            5168,
            "test",
            2013,
            "http://saliencydetection.net/dut-omron/",
            archives=(
                Archive(f"{_OMRON}/DUT-OMRON-image.zip"),
                Archive(f"{_OMRON}/DUT-OMRON-gt-pixelwise.zip.zip", {"pixelwiseGT-new-PNG": "DUT-OMRON-mask"}),
            ),
        ),
        SetInfo(
            "PASCAL-S",
            850,
            "test",
            2014,
            "http://cbs.ic.gatech.edu/salobj/",
            archives=(  # it holds other sets, and maps of other methods, too
                Archive(
                    "https://cbs.ic.gatech.edu/salobj/download/salObj.zip",
                    {"datasets/imgs/pascal": "images", "datasets/masks/pascal": "masks"},
                ),
            ),
        ),
        SetInfo("HKU-IS", 4447, "test", 2015, "https://i.cs.hku.hk/~gbli/deep_saliency.html"),
    )
}

_ALIASES = {"omron": "DUT-OMRON", "pascal": "PASCAL-S", "dutstrain": "DUTS-TR", "dutstest": "DUTS-TE"}


def normalize_name(name: str) -> str:
    """``name`` in lower case without separators: ``DUT_OMRON``, ``dut-omron`` and ``DUTOMRON`` agree.

    Letters of any script stay: names in other scripts must not all become one.
    """
    plain = unicodedata.normalize("NFC", name).lower()
    return re.sub(r"[\W_]+", "", plain) or plain


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
