"""`qefpn serve`: a page that cuts out what stands out in a photograph, and the endpoint behind it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from qefpn.errors import UserError
from qefpn.experiments.command_line import command_help
from qefpn.experiments.composition import command_config
from qefpn.experiments.runtime import choose_device, quiet_libraries
from qefpn.inference.predictor import Predictor
from qefpn.models.packed import SUFFIX, network_file, read_card
from qefpn.text import one_line

SUMMARY = """
qefpn serve - a web page: drop a photograph, get its mask and its cut-out

qefpn serve
qefpn serve checkpoint=RUN/checkpoints/best.ckpt port=9000
curl -F file=@photo.jpg 'http://127.0.0.1:8000/api/predict?output_type=rgba' -o cutout.png

Only this machine reaches it unless host= says otherwise, and it asks for no password.
"""
NEEDS = ("starlette", "uvicorn", "python_multipart")


def main(argv: Sequence[str]) -> int:
    """0 once it is ended by hand, or 2 for a mistake in the options."""
    if any(word in ("-h", "--help") for word in argv):
        print(command_help("serve", SUMMARY))
        return 0
    quiet_libraries(lightning=False)
    config = _options(argv)
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"it needs the package {missing[0].replace('_', '-')}: pip install 'qefpn[serve]'")
    _serve(config)
    return 0


def _options(argv: Sequence[str]) -> DictConfig:
    config = command_config("serve", argv)
    for key, least in (("queue", 1), ("image_size", 32)):
        if config[key] is not None and config[key] < least:
            raise UserError(f"{key} must be at least {least}, not {config[key]}")
    for key in ("max_megabytes", "max_megapixels"):
        if not 0 < float(config[key]) < float("inf"):
            raise UserError(f"{key} must be positive, not {config[key]}")
    for key in ("hosts", "cors"):
        if not isinstance(config[key], ListConfig):
            raise UserError(f"{key} must be a list, such as {key}=[{config[key]}]")
    if odd := next((str(name) for name in config.hosts if set("/: ") & set(str(name)) or "*" in str(name)[1:]), None):
        raise UserError(f"hosts: {odd!r} is no name of a machine, such as photos.example.org")
    return config


def _serve(config: DictConfig) -> None:
    from qefpn.serving.application import Terms, application
    from qefpn.serving.server import address_of, listening, own_names, run
    from qefpn.serving.work import Studio

    host = str(config.host)
    device, file = choose_device(str(config.device)), network_file(config.checkpoint)
    with listening(host, int(config.port)) as made:  # before the network is read, which takes seconds
        predictor = Predictor(file, device=device, image_size=config.image_size)
        terms = Terms(
            hosts=(*own_names(host), *(str(name) for name in config.hosts)),
            cors=tuple(str(origin) for origin in config.cors),
            queue=int(config.queue),
            max_bytes=int(float(config.max_megabytes) * 1e6),
        )
        app = application(Studio(predictor, float(config.max_megapixels)), about(file), terms)
        print(one_line(f"{address_of(made)} ({file.stem} on {device}); Ctrl-C ends it"), flush=True)
        run(app, [made])
    print("ended")


def about(file: Path) -> dict[str, str | None]:
    """What is told of a network: of those that come with the package what their cards say."""
    told: dict[str, str | None] = {"code": "MIT", "network": None, "data": None, "licence": None}
    if file.suffix == SUFFIX and file.with_suffix(".json").exists():
        card = read_card(file)
        told |= {"network": card["name"], "data": card["data"], "licence": card["licence"]}
    return told
