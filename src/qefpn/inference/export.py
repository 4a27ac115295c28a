"""A trained network as a file that runs without this package: ONNX, rembg's ONNX, or a program of torch.export."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from qefpn.atomic import atomic_file
from qefpn.errors import UserError
from qefpn.inference.exportable import FixedNetwork, PhotographToMap, RembgModel
from qefpn.inference.predictor import Predictor
from qefpn.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from qefpn.text import did_you_mean

FORMATS = {"onnx": ".onnx", "rembg": ".onnx", "torch": ".pt2", "web": "", "hub": ""}
"""Each format with the suffix of its files; none where it is a folder."""
DTYPES = ("float32", "float16", "int8")
OPSET = 18
"""Of ONNX: the lowest that torch writes, so that older runtimes read it, too (onnxruntime from 1.14 on)."""
EXAMPLE = (2, 240, 320)
NEEDS = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """What was written: bytes of the file, and the largest difference from :class:`~qefpn.Predictor`'s map of a drawn
    picture, in grey levels of 255 (0.5 of it is the rounding of its 8 bits)."""

    size: int
    difference: float


def export_network(
    predictor: Predictor,
    path: Path,
    *,
    kind: str = "onnx",
    steps: int | None = None,
    dtype: str = "float32",
    about: Mapping[str, str] | None = None,
) -> Exported:
    """Write a network whole or not at all, and run what was written beside the network itself.

    Args:
        predictor: the network, and the side of its square input.
        path: of the file.
        kind: "onnx": uint8 (B, H, W, 3) RGB of any size → float32 (B, H, W) in [0, 1]; "rembg": float32 (B, 3, 320,
            320), normalised as ImageNet's → (B, 1, 320, 320); "torch": as "onnx", a program of `torch.export`.
        steps: of the solve, every one taken; ``None`` for the most that the network's solver takes.
        dtype: of the stored weights: "float32", "float16" or "int8" (a scale for each output channel); computed is in
            float32.
        about: what the file says of itself, in ONNX's metadata.

    Raises:
        UserError: a package is missing, or the network's solver or the data type cannot be had in that format.
    """
    check_choices(kind, dtype)
    fixed, image_size = FixedNetwork(predictor.network, steps), predictor.image_size
    if kind == "torch":
        data = _torch_program(PhotographToMap(fixed, image_size))
    else:
        _require()
        model = RembgModel(fixed, image_size) if kind == "rembg" else PhotographToMap(fixed, image_size)
        data = _onnx(model, kind, dtype, {"producer": "qefpn", **(about or {})})
    with atomic_file(path) as part:
        part.write_bytes(data)
    return Exported(len(data), _difference(data, kind, predictor))


def check_choices(kind: str, dtype: str) -> None:
    """Refuse a format that there is not, or a data type that it has not."""
    if kind not in FORMATS:
        raise UserError(f"format must be one of {', '.join(FORMATS)}, not {kind!r}{did_you_mean(kind, FORMATS)}")
    there = ("float32",) if kind in ("torch", "hub") else DTYPES
    if dtype not in there:
        close = did_you_mean(dtype, there)
        raise UserError(f"dtype must be one of {', '.join(there)} with format={kind}, not {dtype!r}{close}")


def _require() -> None:
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"format=onnx needs the package {missing[0]}: pip install 'qefpn[export]'")


def _onnx(model: nn.Module, kind: str, dtype: str, about: Mapping[str, str]) -> bytes:
    import onnx

    side = RembgModel.SIZE
    example = torch.zeros((1, 3, side, side)) if kind == "rembg" else torch.zeros((*EXAMPLE, 3), dtype=torch.uint8)
    names = ("input", "output") if kind == "rembg" else ("images", "maps")
    dynamic = torch.export.Dim.DYNAMIC
    free = (dynamic, None, None, None) if kind == "rembg" else (dynamic, dynamic, dynamic, None)
    with _silenced():
        program = torch.onnx.export(
            model.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=(free,),
            input_names=[names[0]],
            output_names=[names[1]],
            opset_version=OPSET,
            external_data=False,
        )
    assert program is not None
    made = program.model_proto
    _forget_places(made)
    axes = ("batch",) if kind == "rembg" else ("batch", "height", "width")
    for value in (*made.graph.input, *made.graph.output):
        for dim, name in zip(value.type.tensor_type.shape.dim, axes, strict=False):
            dim.dim_param = name
    if dtype != "float32":
        _store_weights(made, dtype)
    onnx.helper.set_model_props(made, dict(about))
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def _forget_places(model: Any) -> None:
    """Drop what the tracer notes of files and modules: a third of the size, and nobody's folders."""
    for thing in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del thing.metadata_props[:]
        thing.doc_string = ""
    del model.graph.metadata_props[:]
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ""
    del model.metadata_props[:]


def _store_weights(model: Any, dtype: str) -> None:
    """Store the weights of convolutions as float16, or in 8 bits with a scale for each output channel. They become
    float32 before they are used, which runtimes do once, when they load the file."""
    from onnx import TensorProto, helper, numpy_helper

    used = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]}
    before, scales = [], []
    for tensor in model.graph.initializer:
        if tensor.name not in used or tensor.data_type != TensorProto.FLOAT:
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor)
        # what has few weights decides much: biases, depthwise convolutions, the first one
        if dtype == "float16" or values.ndim < 2 or values.shape[1] <= 3:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            before.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
            continue
        scale = np.maximum(np.abs(values).reshape(len(values), -1).max(axis=1), 1e-12).astype(np.float32) / 127
        whole = np.rint(values / scale.reshape(-1, *(1,) * (values.ndim - 1))).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(whole, f"{name}.whole"))
        scales.append(numpy_helper.from_array(scale, f"{name}.scale"))
        before.append(helper.make_node("DequantizeLinear", [f"{name}.whole", f"{name}.scale"], [name], axis=0))
    model.graph.initializer.extend(scales)
    nodes = [*before, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _torch_program(model: nn.Module) -> bytes:
    dynamic = torch.export.Dim.DYNAMIC
    example = torch.zeros((*EXAMPLE, 3), dtype=torch.uint8)
    with _silenced(), torch.no_grad():
        program = torch.export.export(model.eval(), (example,), dynamic_shapes=((dynamic, dynamic, dynamic, None),))
        for module in program.graph_module.modules():
            for node in getattr(getattr(module, "graph", None), "nodes", ()):
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack"):
                    node.meta.pop(key, None)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    return buffer.getvalue()


def _difference(data: bytes, kind: str, predictor: Predictor) -> float:
    """Grey levels between what the file makes of a drawn picture and what the network itself does."""
    picture = drawn_picture(RembgModel.SIZE, RembgModel.SIZE) if kind == "rembg" else drawn_picture()
    if kind == "torch":
        with torch.no_grad():
            made = torch.export.load(io.BytesIO(data)).module()(torch.from_numpy(picture)[None])[0].numpy()
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        given = picture[None]
        if kind == "rembg":
            scaled = (picture / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
            given = scaled.astype(np.float32).transpose(2, 0, 1)[None]
        made = session.run(None, {session.get_inputs()[0].name: given})[0].reshape(picture.shape[:2])
    return float(np.abs(made * 255 - predictor(picture).astype(np.float32)).max())


def drawn_picture(height: int = 300, width: int = 400) -> np.ndarray:
    """A bright ellipse before a slope of colours, uint8 (height, width, 3)."""
    rows, columns = np.mgrid[0:height, 0:width]
    inside = ((rows / height - 0.5) / 0.3) ** 2 + ((columns / width - 0.45) / 0.2) ** 2 < 1
    slope = np.stack([rows / height, columns / width, 1 - rows / height], axis=2) * 120
    return np.where(inside[:, :, None], (230, 180, 60), slope).astype(np.uint8)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Without the exporters' progress and warnings, which speak of their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings(), contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
