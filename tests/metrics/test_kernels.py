"""The compiled functions: distances, types, threads, processes, and the cache of machine code."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from tests.metrics.maps import a_map, a_mask, blobs, pairs

from qefpn.metrics import compiled, saliency_scores, weighted_f
from qefpn.metrics.histogram import count
from qefpn.metrics.protocol import PYSOD, levels_of
from qefpn.metrics.weighted_f import FAR

SHAPES = [(1, 1), (1, 33), (33, 1), (2, 31), (5, 32), (40, 64), (65, 97), (7, 700), (700, 7), (300, 411)]
LEVELS = levels_of(0, 255, PYSOD)


def counted(saliency: np.ndarray, mask: np.ndarray, matlab: bool) -> tuple[tuple[int, int], np.ndarray]:
    """The split and the counts once more, from the definitions."""
    inside = mask > 0
    rows, columns = np.nonzero(inside)
    split = saliency.shape
    if len(rows) and matlab:
        split = tuple(int(np.floor((places + 1).mean() + 0.5)) for places in (rows, columns))
    elif len(rows):
        split = tuple(int(np.round(places.mean())) + 1 for places in (rows, columns))
    counts = np.zeros((2, 4, 256), np.int64)
    row, column = np.indices(saliency.shape)
    quadrant = 2 * (row >= split[0]) + (column >= split[1])
    np.add.at(counts, (inside.astype(int), quadrant, saliency), 1)
    return split, counts


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("matlab", [True, False])
def test_counts_are_equal(shape: tuple[int, int], matlab: bool) -> None:
    rng = np.random.default_rng(73)
    for _ in range(8):
        mask = np.where(a_mask(rng, *shape)[1] > 128, np.uint8(255), np.uint8(0))
        saliency = a_map(rng, mask)[1]
        found = np.full((2, 4, 256), -1, np.int64)
        split, expected = counted(saliency, mask, matlab)
        assert tuple(count(saliency, mask, matlab, found)) == split
        assert (found == expected).all()


def far_masks() -> Iterator[np.ndarray]:
    """Foreground far away, behind the limit of 256 px, in wide and in high pictures; blobs; noise."""
    rng = np.random.default_rng(74)
    for shape in [*SHAPES, (30, 1300), (1300, 30), (520, 560)]:
        for points in (1, 2, 5, 40):
            mask = np.zeros(shape, np.uint8)
            mask[rng.integers(0, shape[0], points), rng.integers(0, shape[1], points)] = 255
            yield mask
        yield blobs(rng, *shape)
        yield (rng.random(shape) < 0.3).astype(np.uint8) * 255


def test_every_distance_is_exact() -> None:
    """The sum over random entries of a table by squared distance tells any two distances apart."""
    rng = np.random.default_rng(75)
    table = rng.random(FAR + 1)
    table[0] = 0
    compared = 0
    for mask in far_masks():
        if not mask.any():
            continue
        squared = np.minimum(np.rint(distance_transform_edt(mask == 0) ** 2), FAR).astype(np.int64)
        everywhere = rng.integers(1, 256, mask.shape).astype(np.uint8)
        for saliency in (everywhere, np.where(rng.random(mask.shape) < 0.002, everywhere, np.uint8(0))):
            saliency[mask > 0] = 255
            found = weighted_f._errors(saliency, mask, LEVELS, table, 1, 255)[1]
            assert found == pytest.approx((LEVELS[saliency] * table[squared]).sum(), rel=1e-12, abs=1e-12)
            compared += int((squared == FAR).any())
    assert compared > 20


def test_input_may_be_read_only() -> None:
    _, saliency, mask = next(pairs(1, seed=76, size=(40, 50)))
    expected = saliency_scores(saliency, mask)
    saliency.flags.writeable = mask.flags.writeable = False
    assert saliency_scores(saliency, mask) == expected
    with pytest.raises(TypeError):  # another type is an error, and not another compilation
        weighted_f._errors(saliency.astype(np.int16), mask, LEVELS, np.zeros(FAR + 1), 1, 255)


@pytest.mark.parametrize("error", [RuntimeError("no locator available"), OSError(30, "Read-only file system")])
def test_code_that_cannot_be_kept_is_compiled_all_the_same(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def njit(*signature: Any, cache: bool = False, **options: Any) -> Any:
        asked.append(cache)
        if cache:
            raise error
        return lambda function: function

    monkeypatch.setattr(compiled.numba, "njit", njit)
    assert compiled.compiled()(len) is len
    assert asked == [True, False]


def scores_of_sample(_: int = 0) -> list[dict[str, Any]]:
    maps, masks = zip(*((s, m) for _, s, m in pairs(12, seed=77)), strict=True)
    return saliency_scores(list(maps), list(masks))


def test_threads_and_a_fork_give_the_same() -> None:
    expected = repr(scores_of_sample())
    with ThreadPoolExecutor(2) as threads:
        assert [repr(found) for found in threads.map(scores_of_sample, range(6))] == [expected] * 6
    if "fork" in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert repr(pool.apply(scores_of_sample)) == expected


SCRIPT = """
import json
from tests.metrics.test_kernels import scores_of_sample
print(json.dumps(repr(scores_of_sample())))
"""


@pytest.mark.slow
def test_processes_that_compile_at_once(tmp_path: Path) -> None:
    """Two first measurements at once with an empty cache, then one that reads it."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            **{"env": environment, "stdout": subprocess.PIPE, "text": True, "cwd": Path(__file__).parents[2]},
        )

    together = [start() for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=300)[0]) for process in together]
    answers.append(json.loads(start().communicate(timeout=300)[0]))
    assert answers == [repr(scores_of_sample())] * 3
    assert list(tmp_path.rglob("*.nbc"))


LIGHT = """
import sys
import numpy as np
from qefpn.metrics import PROTOCOLS, combine, paired_bootstrap, saliency_scores
assert "numba" not in sys.modules, "importing the metrics imports numba"
mask = np.zeros((9, 9), np.uint8)
mask[2:6, 3:7] = 255
record = saliency_scores(mask // 2, mask, metrics=["iou"], curves=True)
assert combine([record], metrics=["iou"])["iou_max"] == 1
assert "numba" in sys.modules
heavy = [name for name in ("torch", "torchmetrics", "cv2", "pandas", "matplotlib") if name in sys.modules]
assert not heavy, f"scoring imports {heavy}"
"""


def test_scoring_imports_no_torch() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True, cwd=Path(__file__).parents[2])


def test_a_name_that_is_not_there() -> None:
    import qefpn.metrics

    with pytest.raises(AttributeError, match="has no attribute 'SaliencyMetric'"):
        qefpn.metrics.SaliencyMetric  # noqa: B018
