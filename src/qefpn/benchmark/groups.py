"""Means over groups of pictures: the videos of a data set, or the classes of one for co-saliency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from qefpn.benchmark.attributes import SCORES, means_over
from qefpn.benchmark.entries import Entry
from qefpn.data.layouts import Pair
from qefpn.errors import UserError

ALL = "mean of the groups"


def check_groups(pairs_by_dataset: Mapping[str, Sequence[Pair]]) -> None:
    """Refuse to compute means of groups where there are none.

    Raises:
        UserError: no data set has pictures in folders.
    """
    if not any("/" in pair.name for pairs in pairs_by_dataset.values() for pair in pairs):
        raise UserError(
            "groups=true: no data set has its pictures in folders (bear/12.png), a group each; leave it out"
        )


def group_table(entries: Sequence[Entry]) -> list[dict[str, str | int | float]]:
    """Each method's means over each group, and the means of those, in which every group weighs alike.

    A picture's group is the folder in its name: ``bear`` of ``bear/00012``.

    Args:
        entries: the methods' results.

    Returns:
        rows ``{dataset, method, group, images, mae, mean_f, weighted_f, s_measure, e_measure}``, the last row of a
        method and data set with the group :data:`ALL`; data sets without folders have no rows.
    """
    rows: list[dict[str, str | int | float]] = []
    for entry in entries:
        members: dict[str, set[str]] = {}
        for picture in entry.pictures:
            folder, _, name = str(picture["name"]).rpartition("/")
            if folder:
                members.setdefault(folder, set()).add(f"{folder}/{name}")
        if not members:
            continue
        of_groups = {group: means_over(entry, names) for group, names in sorted(members.items())}
        head: dict[str, str | int | float] = {"dataset": entry.dataset, "method": entry.method}
        rows += [{**head, "group": group, **means} for group, means in of_groups.items()]
        total: dict[str, int | float] = {"images": sum(len(names) for names in members.values())}
        for key in SCORES:
            values = [means[key] for means in of_groups.values() if not math.isnan(means[key])]
            total[key] = math.fsum(values) / len(values) if values else math.nan
        rows.append({**head, "group": ALL, **total})
    return rows
