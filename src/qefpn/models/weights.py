"""A backbone's weights from a local file, whoever saved it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qefpn.errors import UserError
from qefpn.models.packed import SUFFIX, read_packed
from qefpn.parts import check_target

logger = logging.getLogger(__name__)

CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "backbone", "net")
PREFIXES = ("_orig_mod.", "module.", "network.", "model.", "backbone.", "encoder.", "trunk.", "net.")


def read_checkpoint(path: str | Path) -> Any:
    """What ``torch.load(weights_only=True)`` reads from ``path``, or :func:`~qefpn.models.packed.read_packed` from a
    .safetensors file; anything else is a ``UserError``."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file" if not path.exists() else f"{path}: is not a file")
    if path.suffix == SUFFIX:
        return read_packed(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: is no PyTorch file of tensors and plain values alone; it is not loaded") from error
    except Exception as error:  # the unpickler raises anything on bytes that are no pickle
        raise UserError(f"{path}: cannot be read as a PyTorch file ({_first_line(error)})") from error


DEEPEST, MOST = 20, 100_000
"""Levels and values of a configuration at most."""


def refuse_named_classes(content: Any, path: str | Path) -> None:
    """Let no part of what a checkpoint or a config.yaml holds name a class of a package that is not allowed here
    (:mod:`qefpn.parts`): none is looked up, wherever it stands.

    Args:
        content: mappings, lists and plain values.
        path: the file that they are from, for the error message.

    Raises:
        UserError: one line with the key; or the content is nested without end.
    """
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    seen = 0
    while waiting:
        prefix, node, depth = waiting.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST:  # a pickle may hold itself; so may YAML, and one part ten times, ten times
            raise UserError(f"{path}: {prefix[:60]}... is nested too deeply for a configuration")
        if isinstance(node, Mapping):
            for key, value in node.items():
                if key == "_target_" and value is not None:
                    check_target(value, f"{path}: {prefix}_target_")
                waiting.append((f"{prefix}{key}.", value, depth + 1))
        elif isinstance(node, list | tuple):
            waiting += [(f"{prefix}{number}.", value, depth + 1) for number, value in enumerate(node)]


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def find_state(content: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint, out of whatever container; empty if there are none."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        content = inner
    return {}


def _candidates(key: str) -> list[str]:
    """Names under which a backbone here may hold what a file calls ``key``.

    timm's feature extractors rename: ``stages.0.x`` becomes ``stages_0.x`` and transformers are kept under
    ``model.``.
    """
    names = [key]
    while prefix := next((p for p in PREFIXES if names[-1].startswith(p)), ""):
        names.append(names[-1][len(prefix) :])
    return [variant for name in names for variant in (name, name.replace(".", "_", 1), f"model.{name}")]


def load_backbone_file(trunk: nn.Module, path: str | Path, name: str) -> tuple[int, int]:
    """Fill ``trunk`` from ``path``.

    Common prefixes (``module.``, ``model.``, ``backbone.``, ...) are taken off; what the trunk has no place
    for (a classifier) is left out.

    Returns:
        How many of the trunk's entries were filled, and how many it has (counters of batch norms aside).

    Raises:
        UserError: the file is no PyTorch file, or does not fill the whole trunk, or has another shape
            somewhere.
    """
    state = find_state(read_checkpoint(path))
    if not state:
        raise UserError(f"{path}: holds no tensors by name; backbone.weights takes a state dict or a checkpoint")
    own = trunk.state_dict()
    wanted = {key for key in own if not key.endswith("num_batches_tracked")}
    matched: dict[str, Tensor] = {}
    for key, value in state.items():
        target = next((c for c in _candidates(key) if c in own and c not in matched), None)
        if target is None:
            continue
        if own[target].shape != value.shape:
            raise UserError(
                f"{path}: does not fit {name}: {key} is {tuple(value.shape)}, {tuple(own[target].shape)} is needed"
            )
        matched[target] = value
    missing = sorted(wanted - matched.keys())
    filled = len(wanted) - len(missing)
    if missing:
        raise UserError(
            f"{path}: does not fit {name}: {filled} of {len(wanted)} entries matched; missing is for one {missing[0]}"
        )
    trunk.load_state_dict(matched, strict=False)
    logger.info("%s: %d of %d entries of %s matched", path, filled, len(wanted), name)
    return filled, len(wanted)
