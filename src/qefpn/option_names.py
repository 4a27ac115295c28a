"""Short names of the options that come with the program, beside the ``_target_`` that each is built from.

Reports and tables show the names. Configurations of versions up to 0.1.0 held them in place of a ``_target_``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TARGET, PARTIAL = "_target_", "_partial_"
_IMPLICIT, _LOSSES, _TRAINING, _DECODER = "qefpn.implicit", "qefpn.losses", "qefpn.training", "qefpn.models.decoder"

TARGETS: dict[str, dict[str, str]] = {
    "solver": {
        "anderson": f"{_IMPLICIT}.Anderson",
        "broyden": f"{_IMPLICIT}.Broyden",
        "fixed_point": f"{_IMPLICIT}.FixedPointIteration",
        "unroll": f"{_IMPLICIT}.Unroll",
    },
    "residual": {
        "equilibrium": f"{_IMPLICIT}.Equilibrium",
        "literal": f"{_IMPLICIT}.LiteralQuasiEquilibrium",
        "quasi": f"{_IMPLICIT}.QuasiEquilibrium",
    },
    "adjoint": {
        "implicit": f"{_IMPLICIT}.ImplicitAdjoint",
        "jacobian_free": f"{_IMPLICIT}.JacobianFreeAdjoint",
        "phantom": f"{_IMPLICIT}.PhantomAdjoint",
        "shine": f"{_IMPLICIT}.ShineAdjoint",
        "unrolled": f"{_IMPLICIT}.UnrolledAdjoint",
    },
    "decoder": {
        "cross_feature": f"{_DECODER}.CrossFeatureDecoder",
        "fpn": f"{_DECODER}.TopDownDecoder",
        "sum": f"{_DECODER}.SumDecoder",
    },
    "edge_filter": {
        name: f"{_LOSSES}.filters.{name}" for name in ("frei_chen", "laplacian", "prewitt", "scharr", "sobel")
    },
    "loss": {
        "low_level_edges": f"{_LOSSES}.LowLevelEdgesLoss",
        "no_edges": f"{_LOSSES}.NoEdgesLoss",
        "paper": f"{_LOSSES}.PaperLoss",
        "ssim": f"{_LOSSES}.SSIMLoss",
        "weighted_iou": f"{_LOSSES}.WeightedIoULoss",
    },
    "optimizer": {name: f"{_TRAINING}.optimizers.{name}" for name in ("adamw", "muon", "sgd")},
    "schedule": {name: f"{_TRAINING}.schedule.{name}" for name in ("constant", "cosine", "linear")},
}
"""Group → name → ``_target_``."""

FACTORIES = ("optimizer", "schedule")
"""Groups whose options are called later on: Hydra fills in what is known (``_partial_: true``)."""

FOREIGN = {"adamw": ("momentum", "nesterov"), "sgd": ("betas",)}
"""Keys of other optimizers that stood beside each one's own in the configurations of earlier versions."""

USUAL = {
    "backbone": "qefpn.models.build_backbone",
    "data": "qefpn.data.SaliencyDataModule",
    "trainer": "pytorch_lightning.Trainer",
}
"""Group → the ``_target_`` of all options that come with the program."""

_NO_SEARCH = (False, "no experiment showed its worth; solver.alpha=0.5 takes shorter steps")
REMOVED: dict[str, tuple[Any, str]] = {
    "pyramid.start": ("zero", "training solves start from zero"),
    "start": ("zero", "training solves start from zero"),
    "solver.line_search": _NO_SEARCH,
    "adjoint.solver.line_search": _NO_SEARCH,
}
"""Keys of earlier versions, in configurations and among the arguments of a network, that are gone: the value that
stands for what is done now, and what to do in place of any other."""

OPTION_TARGETS = {*USUAL.values(), *(target for group in TARGETS.values() for target in group.values())}

_NAMES = {target: name for group in TARGETS.values() for name, target in group.items()}


def option_name(node: Any) -> str | None:
    """What an option is called: its ``name``, else that of its ``_target_``, else the class's own; None of neither.

    >>> option_name({"_target_": "qefpn.implicit.Broyden", "max_steps": 8}), option_name({"_target_": "mine.Solver"})
    ('broyden', 'Solver')
    """
    if not isinstance(node, Mapping):
        return None
    name, target = node.get("name"), node.get(TARGET)
    if name is not None:
        return str(name)
    return None if target is None else _NAMES.get(str(target), str(target).rpartition(".")[2])


def removed_key(key: str) -> str | None:
    """One line for a key that is gone; None for any other."""
    return f"{key} is gone: {REMOVED[key][1]}; leave it out" if key in REMOVED else None


def with_targets(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose options carry ``_target_``, of one that may hold names in its place.

    An unknown name stays, for the error message of whoever builds it.
    """
    content = {str(key): value for key, value in config.items()}
    for group, known in TARGETS.items():
        node = content.get(group)
        if isinstance(node, Mapping):
            content[group] = _with_target(node, known, group in FACTORIES)
    adjoint = content.get("adjoint")
    if isinstance(adjoint, Mapping) and isinstance(adjoint.get("solver"), Mapping):
        content["adjoint"] = {**adjoint, "solver": _with_target(adjoint["solver"], TARGETS["solver"])}
    return content


def with_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that shows names where its options are the program's own: ``_target_`` is left to others'."""
    content = {str(key): value for key, value in config.items()}
    for group in (*TARGETS, *USUAL):
        node = content.get(group)
        if isinstance(node, Mapping):
            content[group] = _with_name(node)
    adjoint = content.get("adjoint")
    if isinstance(adjoint, Mapping) and isinstance(adjoint.get("solver"), Mapping):
        content["adjoint"] = {**adjoint, "solver": _with_name(adjoint["solver"])}
    return content


def _with_name(node: Mapping[str, Any]) -> dict[str, Any]:
    usual = node.get(TARGET) in _NAMES or node.get(TARGET) in USUAL.values()
    left = {key: value for key, value in node.items() if not (usual and key in (TARGET, PARTIAL))}
    name = None if node.get(TARGET) == USUAL["trainer"] else option_name(node)
    return left if name is None else {"name": name} | left


def _with_target(node: Mapping[str, Any], known: Mapping[str, str], is_factory: bool = False) -> dict[str, Any]:
    options = {str(key): value for key, value in node.items()}
    if TARGET not in options and options.get("name") in known:
        if is_factory:
            options = {key: value for key, value in options.items() if key not in FOREIGN.get(options["name"], ())}
        return {TARGET: known[options.pop("name")]} | ({PARTIAL: True} if is_factory else {}) | options
    return options
