"""Scoring folders of saliency maps on all cores, map by map, so that one bad file never ends a run."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

from qefpn.benchmark.entries import Entry
from qefpn.benchmark.maps import MapFolder, match_maps, read_map
from qefpn.benchmark.score_cache import Outcome, ScoreCache, content_hash, pack, score_key
from qefpn.data.contents import label_values
from qefpn.data.files import PictureFile, ZipMember, file_key
from qefpn.data.layouts import Pair
from qefpn.data.reading import read_mask
from qefpn.data.workers import cpu_count, mapped
from qefpn.errors import UserError
from qefpn.metrics import choose, combine, get_protocol, saliency_scores
from qefpn.metrics.bootstrap import Resampled, resample_counts, set_figures
from qefpn.metrics.figures import Figures
from qefpn.metrics.scores import compile_all

_CHUNK = 16
_HASHED = 1024
_FEW = 200
"""Below so many maps, starting processes takes longer than the scoring."""

SOD = choose("sod")

Job = tuple[bytes, PictureFile, PictureFile]
"""Key, map, mask."""
Progress = Callable[[str, int, int], None]


@dataclass
class _Task:
    """One method on one data set, before scoring."""

    folder: MapFolder
    pairs: Sequence[Pair]
    maps: dict[str, Path | ZipMember]
    missing: list[str]
    extra: list[str]
    twice: list[str]
    keys: dict[str, bytes]
    unreadable: dict[str, str]


@lru_cache(4)
def _read_mask(file: PictureFile, _content: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], str]:
    """A mask, and what is wrong with it if it is a label map; kept for the other methods' maps of the picture."""
    truth = read_mask(file)
    return truth, label_values(truth) or ""


def score_map(file: PictureFile, mask: PictureFile, protocol: str, metrics: Figures = SOD) -> Outcome:
    """Score one map against its mask; what is wrong with either is the outcome's failure, not an exception."""
    try:
        truth, labels = _read_mask(mask, file_key(mask))
        if labels:
            return Outcome(failure=f"its mask is a label map ({labels})")
        saliency, remark = read_map(file, quantize=metrics.quantize)
        record = saliency_scores(saliency, truth, protocol, curves=True, metrics=metrics)
    except (UserError, OSError, ValueError, MemoryError) as error:
        return Outcome(failure=str(error).splitlines()[0] if str(error) else type(error).__name__)
    return Outcome(record, saliency.shape != truth.shape, remark)


def _score_jobs(jobs: Sequence[Job], protocol: str, metrics: Figures) -> list[tuple[bytes, bytes]]:
    return [(key, pack(score_map(file, mask, protocol, metrics))) for key, file, mask in jobs]


def _one_thread() -> None:
    """Of a worker process: as many processes as cores, each with one thread."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent ends the work

    cv2.setNumThreads(1)


@contextmanager
def _executor(jobs: int, workers: int) -> Iterator[Executor]:
    pool: Executor
    if workers <= 1 or jobs < _FEW:
        pool = ThreadPoolExecutor(max(1, workers))
    else:
        compile_all()  # here where it never was, not in every process
        context = multiprocessing.get_context("spawn")  # fork would copy threads' locks
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def score_folders(
    folders: Sequence[MapFolder],
    pairs_by_dataset: dict[str, Sequence[Pair]],
    *,
    protocol: str,
    metrics: str | Sequence[str] | Figures = "sod",
    cache: ScoreCache,
    workers: int | None = None,
    progress: Progress | None = None,
    resamples: int = 0,
) -> list[Entry]:
    """Score every map of every method on every data set.

    Args:
        folders: where the maps are.
        pairs_by_dataset: the pictures and masks.
        protocol: "f3net", "pysod" or "saleval".
        metrics: what is measured beside the figures that are always there, as ``metrics.choose`` takes it.
        cache: where outcomes are kept; those it has are not computed again.
        workers: processes; None for one a core.
        progress: called as ``progress(what, done, total)``.
        resamples: sets drawn of the pictures, for intervals; 0 for none.

    Returns:
        one entry a folder, in their order. A folder with no scored map gives an entry without figures.

    Raises:
        UserError: a worker process was killed (out of memory, for example).
    """
    tell = progress or (lambda what, done, total: None)
    figures = choose(metrics)
    tasks = [_task(folder, pairs_by_dataset[folder.dataset]) for folder in folders]
    _find_keys(tasks, protocol, figures, cache, tell)
    jobs = _open_jobs(tasks, cache)
    _run(jobs, protocol, figures, cache, workers or os.cpu_count() or 1, tell)
    return [_entry(task, protocol, figures, cache, resamples) for task in tasks]


def _task(folder: MapFolder, pairs: Sequence[Pair]) -> _Task:
    found = match_maps(folder, pairs)
    return _Task(folder, pairs, found.maps, found.missing, found.extra, found.twice, {}, {})


def _find_keys(tasks: Sequence[_Task], protocol: str, figures: Figures, cache: ScoreCache, tell: Progress) -> None:
    total, done = sum(len(task.maps) for task in tasks), 0
    what = "reading maps"

    def key_of(pair: tuple[PictureFile, PictureFile]) -> bytes | str:
        try:
            return score_key(cache.hash_of(pair[0]), cache.hash_of(pair[1]), protocol, figures)
        except OSError as error:
            return f"cannot read {error.filename or pair[0]}: {error.strerror or error}"

    for task in tasks:
        masks = {pair.name: pair.mask for pair in task.pairs}
        names = sorted(task.maps)
        for some in (names[first : first + _HASHED] for first in range(0, len(names), _HASHED)):
            files = [(task.maps[name], masks[name]) for name in some]
            cache.ask_for([file for pair in files for file in pair])
            unknown = [pair for pair in files if None in map(cache.known_hash, pair)]
            read = dict(mapped(key_of, unknown, 2 * cpu_count()))  # reading and hashing release the interpreter
            for name, pair in zip(some, files, strict=True):
                found = read[pair] if pair in read else key_of(pair)
                if isinstance(found, bytes):
                    task.keys[name] = found
                else:
                    task.unreadable[name] = found
                done += 1
            cache.put([])
            tell(what, done, total)


def _open_jobs(tasks: Sequence[_Task], cache: ScoreCache) -> list[Job]:
    jobs: dict[bytes, Job] = {}
    for task in tasks:
        masks, known = {pair.name: pair.mask for pair in task.pairs}, cache.has(list(task.keys.values()))
        for name, key in task.keys.items():
            if key not in jobs and key not in known:
                jobs[key] = (key, task.maps[name], masks[name])
    return sorted(jobs.values(), key=lambda job: str(job[2]))  # a mask is read once for all methods


def _run(jobs: Sequence[Job], protocol: str, figures: Figures, cache: ScoreCache, workers: int, tell: Progress) -> None:
    done, what = 0, "scoring maps"
    if not jobs:
        return
    tell(what, 0, len(jobs))
    with _executor(len(jobs), workers) as pool:
        starts = iter(range(0, len(jobs), _CHUNK))
        chunks: set[Future[Any]] = set()  # those of which the results are not kept yet: few, as each holds curves
        try:
            while True:
                for first in islice(starts, 4 * workers - len(chunks)):
                    chunks.add(pool.submit(_score_jobs, jobs[first : first + _CHUNK], protocol, figures))
                if not chunks:
                    break
                for chunk in wait(chunks, return_when=FIRST_COMPLETED).done:
                    outcomes = chunk.result()
                    cache.put(outcomes)
                    chunks.discard(chunk)
                    done += len(outcomes)
                    tell(what, done, len(jobs))
        except BrokenProcessPool:
            raise UserError(
                f"a worker process was ended from outside (out of memory?) after {done} of {len(jobs)} maps; what was "
                f"scored is kept: run the command again, with fewer workers=N"
            ) from None
        except KeyboardInterrupt:
            for chunk in chunks:
                if chunk.done() and not chunk.cancelled() and chunk.exception() is None:
                    cache.put(chunk.result())
            raise


def _entry(task: _Task, protocol: str, figures: Figures, cache: ScoreCache, resamples: int) -> Entry:
    rows: list[dict[str, Any]] = []
    curves = _curve_file(len(task.keys), len(figures.curves)) if resamples and task.keys else None
    resized: list[str] = []
    failed, notes = dict(task.unreadable), dict[str, list[str]]()

    def records() -> Iterator[dict[str, Any]]:
        names = sorted(task.keys)
        for name, outcome in zip(names, cache.get_all([task.keys[name] for name in names]), strict=True):
            if outcome is None:
                failed[name] = "its scores are gone from the cache"
                continue
            if outcome.failure:
                failed[name] = outcome.failure
                continue
            rows.append(
                {"name": name, **{key: value for key, value in outcome.record.items() if key not in figures.curves}}
            )
            if outcome.resized:
                resized.append(name)
            if outcome.remark:
                notes.setdefault(outcome.remark, []).append(name)
            if curves is not None:
                curves[:, len(rows) - 1] = [outcome.record[name] for name in figures.curves]
            yield outcome.record

    combined = combine(records(), protocol, figures)
    found = combined if rows else {}
    if task.twice:
        notes["passed over, as another map has the same name"] = task.twice
    return Entry(
        method=task.folder.method,
        dataset=task.folder.dataset,
        scores={key: float(value) for key, value in found.items() if isinstance(value, float)},
        curves={key: found[key].tolist() for key in figures.curves if key in found},
        pictures=rows,
        expected=len(task.pairs),
        missing=task.missing,
        extra=task.extra,
        resized=resized,
        failed=failed,
        maps=task.maps,
        key=content_hash(repr((sorted(task.keys.items()), task.missing, task.extra, failed)).encode()),
        notes=notes,
        resampled={} if curves is None or not rows else _resampled(task, rows, curves, protocol, figures, resamples),
    )


def _curve_file(pictures: int, curves: int) -> npt.NDArray[np.float32]:
    """(curves, pictures, 256) in a file without a name, 4 kB a picture: memory does not grow with the set."""
    with TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=(curves, pictures, 256))


def _resampled(
    task: _Task,
    rows: Sequence[dict[str, Any]],
    curves: Any,
    protocol: str,
    figures: Figures,
    resamples: int,
) -> dict[str, Resampled]:
    """The figures over resamples of the whole set, of which a method that lacks maps has a part."""
    places = {name: place for place, name in enumerate(sorted(pair.name for pair in task.pairs))}
    counts = _counts(len(places), resamples)
    if len(rows) < len(places):  # else no copy
        counts = counts[:, [places[row["name"]] for row in rows]]
    return set_figures(
        {name: [row[name] for row in rows] for name in figures.scores},
        dict(zip(figures.curves, curves[:, : len(rows)], strict=True)),
        counts,
        curve_of_means=get_protocol(protocol).curve_of_means,
        seen=np.array([not row.get("blank_map", 0) for row in rows]),
    )


_counts = lru_cache(maxsize=1)(resample_counts)  # one matrix a set, whatever the number of methods
