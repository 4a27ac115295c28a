"""The compiled functions and those of NumPy: the same integers, the same scores, and which of them is used."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from tests.metrics.maps import a_map, a_mask, blobs, pairs
from tests.metrics.test_agreement import compare

from qefpn.metrics import kernels as module
from qefpn.metrics import measure, saliency_scores, scores
from qefpn.metrics.distance import FAR
from qefpn.metrics.histogram import count, min_max_levels
from qefpn.metrics.kernels import Kernels, kernels, numba_kernels, numpy_kernels
from qefpn.metrics.scores import CURVES, SCORES

numba = pytest.importorskip("numba")
numba_histogram = pytest.importorskip("qefpn.metrics.numba_histogram")
numba_weighted_f = pytest.importorskip("qefpn.metrics.numba_weighted_f")

PROTOCOLS = ("f3net", "pysod")
SHAPES = [(1, 1), (1, 33), (33, 1), (2, 31), (5, 32), (40, 64), (65, 97), (7, 700), (700, 7), (300, 411)]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kernels], None]:
    def choose(chosen: Kernels) -> None:
        monkeypatch.setattr(scores, "kernels", lambda: chosen)

    return choose


@pytest.fixture
def fresh_choice() -> Iterator[None]:
    kernels.cache_clear()
    yield
    kernels.cache_clear()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_both_give_the_same_scores(protocol: str, use: Callable[[Kernels], None]) -> None:
    maps, masks = zip(*((s, m) for _, s, m in pairs(600, seed=70)), strict=True)
    values = []
    for chosen in (numba_kernels(), numpy_kernels()):
        use(chosen)
        values.append(measure(list(maps), list(masks), protocol).values)
    for name in (*SCORES, *CURVES):
        np.testing.assert_allclose(values[0][name], values[1][name], rtol=1e-12, atol=1e-12, err_msg=name)
    assert np.isnan(values[0]["s_measure"]).any()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_used_without_numba_agrees_with_the_oracles(protocol: str, use: Callable[[Kernels], None]) -> None:
    use(numpy_kernels())
    compare(protocol, pairs(120, seed=71))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", [(352, 352), (400, 300)])
def test_without_numba_on_large_pictures(protocol: str, size: tuple[int, int], use: Callable[[Kernels], None]) -> None:
    use(numpy_kernels())
    compare(protocol, pairs(4, seed=72, size=size))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("matlab", [True, False])
def test_counts_are_equal(shape: tuple[int, int], matlab: bool) -> None:
    rng = np.random.default_rng(73)
    compiled = numba_kernels().count
    for _ in range(8):
        mask = np.where(a_mask(rng, *shape)[1] > 128, np.uint8(255), np.uint8(0))
        saliency = a_map(rng, mask)[1]
        found, expected = np.full((2, 2, 4, 256), -1, np.int64)
        assert tuple(compiled(saliency, mask, matlab, found)) == count(saliency, mask, matlab, expected)
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
    levels = min_max_levels(0, 255)
    compared = 0
    for mask in far_masks():
        if not mask.any():
            continue
        squared = np.minimum(np.rint(distance_transform_edt(mask == 0) ** 2), FAR).astype(np.int64)
        everywhere = rng.integers(1, 256, mask.shape).astype(np.uint8)
        for saliency in (everywhere, np.where(rng.random(mask.shape) < 0.002, everywhere, np.uint8(0))):
            saliency[mask > 0] = 255
            found = numba_weighted_f._errors(saliency, mask, levels, table)[1]
            assert found == pytest.approx((levels[saliency] * table[squared]).sum(), rel=1e-12, abs=1e-12)
            compared += int((squared == FAR).any())
    assert compared > 20


def test_input_may_be_read_only() -> None:
    _, saliency, mask = next(pairs(1, seed=76, size=(40, 50)))
    expected = saliency_scores(saliency, mask)
    saliency.flags.writeable = mask.flags.writeable = False
    assert saliency_scores(saliency, mask) == expected
    with pytest.raises(TypeError):  # another type is an error, and not another compilation
        numba_weighted_f._errors(saliency.astype(np.int16), mask, min_max_levels(0, 255), np.zeros(FAR + 1))


@pytest.mark.usefixtures("fresh_choice")
def test_numba_is_used_where_it_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels().name == "numba"
    kernels.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    assert kernels().name == "numpy"


@pytest.mark.usefixtures("fresh_choice")
def test_numba_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert kernels().name == "numpy"


@pytest.mark.parametrize("error", [RuntimeError("no locator available"), OSError(30, "Read-only file system")])
def test_code_that_cannot_be_kept_is_compiled_all_the_same(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def njit(*signature: Any, cache: bool = False, **options: Any) -> Any:
        asked.append(cache)
        if cache:
            raise error
        return lambda function: function

    monkeypatch.setattr(numba_histogram.numba, "njit", njit)
    assert numba_histogram.compiled()(len) is len
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
import json, sys
import qefpn.metrics
assert "numba" not in sys.modules, "importing the metrics imports numba"
from tests.metrics.test_kernels import kernels, scores_of_sample
print(json.dumps([kernels().name, repr(scores_of_sample())]))
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
    assert answers == [["numba", repr(scores_of_sample())]] * 3
    assert list(tmp_path.rglob("*.nbc"))


def test_there_is_one_choice() -> None:
    assert module.kernels() is module.kernels()
