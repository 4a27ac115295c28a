"""What is done for a request: a photograph's bytes become a PNG, one at a time, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from qefpn.data.reading import Layers, TestTransform, on_white, read_layers
from qefpn.errors import UserError
from qefpn.inference.cutout import background_named
from qefpn.inference.output import OUTPUT_TYPES, Rendering
from qefpn.inference.predictor import Predictor, to_maps
from qefpn.text import did_you_mean

T = TypeVar("T")
LONGEST_WAIT = 30
"""Seconds after which a client that was sent away is asked back, at most."""


@dataclass(frozen=True)
class Asked:
    """What is wanted of a photograph.

    Attributes:
        kind: of ``OUTPUT_TYPES``.
        rendering: what makes it of the map.
    """

    kind: str
    rendering: Rendering

    @classmethod
    def of_query(cls, query: Mapping[str, str]) -> Asked:
        """What an address asks for behind its question mark.

        Raises:
            UserError: a key or value that there is not.
        """
        known = ("output_type", "threshold", "matting", "background")
        for key in query:
            if key not in known:
                raise UserError(f"there is no {key!r}{did_you_mean(key, known)}: there are {', '.join(known)}")
        kind = query.get("output_type", "map")
        if kind not in OUTPUT_TYPES:
            close = did_you_mean(kind, OUTPUT_TYPES)
            raise UserError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, not {kind!r}{close}")
        matting = query.get("matting", "true")
        if matting not in ("true", "false"):
            raise UserError(f"matting must be true or false, not {matting!r}")
        background = query.get("background")
        if (background is None) is (kind == "background"):
            raise UserError("output_type=background and background= belong together: give background=%23rrggbb or blur")
        if background is not None and background != "blur" and not background.startswith("#"):
            # a path means a file of this machine to background_named
            raise UserError(f"background must be %23rrggbb or blur, not {background!r}")
        made = None if background is None else background_named(background)
        return cls(kind, Rendering((kind,), _threshold(query.get("threshold", "0.5")), matting == "true", made))


def _threshold(given: str) -> float | str:
    with contextlib.suppress(ValueError):
        if given == "otsu" or 0.0 <= float(given) <= 1.0:
            return given if given == "otsu" else float(given)
    raise UserError(f"threshold must be in [0, 1], or otsu, not {given!r}")


@dataclass(frozen=True)
class Answer:
    """A PNG, and how the solve of its map went.

    Attributes:
        png: the file's bytes.
        steps: of the solver; ``None`` of a network that solves nothing.
        residual: relative, ‖g(z)‖ / ‖f(z)‖; ``None`` as above.
        converged: whether the solver's tolerance was reached.
    """

    png: bytes
    steps: int | None = None
    residual: float | None = None
    converged: bool = True


class Studio:
    """A network that makes PNGs of photographs.

    Args:
        predictor: the network.
        max_megapixels: larger photographs are refused, by their header.
    """

    def __init__(self, predictor: Predictor, max_megapixels: float) -> None:
        self.predictor = predictor
        self.max_megapixels = max_megapixels
        self._resize = TestTransform(predictor.image_size)

    @torch.no_grad()
    def __call__(self, data: bytes, asked: Asked) -> Answer:
        """What is asked for of a photograph's bytes.

        Raises:
            UserError: they are no picture that can be read, or too large a one.
        """
        layers = read_layers(data, max_megapixels=self.max_megapixels)
        image = on_white(layers.colours, layers.alpha)
        small = torch.from_numpy(self._resize(image)).permute(2, 0, 1)[None].to(self.predictor.device)
        output = self.predictor.network.run(small)  # as Predictor does, which keeps what the solver tells to itself
        (saliency,) = to_maps(output.logits, [image.shape[:2]])
        png = asked.rendering(layers, saliency)[asked.kind].encoded()
        if output.solution is None:
            return Answer(png)
        stats = output.solution.stats
        return Answer(png, int(stats.steps[0]), float(stats.relative_residual[0]), bool(stats.converged[0]))

    def warm_up(self) -> None:
        """Load and compile what the first photograph would wait for."""
        threads = torch.get_num_threads()
        rows, columns = np.mgrid[0:96, 0:128]
        saliency = np.clip(700 - 12 * np.hypot(rows - 48, columns - 64), 0, 255).astype(np.uint8)
        colours = np.dstack([saliency, 255 - saliency, saliency // 2])
        Rendering(("rgba",))(Layers(colours), saliency)
        torch.set_num_threads(threads)  # numba, starting, sets OpenMP's number in this thread, which is torch's as well
        self.predictor(colours)


class Busy(Exception):
    """All places are taken; ``seconds`` until one may be free."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Gone(Exception):
    """Whoever asked went away before it was their turn."""


class Turns:
    """A queue of so many places before one worker thread; the event loop never waits.

    Args:
        places: requests that are received, wait or are worked on at once.
    """

    def __init__(self, places: int) -> None:
        self.places, self.taken = places, 0
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "qefpn")
        self._seconds = 1.0

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place, for as long as the block lasts.

        Raises:
            Busy: there is none.
        """
        if self.taken >= self.places:
            raise Busy(min(LONGEST_WAIT, max(1, round(self._seconds * self.taken / 2))))
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def run(self, work: Callable[[], T], left: Callable[[], Awaitable[bool]] | None = None) -> T:
        """What the work returns, once it was its turn.

        Args:
            work: done in the thread.
            left: whether nobody waits for it any more.

        Raises:
            Gone: ``left`` said so.
        """
        async with self._turn:
            if left is not None and await left():
                raise Gone
            begun = time.monotonic()
            try:
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
            finally:
                self._seconds += 0.3 * (time.monotonic() - begun - self._seconds)

    def close(self) -> None:
        """Start nothing any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
