"""A network as a folder for a hub: model.safetensors, model.json (its card) and README.md, the card for people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qefpn.atomic import write_atomic
from qefpn.models.packed import MODEL, packable, read_card, write_packed
from qefpn.text import one_line
from qefpn.version import __version__

HUB_LICENCES = {
    "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit",
}  # fmt: skip
"""Identifiers of the hub that a card's licence may be; anything else is "other" there, with its words below."""
FIGURES = {
    "max_f": "max F", "mean_f": "adaptive F", "weighted_f": "weighted F", "s_measure": "S", "e_measure": "adaptive E",
    "mae": "MAE", "images": "pictures",
}  # fmt: skip
"""Key of a score → head of its column."""


def write_hub_folder(content: Mapping[str, Any], folder: Path, about: Mapping[str, Any], image_size: int) -> int:
    """Write a network for a hub, without its owner's paths.

    Args:
        content: of a checkpoint, or of a packed network (:func:`~qefpn.models.packed.read_packed`).
        folder: made where it is not there; the three files in it are replaced, README.md last.
        about: what the card says: ``name``, ``data``, ``licence``, ``recipe``, ``scores`` (protocol → data set →
            figures), and whatever else.
        image_size: side of the pictures that the network is used with.

    Returns:
        Bytes of model.safetensors.
    """
    made = packable(content, image_size)
    kept = {key: made["qefpn"][key] for key in ("config", "budgets") if key in made["qefpn"]}
    write_packed(made, folder / MODEL, {**about, **kept}, embed=True)
    write_atomic(folder / "README.md", model_card(read_card(folder / MODEL)))
    return (folder / MODEL).stat().st_size


def model_card(card: Mapping[str, Any]) -> str:
    """README.md of a card: front matter as hubs read it, and what somebody should know before using the network."""
    name, network = one_line(str(card["name"])), card["network"]
    parts = [
        _front_matter(card),
        f"# {name}",
        "Salient object detection: a photograph in, a map of its size out that is bright where the object is that "
        f"stands out. A quasi-equilibrium feature pyramid on {network['backbone']}"
        f"{_parameters(card)}, for pictures at {card['image_size']} px, of qefpn {card.get('version', __version__)}.",
        _use(card),
        _budget(card),
        _scores(card),
        f"## Data\n\n{card['data']}\n\n```\n{card['recipe'].get('command', '')}\n```",
        f"## Licence\n\n{card['licence']}",
        _limits(card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(card: Mapping[str, Any]) -> str:
    """YAML whose values are JSON's: quoted, so that no word of a card is read as anything but text."""
    licence = str(card["licence"]).lower()
    known = licence in HUB_LICENCES
    entries: list[tuple[str, Any]] = [("license", licence if known else "other")]
    if not known:
        entries.append(("license_name", "see-the-licence-section"))
    entries += [
        ("library_name", "qefpn"),
        ("pipeline_tag", "image-segmentation"),
        ("tags", ["salient-object-detection", "background-removal", "deep-equilibrium-model", "qefpn", "safetensors"]),
        ("datasets", _trained_on(card)),
        ("metrics", ["mae", "f-measure"] if card["scores"] else []),
    ]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries if value]
    return "\n".join(["---", *lines, *_model_index(card), "---"])


def _trained_on(card: Mapping[str, Any]) -> list[str]:
    """The training sets by name, as a hub takes one: letters, digits, dots, dashes."""
    data = (card.get("config") or {}).get("data") or {}
    if data.get("name") == "synthetic":  # of which no hub has a set
        return []
    return [name for name in data.get("train") or [] if re.fullmatch(r"[\w][\w.-]{0,95}", str(name))]


def _model_index(card: Mapping[str, Any]) -> list[str]:
    results = [
        {
            "task": {"type": "image-segmentation", "name": "Salient object detection"},
            "dataset": {"type": re.sub(r"[^\w.-]+", "-", dataset).lower(), "name": dataset},
            "metrics": [
                {"type": key, "name": f"{FIGURES[key]} ({protocol})", "value": round(float(scores[key]), 4)}
                for key in FIGURES
                if key in scores and key != "images"
            ],
        }
        for protocol, sets in card["scores"].items()
        for dataset, scores in sets.items()
    ]
    index = [{"name": str(card["name"]), "results": results}]
    return [f"model-index: {json.dumps(index, ensure_ascii=False)}"] if results else []


def _parameters(card: Mapping[str, Any]) -> str:
    return f", {card['parameters']:,} parameters" if "parameters" in card else ""


def _use(card: Mapping[str, Any]) -> str:
    return f"""## How to use it

`owner/name` is where this folder lies on the hub; a path to the folder itself does as well. Needs
`pip install 'qefpn[hub]'`; nothing is unpickled.

```python
from qefpn import Predictor

predictor = Predictor.from_pretrained("owner/name")
saliency = predictor("photo.jpg")  # (H, W), uint8
```

```
qefpn predict checkpoint=hub:owner/name input=photo.jpg output=cutout.png
qefpn evaluate checkpoint=hub:owner/name data.root=DIR data.test=[ECSSD]
qefpn train init=hub:owner/name data=folder data.root=DIR
qefpn export checkpoint=hub:owner/name output=saliency.onnx
```

Of any web server, one file with its sha256 does:
`Predictor.from_pretrained("https://HOST/{MODEL}#sha256={card["sha256"]}")`.
To publish a folder like this one: `hf upload owner/name FOLDER`."""


def _budget(card: Mapping[str, Any]) -> str:
    network = card["network"]
    solver = network.get("solver") or {}
    if network.get("pyramid") == "none" or "max_steps" not in solver:
        return ""
    name = solver.get("name") or str(solver.get("_target_", "solver")).rpartition(".")[2]
    rows = {"exact": solver, **(card.get("budgets") or {})}
    lines = [f"| `budget={key}` | {one['max_steps']} | {one.get('rtol', 0):g} |" for key, one in rows.items()]
    chosen = "" if len(rows) > 1 else "\n\n`qefpn analyze budget` chooses cheaper ones on held-out pictures."
    return (
        f"## How far it is solved\n\nThe pyramid is a fixed point that a solver ({name}) looks for, "
        "a picture at a time:\n\n"
        "| | steps at most | relative tolerance |\n| --- | ---: | ---: |\n" + "\n".join(lines) + chosen
    )


def _scores(card: Mapping[str, Any]) -> str:
    tables = []
    for protocol, sets in card["scores"].items():
        keys = [key for key in FIGURES if any(key in scores for scores in sets.values())]
        head = f"| protocol {protocol} | {' | '.join(FIGURES[key] for key in keys)} |\n| --- |{' ---: |' * len(keys)}"
        rows = [
            f"| {_cell(name)} | {' | '.join(_figure(key, scores.get(key)) for key in keys)} |"
            for name, scores in sets.items()
        ]
        tables.append("\n".join([head, *rows]))
    text = (
        "\n\n".join(tables)
        if tables
        else "None were measured for this card: `qefpn evaluate checkpoint=hub:owner/name`."
    )
    return f"## Scores\n\n{text}"


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")


def _figure(key: str, value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if key == "images" else f"{value:.3f}"


def _limits(card: Mapping[str, Any]) -> str:
    seen: Sequence[str] = _trained_on(card)
    kind = f"as those of {', '.join(seen)} are" if seen else "as its training pictures are"
    size = card["image_size"]
    return f"""## Limits

- It marks what stands out, whatever it is: it names nothing, and tells two objects that touch not apart.
- Expect less on photographs that are not {kind}; where nothing stands out the map is not empty by itself.
- Every picture is seen at {size} × {size} px, so that hair and thin parts are coarse in the map of a large photograph.
- Weights are kept in float16 and computed in float32.
- It is not made to identify people or to decide about them."""
