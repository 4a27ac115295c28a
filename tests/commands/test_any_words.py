"""Any text: as a path it is parsed as it was given, as a word it composes or is one line."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from qefpn.errors import UserError
from qefpn.experiments.command_line import PATH_KEYS, parse_overrides
from qefpn.experiments.composition import check_overrides, command_config, compose_config, group_options
from qefpn.experiments.config_files import config_content
from qefpn.experiments.schema import known_keys, parse_config
from qefpn.text import one_line

MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), database=None)
GRAMMAR = "'\"\\$#{}[]()=,:;~*?!%&|<>@^+-. \t"
ANY = st.text(st.one_of(st.sampled_from(GRAMMAR), st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
AWKWARD = st.lists(
    st.sampled_from(["${seed}", "${oc.env:HOME}", "\\", "'", '"', "null", "???", "a", " ", "é", "=", ","])
)
TEXTS = st.one_of(ANY, AWKWARD.map("".join))
PATHS = TEXTS.filter(lambda text: text not in ("", "null", "???"))  # nothing, none, not set
TAKEN = [key for key in PATH_KEYS if not key.startswith("hydra.")]


@MANY
@given(key=st.sampled_from([*TAKEN, "data.lists.X"]), path=PATHS)
def test_any_path_is_parsed_as_it_was_given(key: str, path: str) -> None:
    (parsed,) = parse_overrides([f"{key}={path}"])
    assert OmegaConf.create({"value": parsed.value()}).value == path


def test_a_file_that_is_called_as_what_is_not_set() -> None:
    assert parse_config(compose_config("train", ["data.root=???"])).data.root == "./???"


KEYS = ["seed", "solver", "solver.rtol", "backbone", "backbone.options", "data.lists", "data.augment", "experiment"]
KEYS += ["trainer.devices", "logger.tags", "hydra.job.name", "hydra/launcher", "hydra.searchpath", "sweep", "defaults"]
KEYS += ["ablation", "data.test", "pyramid.levels", "schedule", "loss.edge", "hydra.callbacks", "hydra.sweep.subdir"]
WORDS = st.one_of(
    TEXTS,
    st.builds("{}={}".format, TEXTS, TEXTS),
    st.builds("{}{}={}".format, st.sampled_from(["", "+", "++", "~"]), st.sampled_from(KEYS), TEXTS),
    st.builds("{}{}.{}={}".format, st.sampled_from(["", "+", "++", "~"]), st.sampled_from(KEYS), TEXTS, TEXTS),
)


@pytest.mark.slow
@pytest.mark.parametrize("multirun", [False, True])
@MANY
@given(word=WORDS)
@example(word="solver=${solver}")
@example(word="+a=${oc.env:NOT_THERE}")
@example(word="seed=???")
@example(word="data.lists={a: ${data.lists}}")
@example(word="hydra={}")
@example(word="~hydra")
@example(word="hydra.launcher=null")
def test_any_word_composes_or_is_one_line(multirun: bool, word: str) -> None:
    try:
        for composed in check_overrides("train", ["data.root=pictures", word], multirun=multirun):
            parse_config(composed)
    except UserError as error:  # which the command prints in one line
        assert one_line(error).strip()
    try:
        command_config("predict", [word])
    except UserError as error:  # which the command prints in one line
        assert one_line(error).strip()


def some_words() -> st.SearchStrategy[list[str]]:
    """Overrides as people mix them: options of groups, keys with values of any kind, and garbage."""
    groups = {group.name: group_options(group.name) for group in Path(str(files("qefpn.conf"))).iterdir()}
    groups = {name: options for name, options in groups.items() if options and name not in ("hydra", "ablation")}
    option = st.one_of(
        *(st.builds("{}={}".format, st.just(g), st.sampled_from([*o, "null"])) for g, o in groups.items())
    )
    values = [
        "0",
        "-1",
        "1e-7",
        "inf",
        "nan",
        "true",
        "null",
        "[]",
        "{}",
        "[1,2]",
        "{a: 1}",
        "a",
        "1" * 40,
        "''",
        "???",
    ]
    known = st.builds(
        "{}{}={}".format,
        st.sampled_from(["", "", "", "+", "++"]),
        st.sampled_from([*known_keys(), "backbone.options.x", "data.lists.x", "solver.rtol", "adjoint.solver.name"]),
        st.one_of(st.sampled_from(values), TEXTS),
    )
    return st.lists(st.one_of(option, option, known, known, WORDS), min_size=1, max_size=5)


@pytest.mark.slow
@MANY
@given(given=some_words())
@example(given=["seed=???"])
@example(given=["trainer=null"])
@example(given=["solver=null", "adjoint=null"])
def test_any_words_together_compose_or_are_one_line(given: list[str]) -> None:
    try:
        for composed in check_overrides("train", ["data.root=pictures", *given], multirun=False):
            assert isinstance(config_content(parse_config(composed)), dict)
    except UserError as error:  # which the command prints in one line
        assert one_line(error).strip()
