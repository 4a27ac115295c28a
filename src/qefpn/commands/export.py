"""`qefpn export`: a trained network as a file that other programs run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from qefpn.commands.export_hub import export_hub
from qefpn.errors import UserError
from qefpn.experiments.command_line import command_help
from qefpn.experiments.composition import command_config
from qefpn.experiments.runtime import quiet_libraries
from qefpn.inference.export import FORMATS, check_choices, export_network
from qefpn.inference.exportable import FixedNetwork
from qefpn.inference.predictor import Predictor
from qefpn.models.budgets import checked_budget
from qefpn.models.packed import SUFFIX, network_file, read_card
from qefpn.serving.web import MODEL, runtime_archive, write_page
from qefpn.text import one_line
from qefpn.version import __version__

SUMMARY = """
qefpn export - a trained network as a file that runs without this package

qefpn export output=saliency.onnx                                   uint8 photographs of any size in, maps out
qefpn export checkpoint=RUN/checkpoints/best.ckpt output=mine.onnx dtype=float16
qefpn export format=rembg output=~/.rembg/mine.onnx
    then: rembg i -m u2net_custom -x '{"model_path": "~/.rembg/mine.onnx"}' photo.jpg cutout.png
qefpn export format=web output=page                                 a page that runs it in the browser
    then: python -m http.server --directory page, or any web server
qefpn export format=torch output=saliency.pt2                       torch.export.load("saliency.pt2").module()
qefpn export format=hub output=FOLDER                               safetensors, model card; then: hf upload NAME FOLDER
"""


def main(argv: Sequence[str]) -> int:
    """0, or 2 for a mistake in the options."""
    if any(word in ("-h", "--help") for word in argv):
        print(command_help("export", SUMMARY))
        return 0
    quiet_libraries(lightning=False)
    config = command_config("export", argv)
    if str(config.format) == "hub":
        return export_hub(config)
    kind, checkpoint = str(config.format), network_file(config.checkpoint)
    path = _output(config, kind, checkpoint)
    archive = runtime_archive(config.runtime) if kind == "web" else None
    predictor = Predictor(checkpoint, image_size=config.image_size, budget=config.budget)
    about = _about(checkpoint, predictor)
    if archive is not None:
        path = path / MODEL
    made = export_network(predictor, path, kind=kind, steps=config.steps, dtype=str(config.dtype), about=about)
    if archive is not None:
        told = {"network": about.get("name"), "data": about.get("data"), "licence": about.get("licence")}
        size = write_page(path.parent, {**told, "steps": FixedNetwork(predictor.network, config.steps).steps}, archive)
        print(one_line(f"{path.parent}: {size / 1e6:.1f} MB; python -m http.server --directory {path.parent}"))
    unlike = f"a drawn picture differs by {made.difference:.1f} of 255 grey levels"
    print(one_line(f"{path}: {made.size / 1e6:.1f} MB; {unlike}"))
    return 0


def _output(config: DictConfig, kind: str, checkpoint: Path) -> Path:
    if OmegaConf.is_missing(config, "output") or config.output in (None, ""):
        raise UserError("output is not set: give output=saliency.onnx")
    check_choices(kind, str(config.dtype))
    checked_budget(config.budget)
    if config.budget is not None and config.steps is not None:
        raise UserError("steps and budget both say how many steps the solve takes: give one of the two")
    for key, least in (("steps", 1), ("image_size", 32)):
        if config[key] is not None and config[key] < least:
            raise UserError(f"{key} must be at least {least}, not {config[key]}")
    suffix = FORMATS[kind]
    path = Path(str(config.output)).expanduser()
    if config.runtime is not None and kind != "web":
        raise UserError("runtime is of format=web")
    if not suffix:
        return _folder(config, path)
    if path.is_dir() or not path.suffix:
        path = path / f"{checkpoint.stem}{suffix}"
    if path.suffix != suffix:
        raise UserError(f"output={path}: format={kind} writes a file that ends in {suffix}")
    if path.is_dir():
        raise UserError(f"output={path} is a folder")
    if path.exists() and not config.overwrite:
        raise UserError(f"output={path} exists: overwrite=true replaces it")
    return path


def _folder(config: DictConfig, path: Path) -> Path:
    """The folder of a page."""
    if path.exists() and not path.is_dir():
        raise UserError(f"output={path} is a file: format=web writes a folder")
    if path.is_dir() and any(path.iterdir()):
        if not (path / "index.html").exists() or not (path / MODEL).exists():
            raise UserError(f"output={path}: the folder holds other files; give an empty or a new one")
        if not config.overwrite:
            raise UserError(f"output={path} holds a page: overwrite=true replaces it")
    return path


def _about(checkpoint: Path, predictor: Predictor) -> dict[str, str]:
    """What the file says of itself."""
    about = {"version": __version__, "image_size": str(predictor.image_size)}
    if checkpoint.suffix == SUFFIX:
        card = read_card(checkpoint)
        about |= {"name": card["name"], "data": card["data"], "licence": card["licence"]}
    return about
