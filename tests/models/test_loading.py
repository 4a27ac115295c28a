"""A network from a checkpoint, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from qefpn.errors import UserError
from qefpn.models import QEFPN, load_model

OPTIONS: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "DEFAULT",  # must not be fetched again
    "channels": 8,
    "levels": [3, 4, 5],
    "expansion": 2,
    "solver": {"name": "broyden", "max_steps": 5},
    "residual": {"name": "quasi", "p": 1e-4},
    "adjoint": {"name": "implicit", "solver": {"name": "broyden", "max_steps": 4}},
}


def checkpoint(network: QEFPN, **changes: Any) -> dict[str, Any]:
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    content = {
        "state_dict": {**state, "loss.weight": torch.ones(1)},
        "hyper_parameters": {"network": OPTIONS},
    }
    return {**content, "global_step": 7, **changes}


def network() -> QEFPN:
    torch.manual_seed(0)
    return QEFPN(**{**OPTIONS, "weights": None})


def test_round_trip_gives_the_same_predictions(tmp_path: Path) -> None:
    original, path = network(), tmp_path / "an é (1).ckpt"
    original.run(torch.randn(2, 3, 64, 64), unroll=1)  # moves the running statistics
    torch.save(checkpoint(original), path)
    loaded = load_model(path)
    assert not loaded.training and loaded.levels == (3, 4, 5)
    images = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        assert torch.equal(loaded(images), original.eval()(images))


FORMER = [
    ({"start": "zero"}, None),
    ({"start": "last"}, "start is gone: training solves start from zero; leave it out"),
    ({"solver": {"name": "broyden", "max_steps": 2, "line_search": False}}, None),
    (
        {"solver": {"name": "broyden", "line_search": True}},
        "solver.line_search is gone: no experiment showed its worth",
    ),
    ({"adjoint": {"name": "implicit", "solver": {"name": "broyden", "line_search": False}}}, None),
    (
        {"adjoint": {"name": "implicit", "solver": {"name": "broyden", "line_search": True}}},
        "adjoint.solver.line_search",
    ),
]


@pytest.mark.parametrize(("options", "said"), FORMER, ids=repr)
def test_a_checkpoint_of_an_earlier_version_loads_unless_it_needs_what_is_gone(
    options: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    original, path = network(), tmp_path / "former.ckpt"
    content = checkpoint(original)
    content["hyper_parameters"]["network"] = {**content["hyper_parameters"]["network"], **options}
    torch.save(content, path)
    if said is None:
        assert torch.equal(load_model(path).head.weight, original.head.weight)
        return
    with pytest.raises(UserError, match=said) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


class Payload:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('unpickled')",))


def test_files_that_are_no_checkpoint_are_one_clear_line(tmp_path: Path) -> None:
    def problem(content: Any) -> str:
        path = tmp_path / "x.ckpt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(UserError) as caught:
            load_model(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
        return str(caught.value)

    good = checkpoint(network())
    torch.save(good, tmp_path / "good.ckpt")
    problem(b"")
    problem(b"a text file")
    problem((tmp_path / "good.ckpt").read_bytes()[:5000])
    problem({**good, "callbacks": Payload()})
    assert "hyper_parameters" in problem(torch.ones(3))
    assert "hyper_parameters" in problem({"state_dict": good["state_dict"]})
    assert "hyper_parameters" in problem({**good, "hyper_parameters": {"lr": 1}})
    assert "does not fit" in problem({**good, "hyper_parameters": {"network": {**OPTIONS, "channels": 12}}})
    for huge in ({"expansion": 10**6}, {"channels": 10**6}, {"decoder_channels": 10**6}, {"decoder_passes": 10**6}):
        # 10**6 channels would ask for terabytes: refused by the sizes of the weights, before memory is asked for
        told = problem({**good, "hyper_parameters": {"network": {**OPTIONS, **huge}}})
        assert "does not fit" in told and f"{next(iter(huge))}=1000000" in told and "too large" in told
    assert "does not fit" in problem({**good, "hyper_parameters": {"network": {**OPTIONS, "depth": 3}}})
    assert "does not fit" in problem({**good, "state_dict": {}})
    with pytest.raises(UserError, match="no such file"):
        load_model(tmp_path / "none.ckpt")
