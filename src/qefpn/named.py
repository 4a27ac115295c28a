"""Which parts of a configuration may name a class by ``_target_``, and whose."""

from __future__ import annotations

import re

__all__ = ["may_name"]

_PARTS = re.compile(r"(callbacks\.[^.]+|profiler)\._target_")
_CLASSES = re.compile(r"(pytorch_lightning|qefpn)(\.[a-z]\w*)*\.[A-Z]\w*")


def may_name(key: str, target: object) -> bool:
    """Whether the part at ``key`` may name ``target``. Who builds it sees to it that it is a class of the right kind.

    >>> may_name("callbacks.stop._target_", "pytorch_lightning.callbacks.EarlyStopping")
    True
    >>> may_name("callbacks.stop._target_", "os.mkdir"), may_name("solver._target_", "qefpn.implicit.Broyden")
    (False, False)
    """
    return bool(_PARTS.fullmatch(key) and _CLASSES.fullmatch(str(target)))
