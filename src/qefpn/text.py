"""How text leaves the program: to any console, into UTF-8 files, and one line a message whatever a file is called.

A file's name is any bytes; those that are no UTF-8 reach Python as lone surrogates, which no encoder takes.
"""

from __future__ import annotations

import difflib
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

__all__ = ["did_you_mean", "one_line", "open_text", "take_any_text"]

_SPOILS_A_LINE = ("Cc", "Cs", "Zl", "Zp")  # controls, surrogates, separators of lines and paragraphs


def take_any_text() -> None:
    """Let standard output and error write what their encoding lacks as an escape, where they would raise."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # what a test or a notebook puts there may have none
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def one_line(text: object) -> str:
    r"""The text with control characters and what is no character as escapes: a name cannot break a line.

    >>> one_line("a\nb.jpg"), one_line("é 字 \udcff")
    ('a\\nb.jpg', 'é 字 \\udcff')
    """
    return "".join(
        char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in _SPOILS_A_LINE else char
        for char in str(text)
    )


def open_text(path: Path, mode: str = "w") -> TextIO:
    """A text file to write, in UTF-8, with line ends as given; what is no character is written as its escape."""
    return path.open(mode, newline="", encoding="utf-8", errors="backslashreplace")  # type: ignore[return-value]


def did_you_mean(word: str, known: Iterable[str], *, quoted: bool = False) -> str:
    """`` (did you mean X?)`` for what is close to a word that is not known; nothing where nothing is."""
    close = difflib.get_close_matches(str(word), [str(name) for name in known], n=1)
    return f" (did you mean {close[0]!r}?)" if close and quoted else f" (did you mean {close[0]}?)" if close else ""
