"""Names to classes: a solver, filter or loss of the program is one entry here and one file of ``conf``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from qefpn.text import did_you_mean

T = TypeVar("T")
C = TypeVar("C", bound=Any)


class Registry(Generic[T]):
    """Entries of one kind by name.

    Args:
        kind: what the entries are, for error messages ("solver", "edge filter").

    >>> filters = Registry("edge filter")
    >>> filters.register("sobel")(abs) is filters.get("sobel")
    True
    >>> filters.get("sobl")
    Traceback (most recent call last):
        ...
    ValueError: unknown edge filter 'sobl' (did you mean 'sobel'?); there are: sobel
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Decorator that files a class or function under ``name``; a name taken twice is a ``ValueError``."""

        def decorate(entry: C) -> C:
            if name in self._entries:
                raise ValueError(f"the {self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return decorate

    def get(self, name: str) -> T:
        """The entry called ``name``. ``ValueError`` names what exists and what is close to it."""
        if name in self._entries:
            return self._entries[name]
        hint = did_you_mean(name, self.names(), " (did you mean {!r}?)")
        raise ValueError(f"unknown {self.kind} {name!r}{hint}; there are: {', '.join(self.names())}")

    def name_of(self, entry: object) -> str | None:
        """The name that ``entry`` is filed under; None where it is not."""
        return next((name for name, own in self._entries.items() if own is entry), None)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)
