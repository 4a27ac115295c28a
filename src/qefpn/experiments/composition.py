"""Configurations as Hydra composes them: rows of ablations, what may be named, and mistakes told in one line."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hydra._internal.hydra as hydra_internals
from hydra import compose, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import GroupDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from qefpn.errors import UserError
from qefpn.experiments.ablations import (
    GROUP,
    Options,
    ablation_name,
    check_axes,
    choose_rows,
    key_of,
    with_layers,
    with_row,
)
from qefpn.experiments.command_line import CONFIG_MODULE, OPEN_KEYS, read_overrides
from qefpn.experiments.named_classes import refuse_foreign_classes
from qefpn.experiments.schema import known_keys, unknown_key
from qefpn.parts import allow
from qefpn.text import did_you_mean

__all__ = [
    "check_overrides",
    "command_config",
    "compose_config",
    "expand_rows",
    "group_options",
    "own_loader",
    "refuse_axes",
]

WHOLE = ("image_size", "batch_size", "num_workers")
"""Whole numbers whose default may be null."""
WHOLE_OF = (("analyze", "pictures"),)
"""(command, key) of such numbers that are something else elsewhere: `qefpn benchmark` takes names of pictures."""
OR_TEXT = (("predict", "threshold"), ("video", "threshold"))
"""(command, key) of numbers that may be a word."""
KINDS = {int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping"}


Accept = Callable[[DictConfig], None]


def _fine_tuning(value: Any, fresh: Any, *, _root_: DictConfig) -> Any:
    """``${fine_tuning:A,B}`` in a config file: A where ``init`` names the weights to start from, B for a fresh run."""
    chosen = fresh if OmegaConf.select(_root_, "init") is None else value
    return OmegaConf.create(chosen) if isinstance(chosen, dict | list) else chosen


OmegaConf.register_new_resolver("fine_tuning", _fine_tuning, replace=True)


class Catalogue:
    """The config files of all groups, as Hydra finds them.

    Args:
        repository: Hydra's, with the directories of ``hydra.searchpath``.
    """

    def __init__(self, repository: IConfigRepository) -> None:
        self.repository = repository

    def options(self, group: str) -> list[str]:
        """The names of a group's options; of ``ablation`` those of the ablations."""
        if not self.repository.group_exists(group):
            return []
        kind = ObjectType.GROUP if group == GROUP else ObjectType.CONFIG
        return [name for name in self.repository.get_group_options(group, kind) if not name.startswith("_")]

    def read(self, group: str, option: str) -> Options | None:
        """An option as its file has it; None where there is none."""
        found = self.repository.load_config(f"{group}/{option}") if self.repository.group_exists(group) else None
        if found is None:
            return None
        content: Any = OmegaConf.to_container(found.config, resolve=False)
        entries = [entry for entry in found.defaults_list or [] if isinstance(entry, GroupDefault)]
        choices = {str(entry.group).lstrip("/"): str(entry.value) for entry in entries if entry.is_override()}
        return Options(choices, {str(key): value for key, value in content.items()})

    def rows(self, name: str) -> list[str]:
        """The rows of an ablation in the order of its table (``ablation.place``)."""

        def place(row: str) -> tuple[float, str]:
            options = self.read(GROUP, f"{name}/{row}")
            label = None if options is None else options.values.get(GROUP)
            return float((label or {}).get("place", "inf")), row

        return sorted(self.options(f"{GROUP}/{name}"), key=place) if name else []


class Loader(ConfigLoaderImpl):
    """Hydra's own loader: what a row of an ablation fixes wins, and no class is named but what is allowed.

    It stands in Hydra's place within :func:`own_loader`: for ``hydra.main``, ``compose`` and the jobs of a sweep.

    Args:
        config_search_path: as of Hydra's.
        accept: called with what a run is composed of, before Hydra makes its directory; raises for what cannot be.
    """

    def __init__(self, config_search_path: ConfigSearchPath, accept: Accept | None = None) -> None:
        super().__init__(config_search_path)
        self.accept = accept

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        if not validate_sweep_overrides:  # hydra.main asks for hydra.mode alone, which is what -m says
            return OmegaConf.create({"hydra": {"mode": None}})
        chosen = list(overrides)
        if config_name == "train" and any(word.startswith((f"{GROUP}=", "solver=unroll")) for word in chosen):
            seen = self.catalogue(overrides)
            chosen = choose_rows(chosen, seen.rows, every=run_mode == RunMode.MULTIRUN)
            chosen = with_layers(with_row(chosen, seen.read), seen.read)
        with explained(str(config_name), chosen):
            config = super().load_configuration(config_name, chosen, run_mode, from_shell, validate_sweep_overrides)
        allow(OmegaConf.select(config, "allow"))
        refuse_foreign_classes(config)
        option = str(config.hydra.runtime.choices.get(GROUP) or "")
        if "/" in option:
            _label(config, option, self.catalogue(overrides))
        if self.accept is not None and run_mode == RunMode.RUN:
            self.accept(config)
        return config

    def catalogue(self, overrides: Sequence[str] = ()) -> Catalogue:
        """What is there, with the directories that ``hydra.searchpath`` among the overrides names."""
        searched = [word for word in overrides if word.startswith("hydra.searchpath=")]
        return Catalogue(self._parse_overrides_and_create_caching_repo("train", searched)[1])


def _label(config: DictConfig, option: str, seen: Catalogue) -> None:
    """A run's place in an ablation: ``name``, ``table`` (of the paper, or None), ``row``, ``place``."""
    name, _, row = option.partition("/")
    table = OmegaConf.select(config, f"{GROUP}.table")
    with open_dict(config):
        config[GROUP] = {"name": name, "table": table, "row": row, "place": seen.rows(name).index(row)}


@contextlib.contextmanager
def own_loader(accept: Accept | None = None) -> Iterator[None]:
    """Let Hydra load by :class:`Loader`, whoever asks it to; ``accept`` as there."""
    own = functools.partial(Loader, accept=accept)
    former, hydra_internals.ConfigLoaderImpl = hydra_internals.ConfigLoaderImpl, own
    held, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # of a program that we are called from
    try:
        yield
    finally:
        hydra_internals.ConfigLoaderImpl = former
        GlobalHydra.instance().hydra = held


def catalogue(overrides: Sequence[str] = ()) -> Catalogue:
    """The config files of all groups, those in the directories of ``hydra.searchpath=`` among the overrides too."""
    return Loader(create_config_search_path(f"pkg://{CONFIG_MODULE}")).catalogue(overrides)


def group_options(group: str, overrides: Sequence[str] = ()) -> list[str]:
    """The options of a config group, by name."""
    return catalogue(overrides).options(group)


def compose_config(name: str, arguments: Sequence[str]) -> DictConfig:
    """The config ``conf/<name>.yaml`` with the overrides applied.

    Raises:
        UserError: one line that names the key or option at fault, and what is close to it.
    """
    return _composed(name, read_overrides(arguments)[0])


def command_config(name: str, arguments: Sequence[str]) -> DictConfig:
    """As :func:`compose_config`, for commands without a schema: every value is of its default's type.

    Raises:
        UserError: as :func:`compose_config`.
    """
    known = dict(flatten(plain(_composed(name, [])), ""))
    config = compose_config(name, arguments)  # last: what it allows holds from here on
    for key, value in flatten(plain(config), ""):
        if key not in known and key.startswith(tuple(f"{one}." for one in OPEN_KEYS)):
            continue
        if key not in known:
            raise UserError(unknown_key(key, list(known)))
        default = known[key]
        kind = int if key.split(".")[-1] in WHOLE or (name, key) in WHOLE_OF else type(default)
        if value == default or kind not in KINDS:
            continue  # what is text by default may be anything: 7 is a path, too
        number = (kind is float and type(value) is int) or ((name, key) in OR_TEXT and type(value) is str)
        if not number and type(value) is not kind and not (value is None and default is None):
            raise UserError(f"{key} must be {KINDS[kind]}, not {value!r}")
    return config


def _composed(name: str, quoted: Sequence[str]) -> DictConfig:
    with own_loader(), initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        config = compose(name, overrides=list(quoted), return_hydra_config=True)
    with open_dict(config):
        del config["hydra"]
    return config


def check_overrides(name: str, arguments: Sequence[str], *, multirun: bool) -> Iterator[DictConfig]:
    """Compose what Hydra will; of a multirun one choice at a time: every choice of every axis is seen once.

    Raises:
        UserError: as :func:`compose_config`.
    """
    quoted, parsed = read_overrides(arguments)
    ablation = ablation_name(arguments)
    if ablation is not None:
        seen = catalogue(quoted)
        rows = [seen.read(GROUP, f"{ablation}/{row}") for row in seen.rows(ablation)]
        check_axes(ablation, [row for row in rows if row is not None], parsed)
    if not multirun:
        refuse_axes(quoted, parsed)
    fixed: list[str] = []
    axes: list[list[str]] = []
    for text, override in zip(quoted, parsed, strict=True):
        key = text.partition("=")[0]
        if not override.is_sweep_override():
            fixed.append(text)
        elif override.is_interval_sweep():  # of a search
            interval = override.value()
            assert isinstance(interval, IntervalSweep)
            axes.append([f"{key}={interval.start}", f"{key}={interval.end}"])
        elif not isinstance(override.value(), Glob):  # a glob names options that exist
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    first = [axis[0] for axis in axes]
    yield _composed(name, fixed + first)
    for i, axis in enumerate(axes):
        for value in axis[1:]:
            yield _composed(name, fixed + first[:i] + [value] + first[i + 1 :])


def refuse_axes(quoted: Sequence[str], parsed: Sequence[Override]) -> None:
    """Raise ``UserError`` where a word would be an axis of a sweep, and none is asked for."""
    for text, override in zip(quoted, parsed, strict=True):
        if override.is_sweep_override():
            key, _, value = text.partition("=")
            raise UserError(f"{text}: for a run each give -m too; a list is written {key}=[{value}]")


def expand_rows(overrides: Sequence[str]) -> list[str]:
    """The overrides of a multirun with an axis over the rows of its ablation: all of them where none are chosen.

    Raises:
        UserError: a row that does not exist.
    """
    return (
        choose_rows(overrides, catalogue(overrides).rows, every=True) if ablation_name(overrides) else list(overrides)
    )


@contextlib.contextmanager
def explained(name: str, quoted: Sequence[str]) -> Iterator[None]:
    """Tell what Hydra and OmegaConf refuse in one line, with what is close.

    Args:
        name: of the command's config.
        quoted: the overrides that are composed.

    Raises:
        UserError: in place of their exceptions.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, name, quoted)) from None
    except ValueError as error:  # an option that is no text
        if isinstance(error, UserError):
            raise
        for key, value in (word.lstrip("+").split("=", 1) for word in quoted if "=" in word):
            if options := group_options(key.partition("@")[0], quoted):
                with contextlib.suppress(HydraException):
                    (override,) = OverridesParser.create().parse_overrides([f"{key}={value}"])
                    if not isinstance(override.value(), str | list):
                        raise UserError(f"{key}={value} is no option; there are: {', '.join(options)}") from None
        raise


def _explain(error: Exception, name: str, quoted: Sequence[str]) -> str:
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        return _missing(str(error.missing_cfg_file), quoted)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        at = str(cause.full_key)  # where it broke off: at `not` for not.there=1
        keys = [key_of(word) for word in quoted]
        return unknown_key(next((key for key in keys if key == at or key.startswith(f"{at}.")), at), known_of(name))
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return f"{cause.full_key}: {_first_line(cause)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {_first_line(error)}"
    if cause is None:
        if (unused := _unused_group(name, quoted)) is not None:
            return unknown_key(unused, known_of(name))
        for group in ("launcher", "sweeper"):  # a plugin that brings its own schema for an option of ours
            option = next((w.partition("=")[2] for w in quoted if w.startswith(f"hydra/{group}=")), "")
            if ConfigStore.instance().repo.get("hydra", {}).get(group, {}).get(f"{option}.yaml") is not None:
                package = f"hydra-{option}-{group}"
                if catalogue().read(f"hydra/{group}", option) is not None:
                    return f"hydra/{group}={option} is ours, but {package} is installed, too: pip uninstall {package}"
    return _first_line(error if str(error).strip() or cause is None else cause)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _missing(file: str, quoted: Sequence[str]) -> str:
    """What a word names that is not there."""
    group, _, option = file.rpartition("/")
    if group.startswith("hydra/"):
        return f"{group}={option} is not there; pip install 'qefpn[sweeps]' brings joblib and submitit_local"
    options = group_options(group, quoted) if group else []
    if not options:
        return f"there is no config group {group or file!r}; --help lists the groups"
    return f"{group}={option} is no option{did_you_mean(option, options)}; there are: {', '.join(options)}"


def _unused_group(name: str, quoted: Sequence[str]) -> str | None:
    """A group that a word chooses an option of, and that the command does not have."""
    seen, own = catalogue(quoted), _choices(name)
    keys = [key_of(word).partition("@")[0] for word in quoted]
    return next((key for key in keys if key not in own and seen.repository.group_exists(key)), None)


def _choices(name: str) -> set[str]:
    with own_loader(), initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        return {str(key) for key in compose(name, return_hydra_config=True).hydra.runtime.choices}


def known_of(name: str) -> list[str]:
    """All dotted keys of a command's default config, and of the schema behind it."""
    keys = [key for key, _ in flatten(plain(_composed(name, [])), "")]
    if name == "train":
        keys += known_keys()
    return list(dict.fromkeys(keys))


def plain(config: DictConfig) -> object:
    """Its values, interpolations as they are written."""
    return OmegaConf.to_container(config, resolve=False)


def flatten(node: object, prefix: str) -> Iterator[tuple[str, object]]:
    """Dotted keys and values, those of mappings too."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}", value
            yield from flatten(value, f"{prefix}{key}.")
