"""The registry of edge filters: one file in ``qefpn.losses.filters`` adds one."""

from __future__ import annotations

from collections.abc import Callable

from qefpn.registry import Registry

Kernel = tuple[tuple[float, ...], ...]

#: name -> function returning the rows of the horizontal filter; the vertical one is its transpose
EDGE_FILTERS: Registry[Callable[[], Kernel]] = Registry("edge filter")
