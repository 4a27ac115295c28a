"""The configuration of a run as a file: what config.yaml and checkpoints hold, written and read again."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities import rank_zero_only

from qefpn.atomic import write_atomic
from qefpn.errors import UserError
from qefpn.experiments.schema import TrainConfig, parse_config
from qefpn.models.weights import refuse_named_classes


@rank_zero_only
def write_config(config: TrainConfig, path: Path) -> None:
    """The resolved configuration as YAML, whole or not at all."""
    content = config_content(config)
    write_atomic(path, yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


class _Dumper(yaml.SafeDumper):
    """PyYAML writes a NEL as it is, and reads it as a blank; quoted like this it is an escape."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if "\x85" in data else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def config_content(config: TrainConfig) -> dict[str, Any]:
    """What config.yaml and the checkpoints of a run hold: plain values."""
    content = dataclasses.asdict(config)
    if content["ablation"] is None:
        del content["ablation"]
    return content


def read_config(path: Path) -> TrainConfig:
    """What :func:`write_config` wrote.

    Raises:
        UserError: no YAML, or keys and values that this version does not know.
    """
    return config_of(_read_yaml(path), path)


def config_of(content: Any, path: Path) -> TrainConfig:
    """The plain values of a config.yaml, or of a checkpoint, as a configuration.

    Args:
        content: mappings, lists and plain values.
        path: the file that they are from, for the error messages.

    Raises:
        UserError: keys and values that this version does not know; a class that is named; no mapping at all.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no configuration of qefpn train")
    refuse_named_classes(content, path)
    content = content | {"callbacks": _named_callbacks(content.get("callbacks"))}
    if isinstance(content.get("logger"), dict):  # of earlier versions, which had one by its name: it has ended
        content["logger"] = {key: value for key, value in content["logger"].items() if key != "name"}
    try:
        config = OmegaConf.create(verbatim(content))
    except OmegaConfBaseException as error:  # tensors, sets and the like
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from None
    return parse_config(config)


def _named_callbacks(content: Any) -> Any:
    """Callbacks as they are written now; earlier versions had one at most, by its name."""
    former = content if isinstance(content, dict) else {}
    if former.get("name") == "ema":
        options = {key: value for key, value in former.items() if key != "name"}
        return {"ema": {"_target_": "qefpn.training.averaging.AveragedWeights"} | options}
    return {} if content is None or former.get("name") == "none" else content


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError):  # no text; a 30th of February; brackets without end
        raise UserError(f"{path} is no YAML file") from None


def verbatim(node: Any) -> Any:
    """Values as they are: OmegaConf would take ``${`` in a path for an interpolation."""
    if isinstance(node, dict):
        return {key: verbatim(value) for key, value in node.items()}
    if isinstance(node, list):
        return [verbatim(value) for value in node]
    return re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", node) if isinstance(node, str) else node
