"""Many pictures: while the network works on some, the next are read and the former are made and written."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event

import numpy as np

from qefpn.atomic import DiskFull
from qefpn.data.reading import Layers, on_white
from qefpn.errors import UserError
from qefpn.inference.files import Job
from qefpn.inference.predictor import Predictor, in_batches

_READERS = 2
_ENDS_ALL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""After one of these errors no other result can be written either."""


@dataclass
class Outcome:
    """What became of the pictures.

    Attributes:
        done: how many have their results, those of an earlier run among them.
        kept: how many of an earlier run.
        failures: (picture, why not).
        ended_by: what ended it before its end.
    """

    done: int = 0
    kept: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    ended_by: str = ""


class _Ended(Exception):
    """Nothing more can be written; the message says why."""


@dataclass
class Pipeline:
    """Reads, predicts and writes; what happens goes into ``outcome`` as it happens.

    Args:
        predictor: the network.
        read: gives a job's picture; raises ``UserError``.
        write: makes and writes a job's results of its picture and map; called one at a time. An ``OSError`` names the
            file.
        is_done: whether an earlier run did a job.
        on_done: called after a job's results were written, in the calling thread.
        advance: called with the number of further pictures that were dealt with.
    """

    predictor: Predictor
    read: Callable[[Job], Layers]
    write: Callable[[Job, Layers, np.ndarray], None]
    is_done: Callable[[Job], bool]
    on_done: Callable[[Job], None]
    advance: Callable[[int], None]
    outcome: Outcome = field(default_factory=Outcome)

    def run(self, jobs: Sequence[Job], batch_size: int) -> None:
        """Do the jobs. What was finished before an exception, or before the end, is in ``outcome``.

        Args:
            jobs: pictures and their results.
            batch_size: pictures that go through the network at once, at most.

        Raises:
            BrokenPipeError: whoever reads standard output has enough.
        """
        stopped = Event()
        pending: deque[tuple[Job, Future[None]]] = deque()

        def write(job: Job, layers: Layers, saliency: np.ndarray) -> None:
            if stopped.is_set():
                raise _Ended
            try:
                self.write(job, layers, saliency)
            except DiskFull:
                stopped.set()
                raise
            except OSError as error:
                if error.errno in _ENDS_ALL:
                    stopped.set()
                raise

        with ThreadPoolExecutor(_READERS) as readers, ThreadPoolExecutor(1) as writer:
            try:
                for batch in in_batches(self._pictures(jobs, readers), batch_size):
                    maps = self.predictor.batch([image for _, image in batch])
                    for ((job, layers), _), saliency in zip(batch, maps, strict=True):
                        pending.append((job, writer.submit(write, job, layers, saliency)))
                    self._collect(pending, left=len(batch))  # of one batch, no more: pictures may be large
                self._collect(pending, left=0)
            except _Ended as error:
                self.outcome.ended_by = str(error)
            finally:
                stopped.set()
                readers.shutdown(wait=False, cancel_futures=True)
                writer.shutdown(cancel_futures=True)
                for job, future in pending:
                    if not future.cancelled() and future.exception() is None:
                        self._finished(job)

    def _pictures(
        self, jobs: Sequence[Job], readers: ThreadPoolExecutor
    ) -> Iterator[tuple[tuple[Job, Layers], np.ndarray]]:
        """Each job with its picture as the network sees it; the next few are being read meanwhile."""
        ahead: deque[tuple[Job, Future[tuple[Layers, np.ndarray]]]] = deque()

        def read(job: Job) -> tuple[Layers, np.ndarray]:
            layers = self.read(job)
            return layers, on_white(layers.colours, layers.alpha)

        def following() -> Iterator[tuple[Job, Future[tuple[Layers, np.ndarray]]]]:
            for job in jobs:
                if self.is_done(job):
                    self.outcome.done += 1
                    self.outcome.kept += 1
                    self.advance(1)
                    continue
                ahead.append((job, readers.submit(read, job)))
                if len(ahead) > _READERS:
                    yield ahead.popleft()
            while ahead:
                yield ahead.popleft()

        for job, future in following():
            try:
                layers, image = future.result()
            except UserError as error:
                self._failed(job, str(error))
            else:
                yield (job, layers), image

    def _collect(self, pending: deque[tuple[Job, Future[None]]], left: int) -> None:
        """Wait for the first ones, until so many are left, and see what became of them."""
        while len(pending) > left:
            wait([pending[0][1]])  # in its place, so that it counts where Ctrl-C ends the waiting
            self._collected(*pending.popleft())

    def _collected(self, job: Job, future: Future[None]) -> None:
        try:
            future.result()
        except DiskFull as error:
            raise _Ended(f"{error}, and run it again to go on") from error
        except UserError as error:
            self._failed(job, str(error))
        except BrokenPipeError:
            raise
        except OSError as error:
            reason = f"{error.filename} could not be written ({error.strerror})"
            if error.errno in _ENDS_ALL:
                way_out = "make room, or give another output, and run it again to go on"
                raise _Ended(f"{reason}: {way_out}") from error
            self._failed(job, reason)
        else:
            self._finished(job)

    def _finished(self, job: Job) -> None:
        self.outcome.done += 1
        self.on_done(job)
        self.advance(1)

    def _failed(self, job: Job, reason: str) -> None:
        self.outcome.failures.append((job.label, reason))
        self.advance(1)
