"""The command line: paths taken verbatim, overrides read as Hydra reads them, help from the config files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from qefpn.errors import UserError
from qefpn.experiments.named_classes import refuse_foreign_packages

CONFIG_MODULE = "qefpn.conf"
PATH_KEYS = (
    *(
        "checkpoint",
        "input",
        "output",
        "maps",
        "runs",
        "run",
        "init",
        "resume",
        "runtime",
        "data.root",
        "data.images",
        "data.masks",
    ),
    *("background", "backbone.weights", "hydra.run.dir", "hydra.sweep.dir", "download.mirror"),
)
OPEN_KEYS = ("backbone.options", "data.lists", "hydra.launcher.additional_parameters")
"""Mappings whose keys are the user's: Hydra adds to them only where told to with ``+``."""


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """The overrides as Hydra's grammar wants them.

    Values of keys that hold a path are quoted, since the grammar refuses or splits many file names; ``null``
    and, for Hydra's own directories, interpolations keep their meaning. Keys below ``OPEN_KEYS`` get their
    ``+``.
    """
    return [_quote(argument) for argument in arguments]


def _quote(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if key.startswith(OPEN_KEYS):
        key, argument = f"+{key}", f"+{argument}"
    if not equals or not _holds_path(key.lstrip("+")) or value in ("null", ""):
        return argument
    if key.startswith("hydra.") and "${" in value:
        return argument
    if value == "???":  # which OmegaConf takes for what is not set
        value = "./???"
    # OmegaConf takes ${ for an interpolation unless an odd number of backslashes precedes it.
    value = re.sub(r"(\\*)\$\{", lambda m: m.group(1) * 2 + "\\${", value)
    # Within quotes a backslash is special only before a quote: those before one, or at the end, are doubled.
    value = re.sub(r"(\\*)'", lambda m: m.group(1) * 2 + "\\'", value)
    value = re.sub(r"(\\+)$", lambda m: m.group(1) * 2, value)
    return f"{key}='{value}'"


def _holds_path(key: str) -> bool:
    return key in PATH_KEYS or key.startswith("data.lists.")


def read_overrides(arguments: Sequence[str]) -> tuple[list[str], list[Override]]:
    """The overrides quoted, and what Hydra reads in them.

    Raises:
        UserError: for overrides that are neither ``key=value`` nor ``~key``, and values that cannot be read.
    """
    for argument in arguments:
        if argument.startswith("-"):
            raise UserError(f"unknown option {argument}: options are written key=value; --help lists them")
        if "=" not in argument and not argument.startswith("~"):
            raise UserError(f"{argument!r} is no option: options are written key=value; --help lists them")
    parser, parsed = OverridesParser.create(), []
    quoted = quote_paths(arguments)
    for argument, text in zip(arguments, quoted, strict=True):
        try:
            parsed += parser.parse_overrides([text])
        except HydraException as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise UserError(f"{argument}: the value cannot be read ({reason}); quotes may help") from None
    refuse_foreign_packages(parsed)
    return quoted, parsed


def parse_overrides(arguments: Sequence[str]) -> list[Override]:
    """What Hydra reads in the overrides, one override a word.

    Raises:
        UserError: for overrides that cannot be read.
    """
    return read_overrides(arguments)[1]


def command_help(name: str, summary: str) -> str:
    """A command's help: what it does, then its keys with their comments, as its config file has them."""
    files = [f"{name}.yaml", *(f"{one}.yaml" for one in _defaults(name) if isinstance(one, str) and one != "_self_")]
    keys = "\n".join(f"  {line}" for file in files for line in _own_keys(file))
    return f"{summary.strip()}\n\nKeys (key=value):\n\n{keys}"


def _defaults(name: str) -> list[Any]:
    """The defaults list of a command's config file."""
    return list(yaml.safe_load(_conf(f"{name}.yaml").read_text(encoding="utf-8")).get("defaults", []))


def train_help(summary: str) -> str:
    """As :func:`command_help`, with the groups: their options, and the keys of the default."""
    text = [summary.strip(), "", "Keys (key=value):", ""]
    files = ("train.yaml", "base.yaml", "sets.yaml")
    text += [f"  {line}" for file in files for line in _own_keys(file)]
    text += ["", "Groups (group=option), each with the keys of its default:", ""]
    for entry in _defaults("train"):
        if isinstance(entry, dict) and not next(iter(entry)).startswith("override "):
            ((group, option),) = entry.items()
            text.append(f"  {group}={'|'.join(packaged_options(group))}")
            if option is not None:
                text.append(f"    {group}: # {option}")
                text += [f"      {line}" for line in _own_keys(f"{group}/{option}.yaml")]
    return "\n".join(text)


def packaged_options(group: str) -> list[str]:
    """The options of a group that come with the package; of ``ablation`` the ablations."""
    places = [place for place in _conf(group).iterdir() if place.suffix == ".yaml" or group == "ablation"]
    return sorted(place.stem for place in places if not place.stem.startswith("_"))


def _conf(path: str) -> Path:
    return Path(str(resources.files(CONFIG_MODULE))) / path


def _own_keys(path: str) -> list[str]:
    """A config file's text without what is Hydra's own."""
    lines, skipped = [], False
    for line in _conf(path).read_text(encoding="utf-8").strip().splitlines():
        if line[:1] not in (" ", "-", ""):
            skipped = line.startswith(("hydra:", "defaults:"))
        if not skipped:
            lines.append(line)
    return "\n".join(lines).strip().splitlines()


def process_rank() -> int:
    """Of this process among those of the run: as torchrun, Lightning or srun started it, in Lightning's order. Slurm's
    number is also in the environment of what a task starts itself."""
    for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if key in os.environ:
            return int(os.environ[key])
    return 0
