"""`qefpn export`: files that other programs run, beside the network itself."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qefpn import QEFPN, Predictor
from qefpn.cli import main
from qefpn.data.reading import TestTransform
from qefpn.errors import UserError
from qefpn.implicit import Anderson, Broyden, FixedPointIteration, fixed_point
from qefpn.inference.export import _store_weights, drawn_picture, export_network
from qefpn.inference.exportable import FixedNetwork, PhotographToMap, broyden, resizing_matrices

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SIZES = [(300, 400), (400, 300), (150, 100), (64, 500), (224, 224), (333, 127)]


def pictures(size: tuple[int, int], count: int, seed: int = 0) -> np.ndarray:
    """Smooth noise with a drawn object, (count, H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    drawn = drawn_picture(*size).astype(np.int64)
    tint = rng.integers(-40, 40, (count, 1, 1, 3)) + rng.integers(-4, 5, (count, *size, 3))
    return np.clip(drawn + tint, 0, 255).astype(np.uint8)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor()


@pytest.fixture(scope="module")
def exported(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "mobile.onnx"
    made = export_network(predictor, path, about={"licence": "ask"})
    assert made.size == path.stat().st_size
    assert made.difference <= 1.5
    return path


@pytest.mark.parametrize("shape", [(7, 224), (224, 224), (300, 224), (451, 224), (1000, 96)])
def test_resizing_is_that_of_test_pictures(shape: tuple[int, int]) -> None:
    length, size = shape
    picture = np.random.default_rng(1).integers(0, 256, (length, 50, 3)).astype(np.uint8)
    down, up = resizing_matrices(torch.arange(float(length)), size)
    left, right = resizing_matrices(torch.arange(50.0), size)
    shrunk = (down @ torch.from_numpy(picture).float().permute(2, 0, 1) @ left.T).round()
    small = (up @ shrunk @ right.T + 0.5).floor().permute(1, 2, 0).numpy()
    unlike = small != TestTransform(size)(picture)
    assert unlike.mean() < 0.002  # a mean that ends in one half
    assert np.abs(small - TestTransform(size)(picture)).max() <= 1


def test_broyden_is_the_engine_s() -> None:
    torch.manual_seed(0)
    weight = torch.randn(24, 24, dtype=torch.float64) * 0.15
    shift = torch.randn(3, 2, 2, 6, dtype=torch.float64)

    def f(z: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        flat = torch.cat([x.flatten(1) for x in z], dim=1)
        out = torch.tanh(flat @ weight.T) + shift.flatten(1)
        return tuple(part.reshape(3, 1, 2, 6) for part in out.split(12, dim=1))

    zero = tuple(torch.zeros(3, 1, 2, 6, dtype=torch.float64) for _ in range(2))
    for steps in (1, 2, 5, 9):
        ours = broyden(f, zero, steps)
        theirs = fixed_point(f, zero, solver=Broyden(max_steps=steps, rtol=0, atol=0)).value
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_maps_are_the_predictor_s(size: tuple[int, int], exported: Path, predictor: Predictor) -> None:
    """Thirty pictures of six sizes, in batches of 1 to 4."""
    run = session(exported)
    for count in (1, 4):
        given = pictures(size, count, seed=count)
        maps = run.run(None, {"images": given})[0]
        assert maps.shape == (count, *size) and maps.dtype == np.float32
        assert maps.min() >= 0 and maps.max() <= 1
        wanted = np.stack(predictor(list(given))).astype(np.float32)
        assert np.abs(maps * 255 - wanted).max() <= 1.5


@pytest.mark.slow
def test_the_file_names_no_place_and_fits_a_browser(exported: Path) -> None:
    model = onnx.load(str(exported))
    assert b"site-packages" not in exported.read_bytes() and b"qefpn/" not in exported.read_bytes()
    assert {prop.key: prop.value for prop in model.metadata_props}["licence"] == "ask"
    assert [one.version for one in model.opset_import if one.domain == ""] == [18]
    known = onnx.shape_inference.infer_shapes(model)
    types = {one.name: one.type.tensor_type.elem_type for one in (*known.graph.value_info, *known.graph.input)}
    types |= {one.name: one.data_type for one in known.graph.initializer}
    for node in model.graph.node:
        buffers = [name for name in (*node.input, *node.output) if name]
        assert len(buffers) <= 8, node.op_type
        if node.op_type in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Less", "Where", "MatMul"):
            assert onnx.TensorProto.INT64 not in {types.get(name) for name in buffers}, node.name


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "share", "most"), [("float16", 0.6, 6.0), ("int8", 0.4, 40.0)])
def test_smaller_weights_are_stored_and_the_maps_stay(
    dtype: str, share: float, most: float, exported: Path, tmp_path: Path
) -> None:
    model = onnx.load(str(exported))
    _store_weights(model, dtype)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    assert len(data) < share * exported.stat().st_size
    (tmp_path / "small.onnx").write_bytes(data)
    given = pictures((300, 400), 2)
    found, whole = (session(path).run(None, {"images": given})[0] * 255 for path in (tmp_path / "small.onnx", exported))
    assert 0 < np.abs(found - whole).max() < most and np.abs(found - whole).mean() < 1.5


@pytest.mark.slow
def test_other_formats(predictor: Predictor, tmp_path: Path) -> None:
    predictor = copy.deepcopy(predictor)  # one step instead of four: a quarter of the graph
    predictor.network.pyramid.solver = Broyden(max_steps=1, rtol=0, atol=0)
    rembg = export_network(predictor, tmp_path / "rembg.onnx", kind="rembg")
    assert rembg.difference <= 4  # its input is not rounded to 8 bits
    run = session(tmp_path / "rembg.onnx")
    first, output = run.get_inputs()[0], run.get_outputs()[0]
    assert first.shape[1:] == [3, 320, 320] and output.shape[1:] == [1, 320, 320]
    assert export_network(predictor, tmp_path / "program.pt2", kind="torch").difference <= 1.5
    child = (
        "import sys, torch; program = torch.export.load(sys.argv[1]).module();"
        "maps = program(torch.zeros(1, 90, 70, 3, dtype=torch.uint8));"
        "print(tuple(maps.shape), 'qefpn' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", child, str(tmp_path / "program.pt2")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split("\n")[0] == "(1, 90, 70) False", done.stderr


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", f"output={tmp_path}/out", "steps=1", "image_size=96"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/out/mobile.onnx: ")
    about = {one.key: one.value for one in onnx.load(str(tmp_path / "out" / "mobile.onnx")).metadata_props}
    assert about["image_size"] == "96" and "academic" in about["licence"]


def small(**options: object) -> Predictor:
    predictor = Predictor()
    predictor.network = QEFPN("resnet18", channels=8, expansion=1, **options).eval()
    return predictor


def test_other_solvers_and_none() -> None:
    picture = torch.from_numpy(drawn_picture(40, 50))[None]
    for options in ({"pyramid": "none"}, {"solver": FixedPointIteration(max_steps=3, rtol=0, atol=0)}):
        fixed = FixedNetwork(small(**options).network)
        images = torch.rand(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(fixed(images), fixed.network(images), rtol=1e-4, atol=1e-4)
            assert PhotographToMap(fixed, 64)(picture).shape == (1, 40, 50)
    with pytest.raises(UserError, match="solver is Anderson"):
        FixedNetwork(small(solver=Anderson()).network)
    with pytest.raises(UserError, match="no pyramid"):
        FixedNetwork(small(pyramid="none").network, steps=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "output is not set"),
        (
            ["output=a.onnx", "format=onxx"],
            "format must be one of onnx, rembg, torch, web, hub, not 'onxx' (did you mean onnx?)",
        ),
        (["output=a.onnx", "dtype=float61"], "dtype must be one of"),
        (["output=a.pt2", "format=torch", "dtype=int8"], "dtype must be one of float32 with format=torch"),
        (["output=a.onnx", "steps=0"], "steps must be at least 1"),
        (["output=a.txt"], "format=onnx writes a file that ends in .onnx"),
        (["output=there.onnx"], "exists: overwrite=true replaces it"),
        (["output=a.onnx", "checkpoint=mobil"], "no network 'mobil' comes with the package"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.onnx").write_text("mine")
    assert main(["export", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert Path("there.onnx").read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["there.onnx"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnx" else json)
    with pytest.raises(UserError, match=r"needs the package onnx: pip install 'qefpn\[export\]'"):
        export_network(small(), tmp_path / "a.onnx")
