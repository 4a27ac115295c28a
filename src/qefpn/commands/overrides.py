"""The command line: paths taken verbatim, Hydra's errors told in one line, composition of a command's config."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qefpn.errors import UserError

CONFIG_MODULE = "qefpn.conf"
PATH_KEYS = ("checkpoint", "input", "output", "maps", "runs", "run", "resume", "data.root", "backbone.weights", "hydra.run.dir")


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """Quote the values of keys that hold a path, since Hydra's grammar refuses or splits many file names.

    ``null`` and, for ``hydra.run.dir``, interpolations keep their meaning.
    """
    return [_quote(argument) for argument in arguments]


def _quote(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in PATH_KEYS or value in ("null", ""):
        return argument
    if key == "hydra.run.dir" and "${" in value:
        return argument
    value = value.replace("${", "\\${")
    # Within quotes a backslash is special only before a quote, so those before one, or at the end, are doubled.
    value = re.sub(r"(\\*)'", lambda m: m.group(1) * 2 + "\\'", value)
    value = re.sub(r"(\\+)$", lambda m: m.group(1) * 2, value)
    return f"{key}='{value}'"


def check_words(arguments: Sequence[str]) -> None:
    """Raise ``UserError`` for words that are neither ``key=value`` nor ``~key``."""
    for argument in arguments:
        if "=" not in argument and not argument.startswith("~"):
            raise UserError(f"{argument!r} is no option: options are written key=value; --help lists them")


def compose_config(name: str, arguments: Sequence[str]) -> DictConfig:
    """The config ``conf/<name>.yaml`` with the overrides applied.

    Raises:
        UserError: one line that names the key or option at fault, and what is close to it.
    """
    check_words(arguments)
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            return compose(name, overrides=quote_paths(arguments))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, name)) from None


def check_overrides(name: str, arguments: Sequence[str]) -> Iterator[DictConfig]:
    """Compose what a multirun would, one choice at a time: every choice of every axis is seen once."""
    check_words(arguments)
    quoted = quote_paths(arguments)
    try:
        parsed = OverridesParser.create().parse_overrides(quoted)
    except HydraException as error:
        raise UserError(explain(error, name)) from None
    plain, axes = [], []
    for text, override in zip(quoted, parsed, strict=True):
        if override.is_sweep_override():
            axes.append([f"{override.input_line.partition('=')[0]}={v}" for v in override.sweep_string_iterator()])
        else:
            plain.append(text)
    first = [axis[0] for axis in axes]
    chosen = [first] + [first[:i] + [v] + first[i + 1 :] for i, axis in enumerate(axes) for v in axis[1:]]
    for choice in chosen:
        try:
            with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
                yield compose(name, overrides=plain + choice)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain(error, name)) from None


def explain(error: Exception, name: str) -> str:
    """Hydra's and OmegaConf's messages as one line with what is close."""
    text = str(error)
    missing_option = re.search(r"Could not find '([^']+)/([^/']+)'", text)
    if missing_option:
        group, option = missing_option.groups()
        options = group_options(group)
        if options:
            close = difflib.get_close_matches(option, options, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            return f"{group}={option} is no option{hint}; there are: {', '.join(options)}"
        return f"there is no config group {group!r}; --help lists the groups"
    unknown = re.search(r"Key '([^']+)' is not in struct", text)
    override = re.search(r"Could not override '([^']+)'", text)
    if unknown or override:
        full = re.search(r"full_key: (\S+)", text)
        key = override.group(1) if override else (full.group(1) if full else unknown.group(1) if unknown else "")
        known = list(flat_keys(name))
        close = difflib.get_close_matches(key.lstrip("+"), known, n=3, cutoff=0.6)
        if not close:  # the last part alone: `max_step` for trainer.max_steps
            close = [k for k in known if difflib.get_close_matches(key.split(".")[-1], [k.split(".")[-1]], cutoff=0.8)][:3]
        hint = f"; did you mean {' or '.join(close)}?" if close else "; --help lists the keys"
        return f"unknown key {key}{hint}"
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return first


def group_options(group: str) -> list[str]:
    """The options of a config group: the files of its folder."""
    folder = Path(str(resources.files(CONFIG_MODULE))) / group
    return sorted(p.stem for p in folder.glob("*.yaml") if not p.stem.startswith("_")) if folder.is_dir() else []


def flat_keys(name: str) -> Iterator[str]:
    """All dotted keys of a command's default config, and of the schema behind it."""
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        config = compose(name)
    plain = OmegaConf.to_container(config, resolve=False)
    yield from _flatten(plain, "")
    if name == "train":
        from qefpn.training.config import known_keys

        yield from known_keys()


def _flatten(node: object, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _flatten(value, f"{prefix}{key}.")


def command_help(name: str, summary: str) -> str:
    """A command's help: what it does, then its keys with their comments, as its config file has them."""
    text = (Path(str(resources.files(CONFIG_MODULE))) / f"{name}.yaml").read_text(encoding="utf-8")
    keys = [line for line in text.splitlines() if not line.startswith(("hydra:", "defaults:", "  - "))]
    return summary.strip() + "\n\nKeys (key=value):\n\n" + "\n".join("  " + line for line in keys).rstrip()
