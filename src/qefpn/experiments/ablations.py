"""The rows of an ablation: each a config file ``ablation/NAME/ROW.yaml``, whose options win over all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import Override

from qefpn.errors import UserError
from qefpn.text import did_you_mean

GROUP = "ablation"
ROW = f"{GROUP}.row"

Read = Callable[[str, str], "Options | None"]
"""Reads an option of a group: ``read("solver", "unroll")``; None where there is none."""


@dataclass(frozen=True)
class Options:
    """What a config file says.

    Attributes:
        choices: options that it takes of other groups.
        values: its keys.
    """

    choices: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def keys(self) -> set[str]:
        """The dotted keys of everything that it fixes."""
        return {*self.choices, *(key for key in leaves(self.values) if not key.startswith(f"{GROUP}."))}


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all values that are no mapping."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def key_of(word: str) -> str:
    """The key of an override without the signs before it."""
    return word.partition("=")[0].lstrip("+~")


def ablation_name(overrides: Sequence[str]) -> str | None:
    """The ablation that ``ablation=NAME`` or ``ablation=NAME/ROW`` means; None without it.

    Raises:
        UserError: for more than one.
    """
    given = [word.partition("=")[2] for word in overrides if word.startswith(f"{GROUP}=")]
    names = {one.partition("/")[0] for one in (given[-1].split(",") if given else ["null"])}
    if len(names) > 1:
        raise UserError(f"{GROUP}={given[-1]}: one ablation a sweep")
    name = names.pop()
    return None if name in ("null", "") else name


def choose_rows(overrides: Sequence[str], rows_of: Callable[[str], Sequence[str]], *, every: bool = False) -> list[str]:
    """``ablation=NAME ablation.row=A,B`` as options of Hydra's: ``ablation=NAME/A,NAME/B``.

    Args:
        overrides: as given on the command line.
        rows_of: the rows of an ablation, in the order of its table; none where there is no such ablation.
        every: take all rows where none are chosen.

    Raises:
        UserError: a row that does not exist, or, without ``every``, none chosen.
    """
    name = ablation_name(overrides)
    if name is None or not (rows := rows_of(name)):  # which composing tells
        return list(overrides)
    at = max(place for place, word in enumerate(overrides) if word.startswith(f"{GROUP}="))
    chosen = [one.partition("/")[2] for one in overrides[at].partition("=")[2].split(",")]
    given = [word.partition("=")[2] for word in overrides if word.startswith(f"{ROW}=") and not word.endswith("=null")]
    if given:
        chosen = given[-1].split(",")
    elif chosen == [""]:
        if not every:
            raise UserError(f"{GROUP}={name} is a run a row: give -m for all of them, or {ROW}=" + "|".join(rows))
        chosen = list(rows)
    for row in chosen:
        if row not in rows:
            hint = did_you_mean(row, rows)
            raise UserError(f"{ROW}={row} is no row of {GROUP}={name}{hint}; there are: {', '.join(rows)}")
    axis = f"{GROUP}={','.join(f'{name}/{row}' for row in chosen)}"
    kept = [axis if place == at else word for place, word in enumerate(overrides)]
    return [word for word in kept if not word.startswith(f"{ROW}=")]


def check_axes(name: str, rows: Sequence[Options], parsed: Sequence[Override]) -> None:
    """Raise ``UserError`` for options beside an ablation that its rows would take no notice of."""
    for override in parsed:
        key = str(override.key_or_group)
        fixed = [key in row.keys() for row in rows]  # noqa: SIM118  # no mapping
        if any(fixed) and override.is_sweep_override():
            raise UserError(f"{key} is fixed by rows of {GROUP}={name} and cannot be an axis beside it")
        if fixed and all(fixed):
            raise UserError(f"{key} is what {GROUP}={name} varies: leave it out, or choose with {ROW}=ROW")


def with_row(overrides: Sequence[str], read: Read) -> list[str]:
    """The overrides of one run of an ablation: what its row fixes wins over what was given.

    Options given for a group are left out where the row takes another option of that group, which lacks them:
    ``solver.rtol`` says nothing about a row with ``solver=unroll``.
    """
    chosen = [word.partition("=")[2] for word in overrides if word.startswith(f"{GROUP}=")]
    row = read(GROUP, chosen[-1]) if chosen and "/" in chosen[-1] else None
    if row is None:
        return list(overrides)
    fixed, kept = row.keys(), []
    for word in overrides:
        group, _, rest = key_of(word).partition(".")
        option = read(group, row.choices[group]) if rest and group in row.choices else None
        if key_of(word) not in fixed and (option is None or rest.split(".")[0] in option.values):
            kept.append(word)
    # given, since they have to win over those of an experiment
    return [*kept, *(f"{group}={option}" for group, option in row.choices.items())]


def with_layers(overrides: Sequence[str], read: Read) -> list[str]:
    """The overrides of one run; with ``solver=unroll`` its own layers, gradient and no warm-up, unless these are given.

    An experiment's steps, tolerance, adjoint and warm-up are those of a solver that stops at an equilibrium. Layers
    that are unrolled have their number, are differentiated through and are what a warm-up would consist of.
    """
    solvers = [word.partition("=")[2] for word in overrides if key_of(word) == "solver"]
    if not solvers or solvers[-1] != "unroll":
        return list(overrides)
    chosen = [word.partition("=")[2] for word in overrides if word.startswith(f"{GROUP}=")]
    row = read(GROUP, chosen[-1]) if chosen else None
    given = {key_of(word) for word in overrides} | (set() if row is None else row.keys())
    option = read("solver", "unroll")
    assert option is not None
    own = {f"solver.{key}": value for key, value in option.values.items() if key != "name"}
    own |= {"solver.rtol": 0.0, "warmup.steps": 0, "adjoint": "unrolled"}
    adjoint_given = any(key == "adjoint" or key.startswith("adjoint.") for key in given)
    added = [key for key in own if key not in given and not (key == "adjoint" and adjoint_given)]
    return [*overrides, *(f"{'++' if key.startswith('solver.') else ''}{key}={own[key]}" for key in added)]
