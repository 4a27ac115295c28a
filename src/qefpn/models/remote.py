"""Networks from elsewhere, checked before they are used: of a hub, or from an address with its sha256.

What arrives is safetensors and JSON; nothing is unpickled. Files of a hub lie in its own cache (``HF_HOME``), those
from an address in ours (``QEFPN_CACHE``), under their sha256.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from qefpn.data.archives import fetch
from qefpn.data.files import cache_dir
from qefpn.errors import UserError
from qefpn.models.packed import HUB, MODEL, SUFFIX, embedded_card, is_remote, read_card, write_card
from qefpn.text import one_line
from qefpn.version import __version__

LIMIT = 1 << 30
"""Bytes of a network at most: forty times the paper's in float16, and no disk is filled by a wrong name."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
NAME = re.compile(r"(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})(@(?P<revision>[\w./-]{1,200}))?")
MARK = "sha256="


def fetched(given: str, *, sha256: str | None = None, limit: int = LIMIT) -> Path:
    """The file of a network that :func:`~qefpn.models.packed.is_remote`, with its card beside it, in a cache.

    Args:
        given: ``hub:owner/name``, ``hub:owner/name@revision`` (a branch, a tag or a commit), or
            ``https://host/model.safetensors#sha256=...``.
        sha256: of the file at an address, in hexadecimal, where it does not stand in it.
        limit: bytes; a larger file is not downloaded.

    Raises:
        UserError: one line: no such name, nothing there, not reachable, not what its sha256 says, or no network.
    """
    if given.startswith(HUB):
        if sha256 is not None:
            raise UserError(f"{given}: sha256 is for an address; a hub's file is pinned by owner/name@revision")
        return _from_hub(given.removeprefix(HUB), limit)
    return _from_address(given, sha256, limit)


def pretrained(given: str | Path, sha256: str | None = None) -> str | Path:
    """What ``Predictor.from_pretrained`` means, as :func:`~qefpn.models.packed.network_file` takes it: ``owner/name``
    is a folder, where there is one, and else a hub's.

    Raises:
        UserError: a folder without a network, or a sha256 of what has none.
    """
    if is_remote(given):
        return fetched(str(given), sha256=sha256)
    if sha256 is not None:
        raise UserError(f"{given}: sha256 is for an address, https://...{SUFFIX}")
    path = Path(given).expanduser()
    if path.is_dir() and not (path / MODEL).is_file():
        raise UserError(f"{path}: holds no {MODEL}; `qefpn export format=hub output={path}` writes such a folder")
    if isinstance(given, str) and not path.exists() and not path.suffix and NAME.fullmatch(given):
        return f"{HUB}{given}"
    return given


def _from_address(given: str, sha256: str | None, limit: int) -> Path:
    address, _, fragment = given.partition("#")
    pinned = fragment.removeprefix(MARK) if fragment.startswith(MARK) else ""
    wanted = (sha256 or pinned).lower()
    parts = urllib.parse.urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise UserError(f"{address}: give an https address; over http anybody on the way may change what arrives")
    if Path(parts.path).suffix != SUFFIX:
        raise UserError(f"{address}: is no address of a {SUFFIX} file; nothing else is fetched")
    if not re.fullmatch(r"[0-9a-f]{64}", wanted):
        said = f"{wanted[:20]} is none" if wanted else "it is missing"
        raise UserError(f"{address}: give the sha256 of the file, {address}#{MARK}<64 hexadecimal digits>; {said}")
    if pinned and pinned.lower() != wanted:
        raise UserError(f"{address}: sha256 and the address say two things; give one of them")
    with _networks() as folder:
        file = folder / wanted / MODEL
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if not (file.is_file() and _sha256(file) == wanted):
                fetch(
                    address,
                    file,
                    way_out="check the address and the sha256",
                    sound=lambda part: _sha256(part) == wanted,
                    unsound=f"is another file than sha256={wanted} says",
                    place="QEFPN_CACHE",
                    limit=limit,
                )
            card = embedded_card(file)
            if card is None:
                raise UserError(f"{address}: holds no card of a network; `qefpn export format=hub` writes one with it")
            # written from what was checked, each time: what lies beside it may be anybody's
            write_card(file, card | {"sha256": wanted})
        read_card(file)
    return file


@contextlib.contextmanager
def _networks() -> Iterator[Path]:
    """The folder of networks from addresses.

    Raises:
        UserError: it cannot be written.
    """
    home = cache_dir()
    if home is None:
        raise UserError("there is no cache folder to write to: QEFPN_CACHE=DIR names one")
    folder = home / "networks"
    try:
        yield folder
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): QEFPN_CACHE=DIR names another"
        ) from None


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _from_hub(name: str, limit: int) -> Path:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"{HUB}{name} needs the package huggingface_hub: pip install 'qefpn[hub]'") from None
    matched = NAME.fullmatch(name)
    if matched is None:
        raise UserError(f"{HUB}{name[:200]}: is no name of a repository, {HUB}owner/name or {HUB}owner/name@revision")
    repo, revision = matched["repo"], matched["revision"]
    with _one_line(huggingface_hub, name):
        file = _both(huggingface_hub, repo, revision, limit)
        if _sha256(file) == read_card(file)["sha256"]:
            return file
        file = _both(huggingface_hub, repo, revision, limit, again=True)  # the cache may be damaged
    if _sha256(file) != read_card(file)["sha256"]:
        raise UserError(f"{HUB}{name}: its {MODEL} is not the file that its {card_name()} describes (another sha256)")
    return file


def card_name() -> str:
    """The card's file in a folder for a hub."""
    return Path(MODEL).with_suffix(".json").name


def _both(hub: Any, repo: str, revision: str | None, limit: int, *, again: bool = False) -> Path:
    """Card and tensors of one commit, in the hub's cache."""
    commit = _in_cache_alone(hub, repo, revision)
    about = {"library_name": "qefpn", "library_version": __version__, "force_download": again and commit is None}
    if commit is None:
        # the folder is named by the commit, so that a push between the two files mixes nothing
        commit = Path(hub.hf_hub_download(repo, card_name(), revision=revision, **about)).parent.name
    if not isinstance(hub.try_to_load_from_cache(repo, MODEL, revision=commit), str):
        size = hub.get_hf_file_metadata(hub.hf_hub_url(repo, MODEL, revision=commit)).size
        if size is None or size > limit:
            told = "does not tell its size" if size is None else f"has {size:,} bytes"
            raise UserError(f"{HUB}{repo}: {MODEL} {told}; at most {limit:,} are fetched")
    return Path(hub.hf_hub_download(repo, MODEL, revision=commit, **about))


def _in_cache_alone(hub: Any, repo: str, revision: str | None) -> str | None:
    """The commit to take from the cache where the hub cannot be reached; None where it can. It is asked once here,
    since its client would try for half a minute.

    Raises:
        UserError: it is in neither.
    """
    from huggingface_hub import errors

    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(repo, card_name(), revision=revision))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError):
        raise
    except Exception as error:  # of its HTTP client, which it has changed before
        known = [hub.try_to_load_from_cache(repo, name, revision=revision) for name in (card_name(), MODEL)]
        if all(isinstance(path, str) for path in known):
            return Path(known[0]).parent.name
        reason = _first(error).rstrip(".")
        raise UserError(
            one_line(f"{HUB}{repo}: the hub cannot be reached, and it is not in the cache ({reason})")
        ) from None
    return None


@contextlib.contextmanager
def _one_line(hub: Any, name: str) -> Iterator[None]:
    """The hub's errors as a user's, and its log without its advice on how a program should be written.

    Raises:
        UserError: whatever was wrong.
    """
    from huggingface_hub import errors

    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    except UserError:
        raise
    except errors.GatedRepoError:
        raise UserError(
            f"{HUB}{name}: its owner asks for consent first: give it on the hub, then `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{HUB}{name}: the hub has no such repository (of a private one: `hf auth login`)") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{HUB}{name}: the repository has no such revision") from None
    except errors.EntryNotFoundError:
        raise UserError(
            f"{HUB}{name}: holds no {MODEL} with {card_name()}: it is no network of `qefpn export format=hub`"
        ) from None
    except errors.HFValidationError as error:
        raise UserError(one_line(f"{HUB}{name}: is no name of a repository ({_first(error)})")) from None
    except Exception as error:  # as above, and of the disk
        raise UserError(one_line(f"{HUB}{name}: could not be fetched ({_first(error)}); try again")) from None
    finally:
        log.setLevel(level)


def _first(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
