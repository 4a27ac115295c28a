"""What a network costs: parameters, multiplications, time, memory; counts by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from qefpn import QEFPN
from qefpn.analysis.profile_sweep import ProfileSettings, profile_module
from qefpn.analysis.profiling import (
    STAGES,
    Spread,
    macs_by_stage,
    out_of_memory,
    parameters_by_stage,
    peak_memory,
    seconds_by_stage,
    solver_steps,
    time_passes,
)
from qefpn.errors import UserError
from qefpn.implicit import Broyden
from qefpn.models import ImplicitPyramid
from qefpn.reporting.profile_tables import profile_tables
from qefpn.reporting.published import load_published
from qefpn.reporting.renderers import markdown
from qefpn.training.module import SaliencyModule, Warmup

CPU = torch.device("cpu")
CHANNELS, WIDTH = 8, 2
NARROW: dict[str, Any] = {
    "backbone": "timm/resnet10t",
    "backbone_options": {"channels": [8, 8, 16, 16], "stem_width": 8},
    "channels": CHANNELS,
    "expansion": WIDTH,
}


@pytest.fixture(scope="module")
def narrow() -> QEFPN:
    return QEFPN(**NARROW, solver={"name": "broyden", "max_steps": 3}).eval()


def test_the_default_network_has_the_paper_s_parameters() -> None:
    network = QEFPN()
    counts = parameters_by_stage(network)
    assert counts["total"] == 27_819_393 == sum(p.numel() for p in network.parameters())
    assert counts["backbone"] == 23_508_032
    assert counts["neck and fusion"] == 246_528 + 395_264
    assert counts["f_theta"] == 1_478_144 + 395_264 + 16_896
    assert counts["decoder and heads"] == 1_778_688 + 577


@pytest.mark.parametrize(
    "options",
    [{}, {"pyramid": "none"}, {"low_level_edges": True, "intermediate_supervision": True, "decoder_channels": 4}],
)
def test_stages_sum_to_the_whole(options: dict[str, Any]) -> None:
    network = QEFPN(**NARROW, **options).eval()
    counts = parameters_by_stage(network)
    assert sum(counts[stage] for stage in STAGES) == counts["total"] == sum(p.numel() for p in network.parameters())
    macs = macs_by_stage(network, torch.randn(1, 3, 64, 64))
    assert macs["other"] == 0
    assert sum(macs[stage] for stage in STAGES) + macs["solver"] == macs["total"]
    assert (macs["f_theta"] > 0) == (options.get("pyramid") != "none")


def test_macs_by_hand(narrow: QEFPN) -> None:
    """Every convolution of a stage, by its own formula: outputs × inputs a group × kernel."""
    found: dict[str, int] = {}

    def count(stage: str) -> Any:
        def hook(module: Any, _inputs: Any, output: torch.Tensor) -> None:
            each = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
            found[stage] = found.get(stage, 0) + output.numel() * each

        return hook

    parts = {"backbone": narrow.backbone, "neck": narrow.neck, "decoder": narrow.decoder, "head": narrow.head}
    handles = [
        module.register_forward_hook(count(stage))
        for stage, part in parts.items()
        for module in part.modules()
        if isinstance(module, nn.Conv2d)
    ]
    images = torch.randn(2, 3, 64, 96)
    macs = macs_by_stage(narrow, images)
    for handle in handles:
        handle.remove()
    assert macs["backbone"] == found["backbone"]
    assert macs["decoder and heads"] == found["decoder"] + found["head"]
    pixels = {2: 16 * 24, 3: 8 * 12, 4: 4 * 6, 5: 2 * 3}
    assert found["neck"] == 2 * CHANNELS * sum(
        pixels[level] * width for level, width in zip(pixels, narrow.backbone.channels, strict=True)
    )
    assert found["head"] == 2 * pixels[2] * CHANNELS * 9


def test_one_evaluation_of_f_theta_by_hand() -> None:
    """On one level a block and a 1×1 are all that there is."""
    network = QEFPN(**NARROW, levels=[4], solver={"name": "unroll", "max_steps": 3}).eval()
    macs = macs_by_stage(network, torch.randn(1, 3, 64, 64))
    pixels = 4 * 4
    blocks = 2 * 9 * CHANNELS * CHANNELS * WIDTH * pixels
    assert isinstance(network.pyramid, ImplicitPyramid)
    fused = sum(m.weight.numel() for m in network.pyramid.transformation.fusion.modules() if isinstance(m, nn.Conv2d))
    assert macs["one evaluation"] == blocks + CHANNELS * CHANNELS * pixels + fused * pixels
    assert macs["evaluations"] == 3
    assert macs["f_theta"] == 3 * macs["one evaluation"]
    assert macs["solver"] == 0  # unrolling multiplies nothing


def test_a_budget_is_spent_whole_and_given_back(narrow: QEFPN) -> None:
    assert isinstance(narrow.pyramid, ImplicitPyramid)
    former, images = narrow.pyramid.solver, torch.randn(1, 3, 64, 64)
    counts = {}
    for steps in (1, 5, 12):
        with solver_steps(narrow, steps, exactly=True):
            counts[steps] = macs_by_stage(narrow, images)
    assert {steps: macs["evaluations"] for steps, macs in counts.items()} == {1: 2, 5: 6, 12: 13}
    assert len({macs["one evaluation"] for macs in counts.values()}) == 1
    assert counts[12]["solver"] > counts[5]["solver"]
    assert narrow.pyramid.solver is former
    with pytest.raises(UserError, match="budgets"), solver_steps(narrow, 0, exactly=True):
        pass
    with solver_steps(narrow, 7, exactly=False):
        assert narrow.pyramid.solver == Broyden(max_steps=7)


def test_seconds_by_stage_sum_to_the_whole(narrow: QEFPN) -> None:
    found = seconds_by_stage(narrow, torch.randn(1, 3, 64, 64))
    assert all(found[stage] > 0 for stage in STAGES)
    assert found["one evaluation"] * found["evaluations"] == pytest.approx(found["f_theta"])
    assert found["total"] == pytest.approx(sum(found[key] for key in (*STAGES, "solver", "other")))


def test_passes_are_timed_in_turns_after_one_that_is_not() -> None:
    calls: list[str] = []
    passes = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = time_passes(passes, CPU, repeats=5, seconds=60)
    assert calls == ["a", "b"] * 6
    assert {name: len(times) for name, times in found.items()} == {"a": 5, "b": 5}
    assert len(time_passes(passes, CPU, repeats=50, seconds=0)["a"]) == 3  # never fewer


def test_spread() -> None:
    assert Spread.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Spread(median=3.0, lower=2.0, upper=4.0, count=5)


def test_peak_memory_is_the_largest_sum_at_one_time() -> None:
    def run() -> None:
        first = torch.empty(1_000_000)
        second = torch.empty(500_000)
        del first
        third = torch.empty(250_000)
        del second, third

    assert peak_memory(run, CPU) == 4 * 1_500_000


def test_errors_of_memory_are_told_from_others() -> None:
    assert out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert out_of_memory(caught.value)
    assert not out_of_memory(RuntimeError("shapes do not match"))


@pytest.fixture(scope="module")
def module() -> SaliencyModule:
    torch.manual_seed(0)
    network = QEFPN(**NARROW, solver={"name": "broyden", "max_steps": 2})
    return SaliencyModule(network, warmup=Warmup(100, 2))


def test_a_sweep_of_sizes_and_budgets(module: SaliencyModule) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    settings = ProfileSettings(sizes=[64], budgets=[1, 4], batches=[1, 2], repeats=3, seconds=0.5)
    result = profile_module(module, settings, CPU)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [(row["size"], row["budget"]) for row in result["stages"]] == [(64, 1), (64, 4)]
    speed = result["speed"]
    for size in settings.sizes:
        assert [row["batch"] for row in speed if row["size"] == size and row["mode"] == "backbone"] == [1]
        for budget in (1, 4):
            of_these = [row for row in speed if (row["size"], row["budget"]) == (size, budget)]
            assert [row["batch"] for row in of_these if row["mode"] == "training"] == [1]
            forward = [row for row in of_these if row["mode"] == "forward"]
            (best,) = [row for row in forward if row.get("best")]
            assert best["fps"] == max(row["fps"] for row in forward)
            assert best["ended"]
            assert forward[0]["ratio"]["median"] > 1  # the network has the backbone in it
            held = 4 * sum(p.numel() for p in module.network.parameters())
            trained = next(row for row in of_these if row["mode"] == "training")
            assert held < forward[0]["memory"] < trained["memory"]
    for row in speed:
        assert row["seconds"]["lower"] <= row["seconds"]["median"] <= row["seconds"]["upper"]
        assert row["fps"] == pytest.approx(row["batch"] / row["seconds"]["median"])

    machine = {"device": "x", "kind": "cpu", "threads": 1, "torch": "2", "training precision": "32"}
    text = markdown(profile_tables(result | {"machine": machine}, load_published(), "how"))
    total = sum(p.numel() for p in module.network.parameters())
    assert f"{total:,}" in text
    assert "1 MAC is 2 FLOPs" in text
    for printed in ("99.81¹", "27.82", "87.06²", "111.69²", "look swapped"):
        assert printed in text


def test_a_network_without_a_pyramid() -> None:
    network = QEFPN(**NARROW, pyramid="none").eval()
    macs = macs_by_stage(network, torch.randn(1, 3, 64, 64))
    assert (macs["f_theta"], macs["solver"], macs["evaluations"]) == (0, 0, 0)
    with solver_steps(network, 3, exactly=True):
        assert network(torch.randn(1, 3, 64, 64)).shape == (1, 1, 64, 64)
