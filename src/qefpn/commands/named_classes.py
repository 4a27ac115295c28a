"""Classes that a configuration names for Hydra or ``logging`` to build: refused before either sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qefpn.errors import UserError

PLUGINS = ("hydra.launcher._target_", "hydra.sweeper._target_")
"""Hydra looks these up among the plugins that are installed, by their whole name."""
PLUGIN = re.compile(r"hydra\._internal\.core_plugins\.[\w.]+|hydra_plugins\.[\w.]+")
CALLBACKS = ("LogJobReturnCallback", "PickleJobInfoCallback")
CALLBACK = re.compile(rf"hydra\.experimental\.callbacks\.({'|'.join(CALLBACKS)})")
# one name behind the module, and a class's: logging.os.system would be reached through logging's own imports
LOGGING = re.compile(r"(logging|logging\.handlers|colorlog)\.[A-Z]\w*")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")

DEEPEST = 20


def refuse_foreign_classes(config: DictConfig) -> None:
    """Let no part of a composed configuration name a class but Hydra's plugins and callbacks, and those of ``logging``.

    Args:
        config: composed with Hydra's own part, ``hydra``.

    Raises:
        UserError: one line with the key and what it names. Nothing of it has been imported.
    """
    for key, value in _leaves(config, ""):
        last = key.rpartition(".")[2]
        if last == "_target_":
            known = PLUGIN if key in PLUGINS else CALLBACK if key.startswith("hydra.callbacks.") else None
            if known is None or not known.fullmatch(str(value)):
                raise UserError(f"{key}={value}: a configuration may not name classes; nothing was imported")
        elif key.startswith(("hydra.job_logging.", "hydra.hydra_logging.")):
            named = last in ("class", "()") and not LOGGING.fullmatch(str(value))
            if named or (str(value).startswith("ext://") and value not in STREAMS):
                raise UserError(f"{key}={value}: only classes of logging and colorlog can be named here")


def _leaves(node: DictConfig | ListConfig, prefix: str) -> Iterator[tuple[str, object]]:
    """Dotted keys and values; interpolations as what they stand for, since that may be a whole part."""
    if node._is_none() or node._is_missing():
        return
    plain: Any = OmegaConf.to_container(node, resolve=False)
    keys: list[Any] = list(range(len(plain)) if isinstance(plain, list) else plain)
    for key in keys:
        try:
            value = None if OmegaConf.is_missing(node, key) else node[key]
        except OmegaConfBaseException:  # of what Hydra knows only when a job runs: names and numbers, no part
            value = plain[key]
        name = f"{prefix}{key}"
        if not isinstance(value, DictConfig | ListConfig):
            yield name, value
        elif name.count(".") < DEEPEST:  # an interpolation to what holds it has no end
            yield from _leaves(value, f"{name}.")
        else:
            raise UserError(f"{name[:60]}...: the configuration is nested too deeply")
