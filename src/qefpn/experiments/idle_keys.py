"""Keys that a user gave and that mean nothing where they stand: refused, since they would be dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from qefpn.errors import UserError
from qefpn.option_names import option_name

if TYPE_CHECKING:
    from qefpn.experiments.schema import TrainConfig


class _Rule(NamedTuple):
    keys: tuple[str, ...]
    idle: Callable[[TrainConfig], bool]
    why: str


RULES = (
    _Rule(
        ("solver", "residual", "adjoint", "warmup", "pyramid.jacobian_weight"),
        lambda config: config.pyramid.name == "none",
        "with pyramid=none nothing is solved",
    ),
    _Rule(
        ("backbone.model", "backbone.options"),
        lambda config: config.backbone.is_ours and not config.backbone.name.startswith("timm/"),
        "it is of backbone=timm",
    ),
    _Rule(("data.test_fraction",), lambda config: config.data.test is not None, "data.test names sets"),
    _Rule(("data.synthetic",), lambda config: config.data.name != "synthetic", "it is of data=synthetic"),
    _Rule(("data.cache_size",), lambda config: config.data.cache != "ram", "it is of data.cache=ram"),
    _Rule(("edge_filter",), lambda config: option_name(config.loss) == "no_edges", "loss=no_edges has no edges"),
)
"""What is given on the command line, when it is idle, and why. A key below one of ``keys`` counts as that. A key that
only another option has is unknown to Hydra, and needs no rule."""

ACTIONS = {
    "list": ("data",),
    "verify": ("data", "check", "output"),
    "download": ("data", "download"),
    "synthesize": ("data.root", "synthetic"),
}
"""Keys that each `qefpn data` action reads."""


def _is_below(key: str, group: str) -> bool:
    return key == group or key.startswith(f"{group}.")


def refuse_idle_keys(overrides: Sequence[str], config: TrainConfig) -> None:
    """Refuse what a run's own overrides set in vain.

    Args:
        overrides: ``key=value`` as given. What a file sets is left alone: it may be written for several choices.
        config: what came of them.

    Raises:
        UserError: one line with the word and the choice that makes it idle.
    """
    for word in overrides:
        key, _, value = word.partition("=")
        for rule in RULES:
            if value != "null" and any(_is_below(key.lstrip("+"), one) for one in rule.keys) and rule.idle(config):
                raise UserError(f"{word} changes nothing: {rule.why}; leave it out")


def refuse_others_keys(action: str, overrides: Sequence[str]) -> None:
    """Refuse keys of `qefpn data` that belong to another action.

    Raises:
        UserError: one line with the key and whose it is.
    """
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        if any(_is_below(key, one) for one in ACTIONS[action]):
            continue
        owners = [name for name, keys in ACTIONS.items() if any(_is_below(key, one) for one in keys)]
        if owners:
            raise UserError(f"{key} changes nothing for `data {action}`: it is of `data {owners[0]}`")
