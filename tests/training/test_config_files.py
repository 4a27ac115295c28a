"""config.yaml and the configuration in a checkpoint: what was written is read, and what nobody wrote is a line."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qefpn.errors import UserError
from qefpn.experiments.config_files import config_content, config_of, read_config, write_config
from qefpn.experiments.schema import (
    BackboneConfig,
    DataConfig,
    TrainConfig,
    TrainerConfig,
)
from qefpn.text import one_line

MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), database=None)
ODD = [
    "${seed}",
    "\\${seed}",
    "\\\\${x",
    "null",
    "~",
    "1e-7",
    "1_000",
    "0x1f",
    "yes",
    "2026-11-27",
    "12:30:45",
    "'",
    '"',
    "&a",
]
ODD += [
    "*a",
    "<<",
    "%YAML",
    "---",
    "...",
    "=",
    "_name_",
    "a.b",
    "-",
    "#",
    ":",
    "{}",
    "[]",
    "a: b",
    " a",
    "a\nb ",
    "\x85",
    "\0",
]
ODD += ["!!python/object:os.mkdir", "\u2028", "\ufeff", "\udcff", "\x1b[0m", "", "a" * 300, "b " * 99]
TEXTS = st.one_of(st.sampled_from(ODD), st.text(), st.text(st.characters(exclude_categories=[])))
TEXTS = TEXTS.filter(lambda text: text != "???")  # which OmegaConf takes for what is not set
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([1e-7, 5e-324, 1e22, 10**40, -(2**70), 0.1, -0.0]))
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    PLAIN, lambda v: st.one_of(st.lists(v, max_size=3), st.dictionaries(TEXTS, v, max_size=3)), max_leaves=6
)
GROUPS = st.dictionaries(TEXTS, VALUES, max_size=3)
CONFIGS = st.builds(
    TrainConfig,
    backbone=st.builds(BackboneConfig, name=TEXTS, model=st.none() | TEXTS, weights=st.none() | TEXTS, options=GROUPS),
    solver=GROUPS,
    loss=GROUPS,
    data=st.builds(
        DataConfig,
        root=TEXTS,
        test=st.none() | st.lists(TEXTS, max_size=3),
        lists=st.dictionaries(TEXTS, TEXTS, max_size=3),
        augment=st.none() | st.lists(GROUPS, max_size=2),
        num_workers=st.none() | st.integers(),
        crop=st.floats(),
    ),
    optimizer=st.fixed_dictionaries({"lr": st.floats(), "betas": st.lists(st.floats(), max_size=3)}),
    trainer=st.builds(TrainerConfig, max_epochs=st.integers(), devices=VALUES, limit_val_batches=PLAIN),
    logger=st.fixed_dictionaries({}, optional={"tags": st.lists(TEXTS, max_size=3), "run_name": st.none() | TEXTS}),
    seed=st.integers(),
    init=st.none() | TEXTS,
    monitor=TEXTS,
)


def exact(value: Any) -> Any:
    """To be compared: type and sign count, and NaN equals itself."""
    if isinstance(value, dict):
        return {key: exact(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [exact(one) for one in value]
    return repr(value) if isinstance(value, float) else (type(value), value)


@pytest.mark.slow
@MANY
@given(
    config=CONFIGS,
    ablation=st.none() | st.fixed_dictionaries({"name": TEXTS, "row": TEXTS, "place": st.integers()}),
    in_file=st.sampled_from([True, True, False]),
)
def test_what_was_written_is_read(
    config: TrainConfig, ablation: dict[str, Any] | None, in_file: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = dataclasses.replace(config, ablation=ablation)
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    if in_file:
        write_config(config, path)
        read = read_config(path)
    else:
        read = config_of(config_content(config), path)  # as a checkpoint keeps it
    assert exact(dataclasses.asdict(read)) == exact(dataclasses.asdict(config))


KEYS = [field.name for field in dataclasses.fields(TrainConfig)]
FOREIGN = st.recursive(
    st.one_of(PLAIN, st.binary(max_size=4), st.dates(), st.sets(st.integers(), max_size=2), st.complex_numbers()),
    lambda v: st.one_of(
        st.lists(v, max_size=3),
        st.tuples(v),
        st.dictionaries(st.one_of(TEXTS, st.sampled_from([*KEYS, "_target_", "root"]), st.integers()), v, max_size=4),
        st.dictionaries(st.one_of(st.none(), st.booleans(), st.floats(), st.tuples(st.integers())), v, max_size=2),
    ),
)


@MANY
@given(content=st.one_of(FOREIGN, st.dictionaries(st.sampled_from(KEYS), FOREIGN)))
@example(content={"data": {"root": "."}, "solver": {"_target_": "os.mkdir"}})
def test_what_nobody_wrote_is_read_or_a_line(content: Any) -> None:
    try:
        config = config_of(content, Path("trained.ckpt"))
    except UserError as error:  # which the command prints in one line
        assert one_line(error).strip()
        return
    assert isinstance(config, TrainConfig) and math.isfinite(config.seed)


BOMB = list(zip("abcdefghijk", "bcdefghijkl", strict=True))


@pytest.mark.slow
@MANY
@given(text=st.one_of(TEXTS, st.binary(max_size=60), FOREIGN.map(repr), st.builds("{}: {}".format, TEXTS, TEXTS)))
@example(text="a: !!python/object/apply:os.mkdir [there]")
@example(text="a: &a [*a]\nb: *a")
@example(text="data: {root: x, lists: &a {b: *a}}")
@example(text="[" * 3000)
@example(text="data: {root: ${oc.env:HOME}}")
@example(text="a: 2026-02-30")
@example(text="a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(f"{y}: &{y} [{','.join(['*' + x] * 9)}]\n" for x, y in BOMB))
def test_any_file_is_read_or_a_line(text: str | bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    try:
        read_config(path)
    except UserError as error:
        assert one_line(error).strip()


def test_numbers_are_numbers_to_any_reader_of_yaml(tmp_path: Path) -> None:
    config = TrainConfig(optimizer={"lr": 1e-7}, data=DataConfig(root="1e-7"))
    write_config(config, tmp_path / "config.yaml")
    content = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert content["optimizer"]["lr"] == 1e-7 and content["data"]["root"] == "1e-7"


@pytest.mark.parametrize("key", ["monitor", "data.test.0", "optimizer.lr", "solver.memory", "data.lists.x"])
def test_what_is_not_set_is_told(key: str) -> None:
    content: Any = config_content(TrainConfig(data=DataConfig(root=".", test=["a"])))
    node = content
    *parts, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for part in parts:
        node = node[part]
    node[last] = "???"
    shown = key.replace(".0", "[0]")
    with pytest.raises(UserError, match=f"{re.escape(shown)} is not set"):
        config_of(content, Path("config.yaml"))
