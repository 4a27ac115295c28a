"""How text leaves the program: to any console, into UTF-8 files, and one line a message whatever a file is called;
and what a misspelt name may have meant.

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


def did_you_mean(word: object, known: Iterable[str], form: str = " (did you mean {}?)") -> str:
    """The hint that belongs behind an unknown name in a message; empty where none of the known ones is close.

    Args:
        word: what was given.
        known: what it could have been.
        form: of the hint, with a place for the name.

    >>> did_you_mean("sobl", ["prewitt", "sobel"]), did_you_mean("canny", ["prewitt", "sobel"])
    (' (did you mean sobel?)', '')
    >>> did_you_mean("sobl", ["prewitt", "sobel"], "; did you mean {!r}?")
    "; did you mean 'sobel'?"
    """
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return form.format(close[0]) if close else ""


def open_text(path: Path, mode: str = "w") -> TextIO:
    """A text file to write, in UTF-8, with line ends as given; what is no character is written as its escape."""
    return path.open(mode, newline="", encoding="utf-8", errors="backslashreplace")  # type: ignore[return-value]
