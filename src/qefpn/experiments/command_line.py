"""The command line: paths taken verbatim, a command's config composed, Hydra's errors told in one line."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from qefpn.errors import UserError
from qefpn.experiments.ablations import OWN_KEYS, ablation_name, check_axes, row_label, with_layers, with_row
from qefpn.experiments.named_classes import refuse_foreign_classes, refuse_foreign_packages
from qefpn.parts import allow

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
        "data.root",
        "data.images",
        "data.masks",
    ),
    *("backbone.weights", "hydra.run.dir", "hydra.sweep.dir", "download.mirror"),
)
WHOLE = ("image_size", "batch_size", "num_workers")
"""Whole numbers whose default may be null."""
KINDS = {int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping"}
OPEN_KEYS = ("backbone.options", "data.lists", "hydra.launcher.additional_parameters")
"""Mappings whose keys are the user's: Hydra adds to them only where told to with ``+``."""


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """The words as Hydra's grammar wants them.

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


def _parsed(arguments: Sequence[str]) -> tuple[list[str], list[Override]]:
    """The words quoted, and what Hydra reads in them.

    Raises:
        UserError: for words that are neither ``key=value`` nor ``~key``, and values that cannot be read.
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
    """What Hydra reads in the words, one override a word.

    Raises:
        UserError: for words that cannot be read.
    """
    return _parsed(arguments)[1]


def compose_config(name: str, arguments: Sequence[str]) -> DictConfig:
    """The config ``conf/<name>.yaml`` with the overrides applied.

    Raises:
        UserError: one line that names the key or option at fault, and what is close to it.
    """
    return _composed(name, _parsed(arguments)[0])


def command_config(name: str, arguments: Sequence[str]) -> DictConfig:
    """As :func:`compose_config`, for commands without a schema: every value is of its default's type.

    Raises:
        UserError: as :func:`compose_config`.
    """
    known = dict(_flatten(_plain(_composed(name, [])), ""))
    config = compose_config(name, arguments)  # last: what it allows holds from here on
    for key, value in _flatten(_plain(config), ""):
        if key not in known and key.startswith(tuple(f"{one}." for one in OPEN_KEYS)):
            continue
        if key not in known:
            raise UserError(_unknown(key, list(known)))
        default = known[key]
        kind = int if key.split(".")[-1] in WHOLE else type(default)
        if value == default or kind not in KINDS:
            continue  # what is text by default may be anything: 7 is a path, too
        number = kind is float and type(value) is int
        if not number and type(value) is not kind and not (value is None and default is None):
            raise UserError(f"{key} must be {KINDS[kind]}, not {value!r}")
    return config


def _plain(config: DictConfig) -> object:
    return OmegaConf.to_container(config, resolve=False)


def _composed(name: str, quoted: list[str]) -> DictConfig:
    config, _ = compose_run(name, quoted)
    return config


def compose_run(name: str, quoted: Sequence[str]) -> tuple[DictConfig, dict[str, Any] | None]:
    """The config with the overrides (quoted) and the options of its ablation's row, and that row's label.

    What concerns a sweep alone is taken out of it. Inside a job of Hydra's, Hydra's own loader composes.

    Raises:
        UserError: as :func:`compose_config`; an ablation without a row.
    """
    label = row_label(quoted) if name == "train" else None
    words = list(quoted) if label is None else with_row(quoted, label["name"], label["row"])
    config = _compose_words(name, with_layers(words) if name == "train" else words)
    with open_dict(config):
        for key in OWN_KEYS:
            config.pop(key, None)
    return config, label


def task_words(settings: DictConfig) -> list[str]:
    """The overrides of a job as they were given to Hydra: reading them one by one would resolve what is escaped.

    Args:
        settings: the job's ``HydraConfig``.
    """
    words = OmegaConf.to_container(settings.overrides.task, resolve=False)
    own = OmegaConf.to_container(settings.overrides.hydra, resolve=False)
    assert isinstance(words, list) and isinstance(own, list)
    searched = [str(word) for word in own if str(word).startswith("hydra.searchpath=")]  # where options may lie
    return [*searched, *(str(word) for word in words)]


def _compose_words(name: str, quoted: list[str]) -> DictConfig:
    try:
        with contextlib.ExitStack() as stack:
            if not GlobalHydra.instance().is_initialized():
                stack.enter_context(initialize_config_module(CONFIG_MODULE, version_base="1.3"))
            config = compose(name, overrides=quoted, return_hydra_config=True)
            allow(OmegaConf.select(config, "allow"))
            refuse_foreign_classes(config)
            with open_dict(config):
                del config["hydra"]
            return config
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, name)) from None
    except ValueError as error:  # an option that is no text
        if isinstance(error, UserError) or "Config group override" not in str(error):
            raise
        for key, value in (word.lstrip("+").split("=", 1) for word in quoted if "=" in word):
            if options := group_options(key.partition("@")[0]):
                with contextlib.suppress(HydraException):
                    (override,) = OverridesParser.create().parse_overrides([f"{key}={value}"])
                    if not isinstance(override.value(), str | list):
                        raise UserError(f"{key}={value} is no option; there are: {', '.join(options)}") from None
        raise UserError(str(error)) from None


def check_overrides(name: str, arguments: Sequence[str], *, multirun: bool) -> Iterator[DictConfig]:
    """Compose what Hydra will; of a multirun one choice at a time: every choice of every axis is seen once.

    Raises:
        UserError: as :func:`compose_config`.
    """
    quoted, parsed = _parsed(arguments)
    ablation = ablation_name(arguments)
    if ablation is not None:
        check_axes(ablation, parsed)
    plain: list[str] = []
    axes: list[list[str]] = []
    for text, override in zip(quoted, parsed, strict=True):
        if not override.is_sweep_override():
            plain.append(text)
        elif not multirun:
            raise UserError(f"{text}: for a run each give -m too; a list is written {_as_list(text)}")
        elif override.is_interval_sweep():  # of a search
            key, interval = text.partition("=")[0], override.value()
            assert isinstance(interval, IntervalSweep)
            axes.append([f"{key}={interval.start}", f"{key}={interval.end}"])
        elif not isinstance(override.value(), Glob):  # a glob names options that exist
            key = text.partition("=")[0]
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    first = [axis[0] for axis in axes]
    yield _composed(name, plain + first)
    for i, axis in enumerate(axes):
        for value in axis[1:]:
            yield _composed(name, plain + first[:i] + [value] + first[i + 1 :])


def _as_list(text: str) -> str:
    key, _, value = text.partition("=")
    return f"{key}=[{value}]"


def explain(error: Exception, name: str) -> str:
    """Hydra's and OmegaConf's messages as one line with what is close."""
    text = str(error)
    missing_option = re.search(r"Could not (?:find|load) '([^']+)/([^/']*)'", text)
    if missing_option:
        group, option = missing_option.groups()
        options = group_options(group)
        if group.startswith("hydra/"):
            return f"{group}={option} is not there; pip install 'qefpn[sweeps]' brings joblib and submitit_local"
        if options:
            close = difflib.get_close_matches(option, options, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            return f"{group}={option} is no option{hint}; there are: {', '.join(options)}"
        return f"there is no config group {group!r}; --help lists the groups"
    foreign = re.search(r"'hydra/(\w+)/(\w+)' is validated against ConfigStore", text)
    if foreign:
        package = f"hydra-{foreign[2]}-{foreign[1]}"
        return f"hydra/{foreign[1]}={foreign[2]} is ours, but {package} is installed, too: pip uninstall {package}"
    unknown = re.search(r"Key '([^']+)' is not in struct", text)
    override = re.search(r"Could not override '([^']+)'", text)
    group = re.search(r"No match in the defaults list|Could not find match", text) and text.split("'")[1]
    if unknown or override or group:
        full = re.search(r"full_key: (\S+)", text)
        key = override[1] if override else full[1] if full else unknown[1] if unknown else str(group)
        return _unknown(key.lstrip("+"), list(dict.fromkeys(flat_keys(name))))
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def _unknown(key: str, known: list[str]) -> str:
    if key.startswith("trainer."):
        from qefpn.experiments.schema import owned_key

        if (owned := owned_key(key)) is not None:
            return owned
    known = [name for name in known if name != key]
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    if not close:  # the last part alone: `max_step` for trainer.max_steps
        last = {name: name.split(".")[-1] for name in known}
        near = difflib.get_close_matches(key.split(".")[-1], list(last.values()), n=3, cutoff=0.8)
        close = [name for name in known if last[name] in near][:3]
    return f"unknown key {key}" + (f"; did you mean {' or '.join(close)}?" if close else "; --help lists the keys")


def group_options(group: str) -> list[str]:
    """The options of a config group: the files of its folder."""
    folder = _conf(group)
    return sorted(p.stem for p in folder.glob("*.yaml") if not p.stem.startswith("_")) if folder.is_dir() else []


def flat_keys(name: str) -> Iterator[str]:
    """All dotted keys of a command's default config, and of the schema behind it."""
    yield from dict(_flatten(_plain(_composed(name, [])), ""))
    if name == "train":
        from qefpn.experiments.schema import known_keys

        yield from known_keys()


def _flatten(node: object, prefix: str) -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}", value
            yield from _flatten(value, f"{prefix}{key}.")


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
            text.append(f"  {group}={'|'.join(group_options(group))}")
            if option is not None:
                text.append(f"    {group}: # {option}")
                text += [f"      {line}" for line in _own_keys(f"{group}/{option}.yaml")]
    return "\n".join(text)


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
