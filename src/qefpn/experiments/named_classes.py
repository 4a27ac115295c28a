"""Classes that a configuration names for Hydra or ``logging`` to build, and packages that it would look for
configurations in: refused before either sees them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString, Sweep
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qefpn.errors import UserError
from qefpn.parts import check_target

PLUGINS = ("hydra.launcher._target_", "hydra.sweeper._target_")
"""Hydra looks these up among the plugins that are installed, by their whole name."""
PLUGIN = re.compile(r"hydra\._internal\.core_plugins\.[\w.]+|hydra_plugins\.[\w.]+")
CALLBACKS = ("LogJobReturnCallback", "PickleJobInfoCallback")
CALLBACK = re.compile(rf"hydra\.experimental\.callbacks\.({'|'.join(CALLBACKS)})")
# one name behind the module, and a class's: logging.os.system would be reached through logging's own imports
LOGGING = re.compile(r"(logging|logging\.handlers|colorlog)\.[A-Z]\w*")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")

PARTS = (
    "solver", "residual", "adjoint", "backbone", "decoder", "loss", "edge_filter", "optimizer", "schedule", "data",
    "trainer", "callbacks", "profiler", "logger",
)  # fmt: skip
"""Groups whose options may be classes of somebody's own."""

SEARCHED = ("qefpn", "hydra")
"""Packages in which configurations may be looked for: Hydra imports what ``hydra.searchpath`` names."""

DEEPEST = 20


def refuse_foreign_classes(config: DictConfig) -> None:
    """Let no part of a composed configuration name a class but Hydra's plugins and callbacks, those of ``logging``, and
    below :data:`PARTS` those of packages that are allowed (:mod:`qefpn.parts`).

    Args:
        config: composed with Hydra's own part, ``hydra``.

    Raises:
        UserError: one line with the key and what it names. Nothing of it has been imported.
    """
    for key, value in _leaves(config, ""):
        last = key.rpartition(".")[2]
        if last == "_target_" and value is not None:
            if key.partition(".")[0] in PARTS:
                check_target(value, key)
                continue
            known = PLUGIN if key in PLUGINS else CALLBACK if key.startswith("hydra.callbacks.") else None
            if known is None or not known.fullmatch(str(value)):
                raise UserError(f"{key}={value}: a configuration may not name classes; nothing was imported")
        elif key.startswith(("hydra.job_logging.", "hydra.hydra_logging.")):
            named = last in ("class", "()") and not LOGGING.fullmatch(str(value))
            if named or (str(value).startswith("ext://") and value not in STREAMS):
                raise UserError(f"{key}={value}: only classes of logging and colorlog can be named here")


def refuse_foreign_packages(overrides: Iterable[Override]) -> None:
    """Let ``hydra.searchpath`` name directories that are there, and packages of ours and of Hydra.

    Raises:
        UserError: one line with the place. Nothing of it has been imported.
    """
    for override in overrides:
        if override.key_or_group != "hydra.searchpath":
            continue
        for place in _places(override.value()):
            scheme, separator, path = place.partition("://")
            if separator and scheme == "pkg" and path.partition(".")[0] in SEARCHED:
                continue
            if separator and scheme != "file":
                raise UserError(
                    f"hydra.searchpath={place}: configurations are not looked for in other packages, which would be "
                    "imported: give their directory (--config-dir DIR); nothing was imported"
                )
            if not Path(path if separator else place).is_dir():
                raise UserError(f"hydra.searchpath={place}: there is no such directory of configuration files")


def _places(value: object) -> Iterator[str]:
    """Every text in the value of an override, whichever way a sweep would choose."""
    if isinstance(value, Sweep):
        yield from _places(getattr(value, "list", None))
    elif isinstance(value, list):
        for one in value:
            yield from _places(one)
    elif isinstance(value, QuotedString):
        yield value.text
    elif isinstance(value, str):
        yield value


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
