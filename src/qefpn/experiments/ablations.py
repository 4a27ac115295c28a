"""The rows of an ablation: each a set of overrides, kept in ``conf/ablation/NAME.yaml``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override

from qefpn.errors import UserError

CONF = Path(str(resources.files("qefpn.conf")))
ROW = "ablation.row"
OWN_KEYS = ("ablation", "sweep")
"""Keys of the composed configuration that concern a sweep, and no part of a run."""


def ablation_name(words: Sequence[str]) -> str | None:
    """What ``ablation=`` says; None without it, or where there is no such ablation (composing tells that).

    Raises:
        UserError: for more than one ablation.
    """
    names = [word.partition("=")[2] for word in words if word.startswith("ablation=")]
    name = names[-1] if names else "null"
    if "," in name:
        raise UserError(f"ablation={name}: one ablation a sweep")
    return name if (CONF / "ablation" / f"{name}.yaml").is_file() else None


def rows_of(name: str) -> dict[str, list[str]]:
    """Rows of an ablation in the order of its table, each with its overrides."""
    return {str(row): [str(word) for word in words] for row, words in _content(name)["rows"].items()}


def _content(name: str) -> dict[str, Any]:
    content = yaml.safe_load((CONF / "ablation" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def expand_rows(words: Sequence[str]) -> list[str]:
    """The words of a multirun with an axis over all rows of its ablation, where none are chosen."""
    name = ablation_name(words)
    if name is None or any(word.startswith(f"{ROW}=") for word in words):
        return list(words)
    at = max(i for i, word in enumerate(words) if word.startswith("ablation="))
    return [*words[: at + 1], f"{ROW}={','.join(rows_of(name))}", *words[at + 1 :]]


def check_axes(name: str, overrides: Sequence[Override]) -> None:
    """Raise ``UserError`` for options beside an ablation that its rows would take no notice of."""
    fixed = [{key_of(word) for word in row} for row in rows_of(name).values()]
    for override in overrides:
        key = str(override.key_or_group)
        some = any(key in keys for keys in fixed)
        if some and override.is_sweep_override():
            raise UserError(f"{key} is fixed by rows of ablation={name} and cannot be an axis beside it")
        if some and all(key in keys for keys in fixed):
            raise UserError(f"{key} is what ablation={name} varies: leave it out, or choose with {ROW}=ROW")


def with_row(words: Sequence[str], name: str, row: str) -> list[str]:
    """The words of one run of an ablation: what its row fixes wins over what was given.

    Options given for a group are left out where the row takes another option of that group, which lacks them:
    ``solver.rtol`` says nothing about a row with ``solver=unroll``.
    """
    rows = rows_of(name)
    fixed = {key_of(word): word.partition("=")[2] for word in rows[row]}
    kept = []
    for word in words:
        group, _, rest = key_of(word).partition(".")
        absent = bool(rest) and group in fixed and rest.split(".")[0] not in _option_keys(group, fixed[group])
        if key_of(word) not in fixed and not absent:
            kept.append(word)
    return [*kept, *rows[row]]


def with_layers(words: Sequence[str]) -> list[str]:
    """The words of one run; with ``solver=unroll`` its own layers, gradient and no warm-up, unless these are given.

    An experiment's steps, tolerance, adjoint and warm-up are those of a solver that stops at an equilibrium. Layers
    that are unrolled have their number, are differentiated through and are what a warm-up would consist of.
    """
    solvers = [word.partition("=")[2] for word in words if key_of(word) == "solver"]
    if not solvers or solvers[-1] != "unroll":
        return list(words)
    given = {key_of(word) for word in words}
    option = yaml.safe_load((CONF / "solver" / "unroll.yaml").read_text(encoding="utf-8"))
    own = {f"solver.{key}": value for key, value in option.items() if key != "name"}
    own |= {"solver.rtol": 0.0, "warmup.steps": 0, "adjoint": "unrolled"}
    adjoint_given = any(key == "adjoint" or key.startswith("adjoint.") for key in given)
    added = [key for key in own if key not in given and not (key == "adjoint" and adjoint_given)]
    return [*words, *(f"{'++' if key.startswith('solver.') else ''}{key}={own[key]}" for key in added)]


def key_of(word: str) -> str:
    """The key of an override without the signs before it."""
    return word.partition("=")[0].lstrip("+~")


def _option_keys(group: str, option: str) -> set[str]:
    return set(yaml.safe_load((CONF / group / f"{option}.yaml").read_text(encoding="utf-8")))


def row_label(words: Sequence[str]) -> dict[str, Any] | None:
    """What ``config.yaml`` says of a run's place: ``name``, ``table`` (of the paper, or None), ``row``, ``place``.

    None without an ablation.

    Raises:
        UserError: where no row is chosen, or one that does not exist.
    """
    name = ablation_name(words)
    if name is None:
        return None
    rows = list(rows_of(name))
    chosen = [word.partition("=")[2] for word in words if word.startswith(f"{ROW}=")]
    if not chosen or chosen[-1] == "null":
        raise UserError(f"ablation={name} is a run a row: give -m for all of them, or {ROW}=" + "|".join(rows))
    if chosen[-1] not in rows:
        close = difflib.get_close_matches(chosen[-1], rows, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"{ROW}={chosen[-1]} is no row of ablation={name}{hint}; there are: {', '.join(rows)}")
    return {"name": name, "table": _content(name)["table"], "row": chosen[-1], "place": rows.index(chosen[-1])}
