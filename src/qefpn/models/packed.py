"""A trained network in two files, without pickle: NAME.safetensors and NAME.json, its card.

The card says what the network is (arguments of ``QEFPN``, side of its pictures), how it came about (data and its terms,
command, commit), what it scores, and the sha256 of the tensors. Weights of two dimensions and more are kept in float16,
norms and biases in float32: half the size, and no statistic of a batch norm leaves the range of its type. For a hub or
a web server the card is in the .safetensors file as well, so that one sha256 stands for all of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from qefpn.atomic import atomic_file, write_atomic
from qefpn.errors import UserError
from qefpn.text import did_you_mean

SUFFIX = ".safetensors"
FOLDER = Path(str(resources.files("qefpn"))) / "pretrained"
DEFAULT = "mobile"
"""The network that is meant where none is named."""
MODEL = f"model{SUFFIX}"
"""The file of a network in a folder for a hub (``qefpn export format=hub``)."""
HUB = "hub:"
"""What ``hub:owner/name`` begins with, a network of a hub."""

PREFIX = "network."
EMBEDDED = "qefpn"
"""Entry of a .safetensors file's metadata that holds its card."""
NEEDED = ("name", "sha256", "network", "image_size", "data", "licence", "recipe", "scores")


def shipped() -> dict[str, Path]:
    """Name → file of the networks that come with the package."""
    return {path.stem: path for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


def is_remote(given: object) -> bool:
    """Whether it is ``hub:owner/name`` or an address, and no file of this machine."""
    return isinstance(given, str) and given.startswith((HUB, "https://", "http://"))


def network_file(given: str | Path | None) -> Path:
    """The file of a network: a path as it is, a folder's :data:`MODEL`, one that comes with the package by its name,
    or what ``hub:owner/name`` or an address with its sha256 names, fetched (:mod:`qefpn.models.remote`); ``None`` for
    :data:`DEFAULT`.

    Raises:
        UserError: no file is there, no network of that name comes with the package, or it cannot be fetched.
    """
    if is_remote(given):
        from qefpn.models.remote import fetched  # which reads packed networks itself

        return fetched(str(given))
    there = shipped()
    name = DEFAULT if given is None else str(given)
    path = Path(name).expanduser()
    if given is not None and (path.exists() or path.name != name or path.suffix):
        return path / MODEL if (path / MODEL).is_file() else path
    if name in there:
        return there[name]
    raise unknown_network(name, "; or give a checkpoint's file")


def is_borrowed(given: str | Path | None) -> bool:
    """Whether :func:`network_file` finds it in the package or in a cache, where nothing is written beside it."""
    return is_remote(given) or network_file(given) in shipped().values()


def unknown_network(name: str, way_out: str = "") -> UserError:
    """What to say of a name that no network of the package has."""
    there = shipped()
    listed = f"there are: {', '.join(there)}" if there else "none comes with this version"
    return UserError(f"no network {name!r} comes with the package{did_you_mean(name, there)}; {listed}{way_out}")


def read_card(path: Path) -> dict[str, Any]:
    """The card of a packed network.

    Args:
        path: of the .safetensors file.

    Raises:
        UserError: it is missing, or is none.
    """
    file = path.with_suffix(".json")
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{file}: the card of {path.name} is missing; both files belong together") from None
    except ValueError:
        card = None
    missing = [key for key in NEEDED if key not in card] if isinstance(card, dict) else list(NEEDED)
    if missing:
        raise UserError(f"{file}: is no card of a network (it says nothing of {missing[0]})")
    assert isinstance(card, dict)
    return card


def read_packed(path: Path) -> dict[str, Any]:
    """What a checkpoint holds that is needed to use its network.

    Args:
        path: of the .safetensors file. Where it has no card it is anybody's, and only its tensors are given.

    Raises:
        UserError: a file that cannot be read, or that is not the one that its card describes.
    """
    data = path.read_bytes()
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be read as a safetensors file ({error})") from None
    if not path.with_suffix(".json").exists():
        return {"state_dict": tensors}
    card = read_card(path)
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise UserError(f"{path}: is not the file that {path.stem}.json describes (its sha256 is another)")
    return {
        "state_dict": {
            f"{PREFIX}{key}": value.float() if value.is_floating_point() else value for key, value in tensors.items()
        },
        "hyper_parameters": {"network": card["network"], "image_size": card["image_size"]},
        "qefpn": {key: card[key] for key in ("config", "budgets") if key in card},
    }


def embedded_card(path: Path) -> dict[str, Any] | None:
    """The card in a .safetensors file, without its sha256; None where there is none.

    Raises:
        UserError: a file that cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {}).get(EMBEDDED, "null"))
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a safetensors file ({error})") from None
    return card if isinstance(card, dict) else None


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """Write the card of the .safetensors file ``path``."""
    write_atomic(path.with_suffix(".json"), json.dumps(card, indent=1, ensure_ascii=False) + "\n")


def write_packed(content: Mapping[str, Any], path: Path, about: Mapping[str, Any], *, embed: bool = False) -> None:
    """Write a network and its card.

    Args:
        content: of a checkpoint of ``qefpn train``.
        path: of the .safetensors file; the card goes beside it.
        about: what the card says besides: ``data``, ``licence``, ``recipe``, ``scores``; further keys replace its own.
        embed: put the card into the .safetensors file as well.
    """
    state = {key.removeprefix(PREFIX): value for key, value in content["state_dict"].items() if key.startswith(PREFIX)}
    tensors = {
        key: (value.half() if value.is_floating_point() and value.ndim > 1 else value).contiguous()
        for key, value in state.items()
    }
    settings = content["hyper_parameters"]
    card = {
        "name": path.stem,
        "sha256": "",
        "network": {**settings["network"], "weights": None},
        "image_size": settings["image_size"],
        **about,
    }
    inside = {key: value for key, value in card.items() if key != "sha256"}
    data = save(tensors, {EMBEDDED: json.dumps(inside, ensure_ascii=False)} if embed else None)
    with atomic_file(path) as part:
        part.write_bytes(data)
    write_card(path, card | {"sha256": hashlib.sha256(data).hexdigest()})


def packable(content: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """A checkpoint's content for pictures of a side, in float32 on any machine, and without its owner's places."""
    settings = content["hyper_parameters"]
    network = {**settings["network"], "block_dtype": "float32"}
    own = dict(content.get("qefpn") or {})
    if isinstance(own.get("config"), Mapping):
        config = {**own["config"], "init": None, "resume": None, "logger": {}}
        places: dict[str, Any] = {"root": "of-the-run", "images": None, "masks": None, "lists": {}}
        config["data"] = {**config["data"], **places, "image_size": image_size}
        config["pyramid"] = {**config["pyramid"], "block_dtype": "float32"}
        backbone = config["backbone"]
        if backbone.get("weights") not in (None, "DEFAULT"):
            config["backbone"] = {**backbone, "weights": None}
        own["config"] = config
    return {
        **content,
        "hyper_parameters": {**settings, "network": network, "image_size": image_size},
        "qefpn": own,
    }
