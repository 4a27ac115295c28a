"""What holds for every request: how much may be sent, and what a browser may do with the answer."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer: the page takes nothing from elsewhere, stands in nobody's frame, and no photograph is kept."""


class Guard:
    """ASGI middleware: bodies up to so many bytes, counted as they come, and :data:`HEADERS` on every answer.

    Args:
        app: what is guarded.
        max_bytes: of a request's body; more is answered by 413, before it is read where its length is told.
        shared: whether pages of other origins may read the answers.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, shared: bool = False) -> None:
        self.app, self.max_bytes = app, max_bytes
        self.headers = HEADERS | {"Cross-Origin-Resource-Policy": "cross-origin" if shared else "same-origin"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, self._refusal())
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers[name] = value
            await send(message)

        told = Headers(scope=scope).get("content-length", "0")
        if told.isdigit() and int(told[:20]) > self.max_bytes:
            return await JSONResponse({"error": self._refusal()}, 413)(scope, receive, with_headers)
        return await self.app(scope, counted, with_headers)

    def _refusal(self) -> str:
        return f"more than {self.max_bytes / 1e6:g} MB are not taken: send a smaller file"
