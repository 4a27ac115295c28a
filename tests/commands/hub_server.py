"""A server on this machine that speaks as much of the hub's protocol as its client uses, and misbehaves on demand."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Repository:
    """Revision → commit, and commit → the files in it."""

    revisions: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def push(self, files: dict[str, bytes], *names: str) -> str:
        """A commit on ``main`` and under ``names``."""
        commit = hashlib.sha1(b"".join(files.values()) + bytes(len(self.commits))).hexdigest()
        self.commits[commit] = dict(files)
        self.revisions |= dict.fromkeys(("main", commit, *names), commit)
        return commit


@dataclass
class Hub:
    """What is there, what goes wrong, and what was asked for: (method, path, Range)."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    plain: dict[str, bytes] = field(default_factory=dict)  # path → content, as any web server has it
    cuts: list[int] = field(default_factory=list)  # bytes of content after which the connection ends, a GET each
    gated: set[str] = field(default_factory=set)
    fails: int = 0  # status of every answer, where not 0
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def count(self, method: str, part: str) -> int:
        return sum(one == method and part in path for one, path, _ in self.asked)


@contextmanager
def served() -> Iterator[Hub]:
    state = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _error(self, status: int, code: str = "") -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            state.asked.append((self.command, path, self.headers.get("Range")))
            if state.fails:
                return self._error(state.fails)
            if path in state.plain:
                return self._send(state.plain[path], {}, body)
            parts = path.strip("/").split("/")
            if len(parts) < 5 or parts[2] != "resolve":
                return self._error(404)
            name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
            if name in state.gated:
                return self._error(403, "GatedRepo")
            if name not in state.repositories:
                return self._error(401, "RepoNotFound")  # what the hub says to whom it does not know
            repository = state.repositories[name]
            if revision not in repository.revisions:
                return self._error(404, "RevisionNotFound")
            commit = repository.revisions[revision]
            if file not in repository.commits[commit]:
                return self._error(404, "EntryNotFound")
            content = repository.commits[commit][file]
            headers = {"X-Repo-Commit": commit}
            if not file.endswith(".safetensors"):
                return self._send(content, headers | {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'}, body)
            digest = hashlib.sha256(content).hexdigest()  # large files lie elsewhere
            state.plain[f"/cdn/{digest}"] = content
            self.send_response(302)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("X-Linked-ETag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Location", f"{state.url.replace('127.0.0.1', 'localhost')}/cdn/{digest}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, content: bytes, headers: dict[str, str], body: bool) -> None:
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if body:
                rest = content[start:]
                if state.cuts:
                    rest = rest[: state.cuts.pop(0)]
                    self.close_connection = True
                self.wfile.write(rest)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
