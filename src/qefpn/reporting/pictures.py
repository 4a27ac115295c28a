"""Thumbnails of test pictures: picture, mask, prediction, its edges and its error, as data URIs."""

from __future__ import annotations

import base64
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from qefpn.data.reading import read_image, read_mask
from qefpn.errors import UserError
from qefpn.reporting.results import Sample

Array = npt.NDArray[Any]

#: longest side of a thumbnail in pixels: sharp at the width at which the page shows it, on dense screens too
LONGEST = 320
#: what ranks pictures, first one that the scores have; all but MAE are better when higher
RANKING = ("weighted_f", "s_measure", "mean_f", "max_f", "mae")
#: columns of the grid
PANELS = ("Picture", "Mask", "Prediction", "Edges", "Error")

# BGR, told apart by any colour vision: predicted but not in the mask, in the mask but not predicted
_EXCESS, _MISSED = (61, 138, 247), (222, 155, 58)


@dataclass(frozen=True)
class Case:
    """A sample of the grid, its group ("worst", "between", "best") and its figures."""

    sample: Sample
    group: str
    figures: Mapping[str, float]


def ranking_metric(scores: Mapping[tuple[str, str], Mapping[str, float]], dataset: str) -> str | None:
    """The metric that ranks a data set's pictures, or None where it has no scores."""
    rows = [figures for (name, _), figures in scores.items() if name == dataset]
    return next((key for key in RANKING if any(key in row for row in rows)), None)


def choose_cases(
    samples: Sequence[Sample],
    scores: Mapping[tuple[str, str], Mapping[str, float]],
    dataset: str,
    each: int = 3,
) -> list[Case]:
    """The worst, some between at even ranks, and the best of a data set, ``each`` of them, without repeats.

    Pictures without a score (a NaN) are not ranked. Without any scores, samples at even distances are
    chosen, all of them "between".
    """
    own = [sample for sample in samples if sample.dataset == dataset]
    metric = ranking_metric(scores, dataset)

    def figures(sample: Sample) -> Mapping[str, float]:
        return scores.get((dataset, sample.name), {})

    if metric is None or not any(metric in figures(sample) for sample in own):
        return [Case(own[index], "between", {}) for index in _even(len(own), 2 * each)]
    ranked = [sample for sample in own if metric in figures(sample)]
    sign = -1.0 if metric == "mae" else 1.0
    ranked.sort(key=lambda sample: (sign * figures(sample)[metric], sample.name))
    each = min(each, max(1, len(ranked) // 3))
    worst, best = ranked[:each], ranked[max(each, len(ranked) - each) :]
    middle = ranked[each : len(ranked) - len(best)]
    between = [middle[index] for index in _even(len(middle), each)]
    groups = (("worst", worst), ("between", between), ("best", best[::-1]))
    return [Case(sample, group, figures(sample)) for group, chosen in groups for sample in chosen]


def _even(count: int, wanted: int) -> list[int]:
    """``wanted`` positions spread over ``count`` at equal distances, in the middle of their share."""
    wanted = min(count, wanted)
    return [int((index + 0.5) * count / wanted) for index in range(wanted)]


def panels(sample: Sample) -> list[tuple[str, str]]:
    """(data URI, "") or ("", why there is none) for each of `PANELS`."""
    # read as the scores were: colour masks, EXIF orientation and the rest mean here what they meant there
    picture, no_picture = _try_read(sample.image, read_image)
    mask, no_mask = _try_read(sample.mask, read_mask)
    prediction, no_prediction = _try_read(sample.map, _read_map)
    out = [
        (_uri(shrink(picture[..., ::-1]), ".jpg"), "") if picture is not None else ("", no_picture),
        (_uri(shrink(mask), ".png"), "") if mask is not None else ("", no_mask),
    ]
    if prediction is None:
        return out + [("", no_prediction)] * 3
    small = shrink(prediction)
    out += [(_uri(small, ".png"), ""), (_uri(edge_picture(small), ".png"), "")]
    if mask is None:
        return [*out, ("", no_mask)]
    height, width = small.shape[:2]
    fitted = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    return [*out, (_uri(error_picture(small, fitted), ".jpg"), "")]


def _try_read(path: str | None, decode: Callable[[bytes], Array]) -> tuple[Array | None, str]:
    if path is None:
        return None, "not saved"
    try:
        return decode(_content(Path(path))), ""
    except (OSError, KeyError, zipfile.BadZipFile, UserError, cv2.error):
        return None, "cannot be read"


def _content(path: Path) -> bytes:
    """The bytes of a file, or of a member of a zip as samples.json names it: ``archive.zip!/member``."""
    archive, bang, member = path.as_posix().partition("!/")
    if bang and not path.exists() and Path(archive).is_file():
        with zipfile.ZipFile(archive) as file:
            return file.read(member)
    return path.read_bytes()


def _read_map(content: bytes) -> Array:
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


def _uri(image: Array, extension: str) -> str:
    options = [cv2.IMWRITE_JPEG_QUALITY, 85] if extension == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    done, data = cv2.imencode(extension, image, options)
    if not done:
        raise ValueError(f"an image of shape {image.shape} could not be encoded")
    kind = "jpeg" if extension == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


def histogram(values: Sequence[float], bins: int = 20) -> list[int]:
    """Counts of values in [0, 1] in equal bins; 1 belongs to the last."""
    counts = [0] * bins
    for value in values:
        if math.isfinite(value):
            counts[min(bins - 1, max(0, int(value * bins)))] += 1
    return counts
