"""`qefpn analyze`: figures and tables on disk, their numbers against the network applied by hand, and mistakes."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from qefpn.analysis.states import (
    DepthSummary,
    DepthTrace,
    build_entrants,
    injection_of,
    layer_of,
    solve_batch,
    trace_depth,
)
from qefpn.cli import main
from qefpn.data import find_pairs, read_image
from qefpn.data.reading import TestTransform
from qefpn.implicit import Broyden, Equilibrium, QuasiEquilibrium, Unroll, fixed_point
from qefpn.models import QEFPN
from qefpn.models.loading import load_trained

FRESH = [
    "backbone.model=resnet10t",
    "backbone.options={channels:[8,8,16,16],stem_width:8}",
    "pyramid.channels=8",
    "pyramid.expansion=1",
    "data.image_size=64",
]
Levels = tuple[Tensor, ...]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(path: Path, name: str) -> list[float]:
    return [float(row[name]) if row[name] else float("nan") for row in rows(path)]


def flat(state: Levels, sample: int) -> Tensor:
    return torch.cat([level[sample].reshape(-1) for level in state]).double()


@torch.no_grad()
def trained(run: Path, data_root: Path) -> tuple[QEFPN, Levels]:
    """The network of a run, and what its pyramid gets for the test pictures."""
    network = load_trained(run / "checkpoints" / "best.ckpt").network
    pictures = [read_image(pair.image) for pair in find_pairs(data_root / "SYN-TE")]
    resized = [torch.from_numpy(TestTransform(64)(picture)) for picture in pictures]
    images = network.normalized(torch.stack(resized).permute(0, 3, 1, 2))
    return network, network.fusion(network.neck(network.backbone(images)))


def test_depth_is_f_applied_so_many_times(tiny_run: Path, data_root: Path, tmp_path: Path) -> None:
    words = [f"checkpoint={tiny_run}/checkpoints/best.ckpt", f"data.root={data_root}", f"output={tmp_path}"]
    assert main(["analyze", "depth", *words, "layers=9", "curves=2", "data.batch_size=2", "threshold=0.05"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "depth.csv",
        "depth.png",
        "depth.svg",
        "depth_curves.csv",
        "depth_pictures.csv",
    ]
    network, injection = trained(tiny_run, data_root)
    states = []
    z: Levels = tuple(torch.zeros_like(x) for x in injection)
    with torch.no_grad():
        for _ in range(9):
            z = layer_of(network)(z, *injection)
            states.append([flat(z, sample) for sample in range(3)])
    found = rows(tmp_path / "depth_pictures.csv")
    assert [row["name"] for row in found] == [pair.name for pair in find_pairs(data_root / "SYN-TE")]
    assert {row["dataset"] for row in found} == {"SYN-TE"}
    seconds = np.full((9, 3), np.nan)
    for sample, row in enumerate(found):
        zs = [state[sample] for state in states]
        sizes = [one.norm() for one in zs]
        firsts = [(b - a).norm() / size for a, b, size in zip([0 * zs[0], *zs], zs, sizes, strict=False)]
        seconds[1:, sample] = [
            (c - 2 * b + a).norm() / size
            for a, b, c, size in zip([0 * zs[0], *zs], zs, zs[1:], sizes[1:], strict=False)
        ]
        assert float(row["norm"]) == pytest.approx(float(sizes[-1]), rel=1e-4)
        assert float(row["last_first"]) == pytest.approx(float(firsts[-1]), rel=1e-2)
        assert float(row["last_second"]) == pytest.approx(seconds[-1, sample], rel=1e-2)
        assert float(row["share_first"]) == np.mean([one < 0.05 for one in firsts[1:]])
        assert float(row["share_second"]) == np.mean(seconds[1:, sample] < 0.05)
        if sample < 2:
            own = [one for one in rows(tmp_path / "depth_curves.csv") if one["name"] == row["name"]]
            assert [int(one["layer"]) for one in own] == list(range(1, 10))
            np.testing.assert_allclose([float(one["first"]) for one in own], firsts, rtol=1e-2)
            moved = [float((one - zs[0]).norm() / size) for one, size in zip(zs, sizes, strict=True)]
            np.testing.assert_allclose([float(one["moved"]) for one in own], moved, rtol=1e-3, atol=1e-6)
    assert len({row["name"] for row in rows(tmp_path / "depth_curves.csv")}) == 2
    table = tmp_path / "depth.csv"
    np.testing.assert_allclose(column(table, "second_max"), seconds.max(axis=1), rtol=1e-2)
    np.testing.assert_allclose(column(table, "second_mean"), np.exp(np.log(seconds).mean(axis=1)), rtol=1e-2)
    np.testing.assert_allclose(column(table, "second_below")[1:], (seconds < 0.05).mean(axis=1)[1:])


def test_convergence_is_how_far_f_moves_what_was_found(tiny_run: Path, data_root: Path, tmp_path: Path) -> None:
    words = [f"checkpoint={tiny_run}/checkpoints/best.ckpt", f"data.root={data_root}", "data.test=SYN-TE"]
    words += [f"output={tmp_path}", "data.batch_size=2", "p=0.02", "residuals=[equilibrium,quasi,literal]"]
    assert main(["analyze", "convergence", *words, "solvers=[broyden,unroll]", "max_steps=3", "rtol=0"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "convergence.csv",
        "convergence.png",
        "convergence.svg",
        "convergence_summary.csv",
    ]
    network, injection = trained(tiny_run, data_root)
    layer, zero = layer_of(network), tuple(torch.zeros_like(x) for x in injection)
    found = rows(tmp_path / "convergence.csv")
    assert len(found) == 3 * 3 * 2
    reference: dict[str, Levels] = {}
    for solver_name, solver in (("broyden", Broyden(3, 0.0)), ("unroll", Unroll(3, 0.0))):
        for residual_name, residual in (("equilibrium", Equilibrium()), ("quasi", QuasiEquilibrium(0.02))):
            with torch.no_grad():
                solution = fixed_point(layer, zero, injection, solver=solver, residual=residual, keys=torch.arange(3))
                z: Levels = tuple(solution.value)
                moved = layer(z, *injection)
            own = [r for r in found if (r["solver"], r["residual_name"]) == (solver_name, residual_name)]
            for sample, row in enumerate(own):
                change = (flat(moved, sample) - flat(z, sample)).norm() / flat(z, sample).norm()
                assert float(row["relative_change"]) == pytest.approx(float(change), rel=1e-2)
                assert int(row["steps"]) == 3
                assert int(row["evaluations"]) == (4 if solver_name == "broyden" else 3)
                if residual_name == "equilibrium":
                    assert row["p"] == "" and row["distance"] == "" and row["drops"] == "0"
                    continue
                first = flat(reference[solver_name], sample)
                away = (flat(z, sample) - first).norm() / first.norm()
                assert float(row["distance"]) == pytest.approx(float(away), rel=1e-2)
                assert int(row["drops"]) > 0 and float(row["distance"]) > 0
            reference.setdefault(solver_name, z)
    literal = [row for row in found if row["residual_name"] == "literal" and row["solver"] == "broyden"]
    assert {row["relative_change"] for row in literal} == {"inf"}  # it stops at z = 0
    summary = rows(tmp_path / "convergence_summary.csv")
    assert [row["residual_name"] for row in summary] == ["equilibrium", "quasi", "literal"] * 2
    own_changes = [float(row["relative_change"]) for row in found if row["solver"] == "broyden" and not row["p"]]
    assert float(summary[0]["change_median"]) == pytest.approx(np.median(own_changes))
    assert int(summary[0]["pictures"]) == 3


def test_a_fresh_network_on_drawn_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*FRESH, "pictures=2", "layers=3", f"output={tmp_path}/a"]
    assert main(["analyze", "depth", *words]) == 0
    out = capsys.readouterr().out
    assert "2 pictures, 3 layers" in out and "Traceback" not in out
    assert [row["name"] for row in rows(tmp_path / "a" / "depth_pictures.csv")] == ["test_00000", "test_00001"]
    assert main(["analyze", "depth", *words[:-1], "data.batch_size=1", f"output={tmp_path}/b"]) == 0
    for key in ("norm", "last_first"):  # the same seed, whatever the batch
        both = [column(tmp_path / name / "depth_pictures.csv", key) for name in "ab"]
        np.testing.assert_allclose(*both, rtol=1e-3)


def test_a_picture_that_cannot_be_read_is_left_out(
    data_root: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("image", "mask"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for name in "ab":
            Image.new("RGB" if kind == "image" else "L", (40, 40), 90).save(tmp_path / "set" / kind / f"{name}.png")
    (tmp_path / "set" / "image" / "b.png").write_text("a letter")
    words = [f"checkpoint={tiny_run}/checkpoints/best.ckpt", f"data.root={tmp_path}/set", "solvers=broyden"]
    assert main(["analyze", "convergence", *words, "residuals=equilibrium", f"output={tmp_path}/out"]) == 1
    captured = capsys.readouterr()
    assert "left out" in captured.out and "b.png" in captured.out
    assert [row["name"] for row in rows(tmp_path / "out" / "convergence.csv")] == ["a"]
    (tmp_path / "set" / "image" / "a.png").write_text("a letter")
    assert main(["analyze", "convergence", *words, f"output={tmp_path}/out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a.png" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["deep"], "there is no `analyze deep`"),
        (["depth", "layers=1"], "layers must be at least 2"),
        (["depth", "threshold=0.0"], "threshold must be above 0"),
        (["depth", "rtol=0"], "rtol is of `analyze convergence`"),
        (["convergence", "layers=5"], "layers is of `analyze depth`"),
        (["convergence", "solvers=[newton]"], "newton"),
        (["convergence", "residuals=[quassi]"], "did you mean 'quasi'"),
        (["convergence", "residuals=[]"], "residuals is empty"),
        (["convergence", "p=[2.0]"], "p must be in [0, 1]"),
        (["depth", "pyramid=none"], "there is no f_theta"),
        (["depth", "block_dtype=float8"], "block_dtype must be"),
        (["depth", "data.test=[ECSSD]"], "data.root"),
        (["depth", "pictures=0"], "data.root"),
        (["depth", "data.root=/nowhere/at/all"], "/nowhere/at/all"),
        (["depth", "checkpoint=/nowhere.ckpt"], "/nowhere.ckpt"),
        (["depth", "checkpoint=/nowhere.ckpt", "pyramid.channels=8"], "pyramid.channels is of a fresh network"),
        (["depth", "layer=7"], "did you mean layers"),
        (["depth", "output=/dev/null/x", "pictures=1"], "cannot be made"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    small = (
        FRESH[:4] if words[0] == "depth" and not any(word.startswith(("checkpoint", "pyr")) for word in words) else []
    )
    assert main(["analyze", *words, *small]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_help_names_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "--help"]) == 0
    out = capsys.readouterr().out
    assert "layers: 5000" in out and "residuals:" in out and "data.root=DIR" in out
    assert main(["analyze"]) == 2


def halve(z: Levels, x: Tensor) -> Levels:
    return (torch.trunc(z[0] / 2 * 64) / 64 + x,)


def swing(z: Levels, x: Tensor) -> Levels:
    return (x - z[0],)


def test_states_that_repeat_themselves_are_filled_in() -> None:
    calls = []

    def counted(z: Levels, x: Tensor) -> Levels:
        calls.append(1)
        return halve(z, x)

    told: list[int] = []
    x = torch.tensor([1.0, 0.5]).reshape(2, 1, 1, 1)
    trace = trace_depth(counted, (x,), 200, told.append)
    assert len(calls) == 64 and sum(told) == 200
    z, states = torch.zeros_like(x), []
    for _ in range(200):
        (z,) = halve((z,), x)
        states.append(z.reshape(2))
    np.testing.assert_allclose(trace.state, torch.stack(states).numpy())
    assert (trace.first[-1] == 0).all() and (trace.second[-1] == 0).all()
    assert np.isnan(trace.second[0]).all() and trace.second.shape == (200, 2)


def test_a_swing_between_two_states_is_told_from_rest() -> None:
    x = torch.ones(1, 2, 3, 3)
    summary = DepthSummary(20, 1e-3, keep=1)
    (row,) = summary.add(trace_depth(lambda z, x: (0.5 * x - z[0] * 1.0,), (x,), 20))
    assert row["share_first"] == row["share_second"] == 0 and row["settled"] is None
    assert row["ratio"] == pytest.approx(2.0)
    (row,) = summary.add(trace_depth(lambda z, x: (x + 0.1 * z[0],), (x,), 20))
    assert row["settled"] == 4 and row["share_first"] == pytest.approx(17 / 19)
    assert summary.pictures == 2 and len(summary.kept) == 1


def test_a_state_that_is_not_finite_counts_as_not_small() -> None:
    state = np.array([[1.0, 1.0], [np.nan, 1.0], [np.nan, 1.0]])
    first = np.array([[1.0, 1.0], [np.nan, 1e-9], [np.nan, 1e-9]])
    second = np.array([[np.nan, np.nan], [np.nan, 1e-9], [np.nan, 1e-9]])
    summary = DepthSummary(3, 1e-3)
    bad, good = summary.add(DepthTrace(state, state * 0, first, second))
    assert bad["share_second"] == 0 and bad["settled"] is None and bad["ratio"] is None
    assert good["share_second"] == 1 and good["settled"] == 2
    curves = summary.curves()
    assert curves["second_below"][1:].tolist() == [0.5, 0.5] and np.isnan(curves["second_below"][0])
    assert curves["first_mean"][1] == pytest.approx(1e-9)


def test_half_precision_of_f_is_a_choice() -> None:
    network = QEFPN(
        "timm/resnet10t", backbone_options={"channels": [8, 8, 16, 16], "stem_width": 8}, channels=8, expansion=1
    ).eval()
    injection = injection_of(network, torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert [tuple(x.shape) for x in injection] == [(1, 8, 8, 8), (1, 8, 4, 4), (1, 8, 2, 2), (1, 8, 1, 1)]
    assert not network.pyramid._forward_pre_hooks
    full = trace_depth(layer_of(network), injection, 30)
    half = trace_depth(layer_of(network, "bfloat16"), injection, 30)
    again = trace_depth(layer_of(network, "float32"), injection, 30)
    np.testing.assert_array_equal(full.first, again.first)
    assert not np.array_equal(full.first, half.first)


def test_entrants_are_every_residual_with_every_solver() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = build_entrants(
            ["broyden", "anderson"], ["equilibrium", "quasi", "literal"], [0.1, 0.2, 0.1], max_steps=2, rtol=0.0, seed=1
        )
        labels = ["equilibrium", "quasi, p = 0.1", "quasi, p = 0.2", "literal, p = 0.1"]
        assert [(one.solver_name, one.label) for one in found] == [
            (s, n) for s in ("broyden", "anderson") for n in labels
        ]
        x = torch.ones(1, 1, 2, 2)
        solved = solve_batch(lambda z, x: (x + 0.5 * z[0],), (x,), found[3], torch.tensor([0]))
    assert solved.rows[0]["steps"] == 2 and solved.rows[0]["relative_change"] == float("inf")
