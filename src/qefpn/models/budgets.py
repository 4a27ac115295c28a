"""How much of a solve a trained network is used with: budgets by name, kept with its weights."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from qefpn.atomic import atomic_file
from qefpn.errors import UserError
from qefpn.models.network import QEFPN
from qefpn.models.packed import SUFFIX, read_card, write_card
from qefpn.models.pyramid import ImplicitPyramid
from qefpn.models.weights import read_checkpoint
from qefpn.text import did_you_mean, one_line

EXACT = "exact"
BUDGETS = ("fast", "balanced", EXACT)
"""``exact`` is the solver as it was trained; the others are chosen by ``qefpn analyze budget``."""
KEY = "budgets"
Budgets = Mapping[str, Mapping[str, Any]]
"""Name → ``max_steps`` and ``rtol``."""


def checked_budget(name: str | None) -> str:
    """``name``; None means :data:`EXACT`.

    Raises:
        UserError: there is no such budget.
    """
    if name is not None and name not in BUDGETS:
        raise UserError(f"budget={name}: there are {', '.join(BUDGETS)}{did_you_mean(name, BUDGETS)}")
    return name or EXACT


def use_budget(network: QEFPN, kept: object, name: str | None, path: str | Path) -> None:
    """Give the network's solver the steps and the tolerance of a budget.

    Args:
        kept: what the checkpoint holds of budgets.
        path: of the checkpoint, for the messages.

    Raises:
        UserError: there is no such budget, none was chosen for this network yet, or it has nothing to solve.
    """
    name = checked_budget(name)
    if name == EXACT:
        return
    if not isinstance(network.pyramid, ImplicitPyramid):
        raise UserError(one_line(f"budget={name}: {path} has pyramid=none, which solves nothing: leave budget out"))
    own = kept.get(name) if isinstance(kept, Mapping) else None
    if not isinstance(own, Mapping):
        raise UserError(
            one_line(
                f"budget={name}: none was chosen for {path} yet; `qefpn analyze budget checkpoint={path}` does it on "
                f"held-out pictures, and budget=exact solves as it was trained"
            )
        )
    try:
        network.pyramid.solver = replace(network.pyramid.solver, max_steps=own["max_steps"], rtol=own["rtol"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(one_line(f"{path}: its budget {name!r} is none ({error})")) from None


def keep_budgets(path: Path, budgets: Budgets) -> Path:
    """Write budgets into a checkpoint, or into the card of a packed network; the file that was written."""
    plain = {name: dict(one) for name, one in budgets.items()}
    if path.suffix == SUFFIX:
        write_card(path, read_card(path) | {KEY: plain})
        return path.with_suffix(".json")
    content = read_checkpoint(path)
    content["qefpn"] = {**content.get("qefpn", {}), KEY: plain}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_file(path, flush=True) as part:
        part.write_bytes(buffer.getbuffer())
    return path
