"""The figures that the paper prints, from one data file, with what is known to be wrong in them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from omegaconf import OmegaConf


@dataclass(frozen=True)
class Misprint:
    """A printed figure that is known, or looks, wrong.

    ``correct`` is None where the right figure is not known; ``dataset`` None stands for every set.
    """

    table: str
    method: str
    metric: str
    note: str
    dataset: str | None = None
    printed: float | None = None
    correct: float | None = None


@dataclass(frozen=True)
class PublishedRow:
    """One method of a table: its figures as printed, and the misprints among them by metric."""

    method: str
    values: Mapping[str, float]
    misprints: Mapping[str, Misprint]
    year: int | None = None
    depth: str | None = None


def canonical(name: str) -> str:
    """A data set's name without case and punctuation: ``dut_omron`` is DUT-OMRON."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


class Published:
    """Tables I to VII of the paper.

    Args:
        content: what ``published.yaml`` holds.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.source: Mapping[str, str] = content["source"]
        self._images: Mapping[str, int] = content["images"]
        self._tables: Mapping[str, Any] = content["tables"]
        self.misprints = tuple(Misprint(**entry) for entry in content["misprints"])

    def official_name(self, dataset: str) -> str | None:
        """The official name of a set, or None where the paper does not have it."""
        return {canonical(name): name for name in self._images}.get(canonical(dataset))

    def official_images(self, dataset: str) -> int | None:
        """How many pictures the official set has, or None where the paper does not have the set."""
        name = self.official_name(dataset)
        return None if name is None else int(self._images[name])

    def title(self, table: str) -> str:
        """What the table is about."""
        return str(self._tables[table]["title"])

    def columns(self, table: str) -> list[str]:
        """The metrics of a table, by the keys of metrics.json (``params_m`` and ``fps`` in Table III)."""
        return list(self._tables[table]["columns"])

    def rows(self, table: str, dataset: str | None = None) -> list[PublishedRow]:
        """The rows of a table as printed.

        Args:
            table: "I" to "VII".
            dataset: needed for Tables I and II, which have several; any spelling of the name. A set that the
                table does not have gives no rows.
        """
        content = self._tables[table]
        official = None if dataset is None else self.official_name(dataset)
        rows = []
        for entry in content["rows"]:
            figures = entry.get("values") or entry.get(official)
            if figures is None:
                continue
            misprints = {
                one.metric: one
                for one in self.misprints
                if (one.table, one.method) == (table, entry["method"]) and one.dataset in (None, official)
            }
            depth = entry.get("depth")
            rows.append(
                PublishedRow(
                    method=entry["method"],
                    values=dict(zip(content["columns"], figures, strict=True)),
                    misprints=misprints,
                    year=entry.get("year"),
                    depth=None if depth is None else str(depth).replace("inf", "∞"),
                )
            )
        return rows


@functools.cache
def load_published() -> Published:
    """The paper's tables, from the data file beside this module."""
    with resources.as_file(resources.files("qefpn.reporting") / "published.yaml") as path:
        content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    return Published({str(key): value for key, value in content.items()})
