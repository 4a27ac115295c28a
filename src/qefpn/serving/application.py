"""The page and the endpoints, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from qefpn.errors import UserError
from qefpn.serving.guard import Guard
from qefpn.serving.web import page_file
from qefpn.serving.work import Answer, Asked, Busy, Gone, Studio, Turns
from qefpn.text import one_line

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/engine.js": ("engine_server.js", "text/javascript; charset=utf-8"),
}
"""Address → file and type."""
SOLVER_HEADERS = ("X-Solver-Steps", "X-Solver-Relative-Residual", "X-Solver-Converged")
UPLOAD_SECONDS = 60.0
"""How long a photograph may take to arrive, while it holds a place."""


@dataclass(frozen=True)
class Terms:
    """For whom work is done, and how much.

    Attributes:
        hosts: names in a request's ``Host``; others are refused, so that no page of another site gets here by a
            name of its own (DNS rebinding).
        cors: origins whose pages may use the endpoints; "*" is all.
        queue: requests that are received, wait or are worked on at once.
        max_bytes: of a request's body.
    """

    hosts: tuple[str, ...] = ("127.0.0.1", "localhost")
    cors: tuple[str, ...] = ()
    queue: int = 16
    max_bytes: int = 32_000_000


def application(studio: Studio, about: Mapping[str, str | None], terms: Terms) -> Starlette:
    """The application.

    Args:
        studio: what makes the pictures.
        about: what ``/api/licence`` tells of the network.
        terms: of use.
    """
    turns, ready = Turns(terms.queue), asyncio.Event()

    async def page(request: Request) -> Response:
        file, kind = PAGE[request.url.path]
        return Response(page_file(file), media_type=kind)

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readiness(_request: Request) -> Response:
        state = {"ready": ready.is_set(), "waiting": turns.taken, "places": turns.places}
        return JSONResponse(state, 200 if ready.is_set() else 503, None if ready.is_set() else {"Retry-After": "2"})

    async def licence(_request: Request) -> Response:
        return JSONResponse(dict(about))

    async def predict(request: Request) -> Response:
        _refuse_foreign_pages(request, terms.cors)
        asked = Asked.of_query(request.query_params)
        with turns.place():
            data = await _uploaded(request)
            answer = await turns.run(lambda: studio(data, asked), request.is_disconnected)
        return Response(answer.png, media_type="image/png", headers=_told(answer, asked))

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async def warm_up() -> None:
            await turns.run(studio.warm_up)
            ready.set()

        warming = asyncio.create_task(warm_up())
        yield
        warming.cancel()
        turns.close()

    gates = [
        Middleware(Guard, max_bytes=terms.max_bytes, shared=bool(terms.cors)),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(terms.hosts), www_redirect=False),
    ]
    if terms.cors:
        gates.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(terms.cors),
                allow_methods=["GET", "POST"],
                expose_headers=[*SOLVER_HEADERS, "Retry-After"],
            )
        )
    routes = [
        *(Route(path, page) for path in PAGE),
        Route("/api/health", health),
        Route("/api/ready", readiness),
        Route("/api/licence", licence),
        Route("/api/predict", predict, methods=["POST"]),
    ]
    handlers = {HTTPException: _http, UserError: _mistake, Busy: _busy, Exception: _fault}
    handlers |= {Gone: _gone, ClientDisconnect: _gone}
    return Starlette(routes=routes, middleware=gates, exception_handlers=handlers, lifespan=lifespan)


def _refuse_foreign_pages(request: Request, cors: tuple[str, ...]) -> None:
    """A browser sends a form of any page anywhere, without asking, and names the page's origin."""
    origin = request.headers.get("origin")
    own = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not own and origin not in cors and "*" not in cors:
        raise HTTPException(403, "pages of other sites are not served: cors=[ORIGIN] of `qefpn serve` allows one")


async def _uploaded(request: Request) -> bytes:
    """The bytes of the field ``file``; whatever it is called, the name is not looked at."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise HTTPException(415, "a form (multipart/form-data) with the photograph in its field 'file' is needed")
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            async with request.form(max_files=1, max_fields=8, max_part_size=1000) as form:
                given = form.get("file")
                if not isinstance(given, UploadFile):
                    raise HTTPException(400, "the form has no photograph in its field 'file'")
                return await given.read()
    except TimeoutError:
        raise HTTPException(408, f"the photograph did not arrive within {UPLOAD_SECONDS:g} s") from None
    except UnicodeError:  # in the names of fields and files
        raise HTTPException(400, "the form cannot be read") from None


def _told(answer: Answer, asked: Asked) -> dict[str, str]:
    headers = {"Content-Disposition": f'inline; filename="{asked.kind}.png"'}
    if answer.steps is not None and answer.residual is not None:
        told = (str(answer.steps), f"{answer.residual:.3g}", str(answer.converged).lower())
        headers |= dict(zip(SOLVER_HEADERS, told, strict=True))
    return headers


def _said(status: int, line: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": one_line(line)}, status, headers)


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _said(error.status_code, error.detail, error.headers)


async def _mistake(_request: Request, error: Exception) -> Response:
    return _said(422, str(error))


async def _busy(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Busy)
    return _said(503, f"all places are taken: try again in {error.seconds} s", {"Retry-After": str(error.seconds)})


async def _gone(_request: Request, _error: Exception) -> Response:
    return _said(400, "the connection was closed")


async def _fault(_request: Request, _error: Exception) -> Response:
    return _said(500, "something went wrong here; whoever runs this server finds it in its messages")
