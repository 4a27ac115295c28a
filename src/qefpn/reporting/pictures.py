"""Which pictures are worth a look, and what is shown of one: picture, mask, maps, edges and error."""

from __future__ import annotations

import base64
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from qefpn.benchmark.maps import read_map
from qefpn.data.layouts import Pair
from qefpn.data.reading import read_image, read_mask
from qefpn.errors import UserError
from qefpn.metrics import resize_map
from qefpn.reporting.results import Sample
from qefpn.reporting.tables import finite, metric

if TYPE_CHECKING:
    from qefpn.benchmark.entries import Entry

Array = npt.NDArray[Any]
Scores = Mapping[str, Mapping[str, Any]]
"""Picture → its figures."""

#: what ranks pictures, first one that the scores have
RANKING = ("weighted_f", "s_measure", "mean_f", "max_f", "mae")
REASONS = ("differ", "worst", "best", "between")
#: longest side of a thumbnail in pixels: sharp at the width at which the page shows it, on dense screens too
LONGEST = 320
#: columns of a run's grid
PANELS = ("Picture", "Mask", "Prediction", "Edges", "Error")

# BGR, told apart by any colour vision: predicted but not in the mask, in the mask but not predicted
_EXCESS, _MISSED = (61, 138, 247), (222, 155, 58)


@dataclass(frozen=True)
class Choice:
    """A picture to look at and why: one of `REASONS`."""

    name: str
    why: str
    key: str  # the score that ranked it
    spread: float  # best minus worst method
    mean: float  # over methods


def ranking_metric(tables: Iterable[Scores]) -> str | None:
    """The figure that ranks pictures, or None where there is no score."""
    present = {
        key for table in tables for row in table.values() for key, value in row.items() if finite(value) is not None
    }
    return next((key for key in RANKING if key in present), None)


def choose(tables: Sequence[Scores], count: int, why: Sequence[str] = REASONS) -> list[Choice]:
    """The pictures that say most about some methods, most telling first.

    In turn one where the methods differ most, one of the worst and one of the best on average, and one at even
    distances between them, without repeats. With one method nothing differs, and that reason gives none. Only
    pictures that as many methods as possible have a score of are ranked.

    Args:
        tables: of each method, its scores.
        count: pictures wanted.
        why: the reasons to choose by.
    """
    key = ranking_metric(tables)
    if key is None:
        return []
    scores: dict[str, list[float]] = {}
    for table in tables:
        for name, row in table.items():
            if (value := finite(row.get(key))) is not None:
                scores.setdefault(name, []).append(value)
    most = max(map(len, scores.values()))
    every = [
        Choice(name, "", key, max(values) - min(values), math.fsum(values) / len(values))
        for name, values in scores.items()
        if len(values) == most
    ]
    sign = -1.0 if metric(key).better == "low" else 1.0
    ranked = sorted(every, key=lambda one: (sign * one.mean, one.name))
    share = min(-(-count // len(why)), max(1, len(ranked) // 3))
    middle = ranked[share : len(ranked) - share]
    orders = {
        "differ": sorted((one for one in every if one.spread > 0), key=lambda one: (-one.spread, one.name)),
        "worst": ranked,
        "best": ranked[::-1],
        "between": [middle[place] for place in even(len(middle), share)] + ranked,
    }
    return _in_turn([(reason, orders[reason]) for reason in why], count)


def _in_turn(orders: Sequence[tuple[str, list[Choice]]], count: int) -> list[Choice]:
    queues = {reason: iter(order) for reason, order in orders}
    taken: dict[str, Choice] = {}
    while queues and len(taken) < count:
        for reason, queue in list(queues.items()):
            one = next((one for one in queue if one.name not in taken), None)
            if one is None:
                del queues[reason]
            elif len(taken) < count:
                taken[one.name] = Choice(one.name, reason, one.key, one.spread, one.mean)
    return list(taken.values())


def even(count: int, wanted: int) -> list[int]:
    """``wanted`` positions spread over ``count`` at equal distances, in the middle of their share."""
    wanted = min(count, wanted)
    return [int((index + 0.5) * count / wanted) for index in range(wanted)]


def picture_scores(entry: Entry) -> dict[str, Mapping[str, Any]]:
    """Picture → its row of scores."""
    return {str(row["name"]): row for row in entry.pictures}


@dataclass(frozen=True)
class Looks:
    """The files of one picture as arrays; None where one is missing or cannot be read.

    Attributes:
        picture: uint8 RGB (H, W, 3).
        mask: uint8 (H, W).
        maps: uint8 (H, W) a method, resized to the mask as the scores' maps were.
    """

    picture: Array | None
    mask: Array | None
    maps: list[Array | None]


def read_looks(pair: Pair, entries: Sequence[Entry]) -> Looks:
    """The picture, its mask, and the map of each of ``entries``."""
    mask, _ = _try_read(pair.mask, read_mask)
    maps: list[Array | None] = []
    for entry in entries:
        saliency, _ = _try_read(entry.maps.get(pair.name), lambda path: read_map(path)[0])
        maps.append(saliency if saliency is None or mask is None else resize_map(saliency, mask.shape))
    return Looks(_try_read(pair.image, read_image)[0], mask, maps)


def panels(sample: Sample) -> list[tuple[str, str]]:
    """(data URI, "") or ("", why there is none) for each of `PANELS`."""
    # read as the scores were: colour masks, EXIF orientation and the rest mean here what they meant there
    picture, no_picture = _try_read(sample.image, lambda path: read_image(_content(path)))
    mask, no_mask = _try_read(sample.mask, lambda path: read_mask(_content(path)))
    prediction, no_prediction = _try_read(sample.map, lambda path: _decoded(_content(path)))
    out = [
        (data_uri(shrink(picture)), "") if picture is not None else ("", no_picture),
        (data_uri(shrink(mask), ".png"), "") if mask is not None else ("", no_mask),
    ]
    if prediction is None:
        return out + [("", no_prediction)] * 3
    small = shrink(prediction)
    out += [(data_uri(small, ".png"), ""), (data_uri(edge_picture(small), ".png"), "")]
    if mask is None:
        return [*out, ("", no_mask)]
    height, width = small.shape[:2]
    fitted = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    return [*out, (data_uri(error_picture(small, fitted)[..., ::-1]), "")]


def _try_read(file: Any, read: Callable[[Any], Array]) -> tuple[Array | None, str]:
    if file is None:
        return None, "not saved"
    try:
        return read(file), ""
    except (OSError, KeyError, zipfile.BadZipFile, UserError, cv2.error):
        return None, "cannot be read"


def _content(name: str) -> bytes:
    """The bytes of a file, or of a member of a zip as samples.json names it: ``archive.zip!/member``."""
    path = Path(name)
    archive, bang, member = path.as_posix().partition("!/")
    if bang and not path.exists() and Path(archive).is_file():
        with zipfile.ZipFile(archive) as file:
            return file.read(member)
    return path.read_bytes()


def _decoded(content: bytes) -> Array:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE) if content else None
    if image is None:
        raise UserError("no picture")
    return np.asarray(image)


def shrink(image: Array, longest: int = LONGEST) -> Array:
    """The image with no side above ``longest``, shape kept; smaller ones stay as they are."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def edge_picture(saliency: Array) -> Array:
    """Sobel edges of a uint8 map (H, W), uint8 (H, W): a straight step between 0 and 255 is white.

    The same magnitude as the edge loss takes: filters divided by 4, borders replicated; here without the
    1/√2 that keeps diagonal responses below 1, which are cut off instead.
    """
    x = saliency.astype(np.float64) / (255 * 4)
    dx = cv2.Sobel(x, cv2.CV_64F, 1, 0, ksize=3, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.Sobel(x, cv2.CV_64F, 0, 1, ksize=3, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(np.round(255 * np.minimum(np.hypot(dx, dy), 1.0)).astype(np.uint8))


def error_picture(saliency: Array, mask: Array) -> Array:
    """Where the uint8 maps (H, W) differ, BGR uint8 (H, W, 3): orange too much, blue too little.

    The mask is drawn in grey underneath, for orientation.
    """
    difference = (saliency.astype(np.float64) - mask) / 255
    base = (24 + 66 * (mask / 255.0))[..., None] * np.ones(3)
    colour = np.where((difference > 0)[..., None], np.array(_EXCESS, float), np.array(_MISSED, float))
    weight = np.abs(difference)[..., None]
    return np.asarray(np.round(base * (1 - weight) + colour * weight).astype(np.uint8))


def data_uri(image: Array, extension: str = ".jpg", quality: int = 85) -> str:
    """A grey or RGB image as it stands in a page."""
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    image = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
    done, data = cv2.imencode(extension, image, jpeg if extension == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise ValueError(f"an image of shape {image.shape} could not be encoded")
    kind = "jpeg" if extension == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


def histogram(values: Sequence[float], bins: int = 20) -> list[int]:
    """Counts of values in [0, 1] in equal bins; 1 belongs to the last."""
    counts, _ = np.histogram([value for value in values if math.isfinite(value)], bins, (0, 1))
    return [int(count) for count in counts]
