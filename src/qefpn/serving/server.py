"""A socket, and uvicorn on it until somebody ends it."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Sequence

import psutil
import uvicorn
from starlette.applications import Starlette

from qefpn.errors import UserError

CONNECTIONS = 256
"""Open ones; further ones are answered by 503 as they come."""
HEADER_BYTES = 16_384
GRACE = 10
"""Seconds that requests have to end in once the server is to."""
WILDCARDS = ("0.0.0.0", "::", "")


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        UserError: it cannot, and why.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"port must be from 0 (any free one) to 65535, not {port}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UserError(f"host={host}: no such name; 127.0.0.1 is this machine alone, 0.0.0.0 every network") from None
    family, kind, protocol, _, address = found[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port={port} is in use on {host}: give another; port=0 takes any that is free") from None
        if error.errno == errno.EACCES:
            raise UserError(f"port={port} is not open to this user: those from 1024 on are") from None
        raise UserError(f"host={host}: cannot be listened on ({error.strerror}): is it of this machine?") from None
    return made


def own_names(host: str) -> tuple[str, ...]:
    """What the machine may be called in a request that comes to this address."""
    names = ["localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host]
    if host in WILDCARDS:
        names += [socket.gethostname(), socket.getfqdn()]
        for addresses in psutil.net_if_addrs().values():
            names += [one.address for one in addresses if one.family == socket.AF_INET]
            names += [f"[{one.address.split('%')[0]}]" for one in addresses if one.family == socket.AF_INET6]
    return tuple(dict.fromkeys(name.lower() for name in names if name))


def address_of(made: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = made.getsockname()[:2]
    host = "127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: Starlette, sockets: Sequence[socket.socket]) -> None:
    """Serve until Ctrl-C or SIGTERM; what is being answered then is answered to its end."""
    config = uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_graceful_shutdown=GRACE,
    )
    # uvicorn raises the signal that ended it again: here it is the usual way to end
    before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        uvicorn.Server(config).run(sockets=list(sockets))
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
