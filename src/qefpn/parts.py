"""Parts of anybody's that a configuration or a checkpoint names by ``_target_``: built where their package is allowed.

    qefpn train --config-dir my_conf allow=[my_package] solver=mine

with ``my_conf/solver/mine.yaml`` of ``_target_: my_package.MySolver`` and its options. What is named is looked at
before it is called: a class of the kind that is wanted, or, of a package that the user allowed, whatever makes one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

from qefpn.errors import UserError
from qefpn.option_names import OPTION_TARGETS, REMOVED, TARGET, TARGETS, removed_key
from qefpn.text import did_you_mean

__all__ = [
    "TARGET", "allow", "allowed", "build_factory", "build_part", "check_target", "class_of", "described", "located",
    "names_class", "refusal", "without_removed",
]  # fmt: skip

T = TypeVar("T")

OWN = ("qefpn", "torch", "torchvision", "timm", "torchmetrics", "pytorch_lightning")
"""Packages that may always be named."""

_allowed: tuple[str, ...] = ()


def allow(packages: Iterable[str] | None) -> None:
    """Let these packages be named in what this process reads from now on, and no others beside ours.

    Raises:
        UserError: what is no name of a package.
    """
    global _allowed
    given = [packages] if isinstance(packages, str) else list(packages or ())
    for name in given:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UserError(f"allow={name}: is no name of a package; packages are listed as allow=[my_package]")
    _allowed = tuple(given)


@contextlib.contextmanager
def allowed(packages: Iterable[str]) -> Iterator[None]:
    """As :func:`allow`, for a while, and beside what is allowed already."""
    global _allowed
    former = _allowed
    allow([*former, *packages])
    try:
        yield
    finally:
        _allowed = former


def without_removed(content: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """A configuration, or the arguments of a network, of an earlier version, without the keys that are gone.

    Args:
        where: the file that it is from, for the error message.

    Raises:
        UserError: one of them asks for what is no longer done.
    """
    kept: Any = {str(key): value for key, value in content.items()}
    for key, (usual, _) in REMOVED.items():
        kept, value = _taken_out(kept, key.split("."))
        if value not in (None, usual):
            raise UserError(f"{where}{': ' * bool(where)}{removed_key(key)}")
    assert isinstance(kept, dict)
    return kept


def _taken_out(node: Any, path: list[str]) -> tuple[Any, Any]:
    """A tree without what lies at ``path``, and that; None where nothing does."""
    first, *rest = path
    if not isinstance(node, Mapping) or first not in node:
        return node, None
    if not rest:
        return {key: value for key, value in node.items() if key != first}, node[first]
    inner, value = _taken_out(node[first], rest)
    return {**node, first: inner}, value


def names_class(node: Any) -> bool:
    """Whether a node says by ``_target_`` what is built of it."""
    return isinstance(node, Mapping) and node.get(TARGET) is not None


def check_target(target: Any, where: str) -> None:
    """Whether a package may be named. Nothing is imported.

    Args:
        target: ``package.module.Class``.
        where: the key, or the file and the key, for the error message.

    Raises:
        UserError: it may not.
    """
    package = str(target).partition(".")[0]
    if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
        raise UserError(f"{where}={str(target)[:80]}: is no package.module.Class; nothing was imported")
    if package not in (*OWN, *_allowed):
        raise UserError(
            f"{where}={target[:80]}: {package} may not be named; if you trust it, allow=[{package}] lets it be "
            "imported; nothing was imported"
        )


def build_part(node: Mapping[str, Any], kind: type[T], where: str, nested: tuple[type, ...] = (), **given: Any) -> T:
    """What a node makes, by ``hydra.utils.instantiate``.

    Args:
        node: ``_target_`` and its options; parts in it are built first.
        kind: what it has to be.
        where: the key, or the file and the key, for error messages.
        nested: what parts in it may be, beside those of packages that the user allowed.
        given: further arguments, as they are: in a node a text with ``${`` would be an interpolation.

    Raises:
        UserError: a package that may not be named, or is not there; what is no ``kind``; options that it refuses.
    """
    made = _partial(node, (kind,), where, nested, tuple(given))
    try:
        part = made(**given)
    except Exception as error:
        raise refusal(node, where, error) from error
    if not isinstance(part, kind):
        raise UserError(f"{where}.{TARGET}={node[TARGET]}: makes {type(part).__name__}, not {kind.__name__}")
    with contextlib.suppress(AttributeError):  # of a class with slots
        object.__setattr__(part, _NODE, {str(key): value for key, value in node.items()})
    return part


def build_factory(node: Mapping[str, Any], returns: tuple[type, ...], where: str) -> Callable[..., Any]:
    """The class or function that a node with ``_partial_: true`` names, its options filled in, as a ``partial``.

    Args:
        node: ``_target_`` and options.
        returns: what a call of it may give.
        where: as of :func:`build_part`.

    Raises:
        UserError: as :func:`build_part`, short of what only a call can tell.
    """
    return _partial(node, returns, where, (), ())


def located(node: Mapping[str, Any], where: str) -> Any:
    """The class or function that a node names; its module is imported.

    Raises:
        UserError: it names none, or one of a package that may not be named.
    """
    if not names_class(node):
        _unnamed(node, where)
    check_target(node[TARGET], f"{where}.{TARGET}")
    return _located(str(node[TARGET]), where)


def class_of(target: str, kind: type[T], where: str) -> type[T]:
    """The class that ``target`` names, a ``kind``.

    Raises:
        UserError: as :func:`located`; it is of another kind.
    """
    entry = located({TARGET: target}, where)
    if not (isinstance(entry, type) and issubclass(entry, kind)):
        raise UserError(f"{where}.{TARGET}={target}: is no {kind.__name__}")
    return entry


def _unnamed(node: Any, where: str) -> NoReturn:
    name = node.get("name") if isinstance(node, Mapping) else None
    known = TARGETS.get(where)
    if name is None or known is None:
        raise UserError(f"{where}: has no {TARGET}, the class that it stands for")
    raise UserError(f"{where}={name} is no option{did_you_mean(name, known)}; there are: {', '.join(known)}")


def _partial(
    node: Mapping[str, Any], kinds: tuple[type, ...], where: str, nested: tuple[type, ...], given: tuple[str, ...]
) -> Callable[..., Any]:
    if not names_class(node):
        _unnamed(node, where)
    _check_parts(node, where, nested, outer=True)
    target = str(node[TARGET])
    entry = _located(target, where)
    if not (_is_trusted(entry) or _makes(entry, kinds, target)):
        raise UserError(f"{where}.{TARGET}={target}: is no {' or '.join(kind.__name__ for kind in kinds)}")
    _check_options([key for key in node if not str(key).startswith("_")], entry, where, given)
    from hydra.utils import instantiate

    try:
        return instantiate(dict(node) | {"_partial_": True}, _convert_="all")
    except Exception as error:
        raise UserError(f"{where}: {_reason(error)}") from error


def _makes(entry: Any, kinds: tuple[type, ...], target: str) -> bool:
    """Whether it is one of ``kinds``, or a function of ours that an option stands for: no other function is called."""
    return issubclass(entry, kinds) if isinstance(entry, type) else target in OPTION_TARGETS


def _check_options(options: Iterable[str], entry: Any, where: str, given: tuple[str, ...]) -> None:
    """Refuse an option that ``entry`` does not take, with what is close to it."""
    try:
        parameters = inspect.signature(entry).parameters.values()
    except (TypeError, ValueError):  # of one in C
        return
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return
    known = [one.name for one in parameters if one.kind is not one.POSITIONAL_ONLY and one.name not in given]
    for option in options:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise UserError(f"{where} has no option {option!r}{did_you_mean(option, known)}; {takes}")


def refusal(node: Mapping[str, Any], where: str, error: BaseException) -> UserError:
    """What a call said against its options; where it begins with the name of one, that is a key."""
    reason = _reason(error)
    text = reason.partition(": ")[2]
    if text.partition(" ")[0].partition("=")[0].rstrip(":") in node:
        return UserError(f"{where}.{text}")
    return UserError(f"{where}: {reason}")


_NODE = "_qefpn_node"
"""Attribute of a part that holds what it was made of."""


def described(part: Any) -> dict[str, Any] | None:
    """The node that makes ``part`` again, of plain values; None for one of which that is not known.

    Known are those that :func:`build_part` made, and frozen records of options, such as solvers.
    """
    node: dict[str, Any] | None = getattr(part, _NODE, None)
    if node is not None:
        return node
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        options = {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.init}
        if all(value is None or isinstance(value, bool | int | float | str) for value in options.values()):
            return {TARGET: f"{type(part).__module__}.{type(part).__qualname__}"} | options
    return None


def _check_parts(node: Any, where: str, kinds: tuple[type, ...], *, outer: bool) -> None:
    if isinstance(node, Mapping):
        if TARGET in node:
            check_target(node[TARGET], f"{where}.{TARGET}")
            entry = None if outer else _located(str(node[TARGET]), where)
            if not (outer or _is_trusted(entry) or isinstance(entry, type) and issubclass(entry, kinds)):
                raise UserError(f"{where}.{TARGET}={node[TARGET]}: cannot stand there")
        for key, value in node.items():
            _check_parts(value, f"{where}.{key}", kinds, outer=False)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            _check_parts(value, f"{where}.{number}", kinds, outer=False)


def _is_trusted(entry: Any) -> bool:
    """Of a package that the user named in ``allow``."""
    return str(getattr(entry, "__module__", "")).partition(".")[0] in _allowed


def _located(target: str, where: str) -> Any:
    """The class or function; the modules on the way are imported."""
    parts = target.split(".")
    for count in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:count])
        try:
            entry: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                continue  # a class stands there, or nothing
            raise UserError(f"{where}.{TARGET}={target}: needs {error.name}, which is not installed") from error
        except Exception as error:
            raise UserError(f"{where}.{TARGET}={target}: {name} cannot be imported ({_reason(error)})") from error
        for part in parts[count:]:
            entry = getattr(entry, part, None)
        owner = str(getattr(entry, "__module__", "")).partition(".")[0]
        if entry is None or owner not in (*OWN, *_allowed):  # torch.os.system is none of torch's
            raise UserError(f"{where}.{TARGET}={target}: {name} has no such class")
        return entry
    raise UserError(f"{where}.{TARGET}={target}: there is no package {parts[0]} (is it installed, or on PYTHONPATH?)")


def _reason(error: BaseException) -> str:
    """The first line of what was wrong at the root."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
