"""Reports of the runs below a folder, served to this machine while they train.

Listens on 127.0.0.1 only and answers only requests addressed to it by that name, so that neither
another machine nor a page of another site (DNS rebinding) reads it. Addresses are looked up among
the runs that were found, never joined to a path: there is nothing to traverse.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ssl_core.errors import SSLError, UserError
from ssl_core.report.index import render_index
from ssl_core.report.page import render
from ssl_core.report.style import asset
from ssl_core.runs.folder import Run

HOST = "127.0.0.1"
_DEPTH = 3
_WATCHED = ("recipe.yaml", "run.json", "metrics.jsonl", "summary.json", "corrupt.jsonl")
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


def find_runs(root: Path) -> dict[str, Run]:
    """Runs in `root` and up to three folders below it, by their path from there ("." itself)."""
    if Run(root).exists:
        return {root.resolve().name: Run(root)}
    return {str(run.path.relative_to(root)): run for run in _below(root, _DEPTH)}


def _below(folder: Path, depth: int) -> Iterator[Run]:
    try:
        children = sorted(child for child in folder.iterdir() if child.is_dir())
    except OSError:  # unreadable, or gone since it was listed
        return
    for child in children:
        if Run(child).exists:
            yield Run(child)
        elif depth > 1 and not child.is_symlink():
            yield from _below(child, depth - 1)


def version_of(run: Run) -> str:
    """Changes whenever a file that the report shows does."""
    stamps = []
    for name in _WATCHED:
        try:
            facts = (run.path / name).stat()
        except OSError:
            continue
        stamps.append(f"{name} {facts.st_mtime_ns} {facts.st_size}")
    return _digest("\n".join(stamps))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def server(root: Path, *, port: int) -> ThreadingHTTPServer:
    """A server of the runs below `root`, listening; `serve_forever` answers.

    `port` 0 takes any free one (`server_port` says which). Raises `UserError` for a folder that
    does not exist or a port that is taken.
    """
    if not root.is_dir():
        raise UserError(f"runs: {str(root)!r} is not a folder")
    try:
        return _Server((HOST, port), _Handler, root)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise UserError(
            f"port: {port} cannot be used ({error.strerror}); give another one, "
            "or --port 0 for any free one"
        ) from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: Any, root: Path) -> None:
        self.root = root
        self.pages: dict[str, tuple[str, bytes]] = {}
        """The newest page of each run, with its version."""
        super().__init__(address, handler)

    @property
    def names(self) -> set[str]:
        """What a request may call this server."""
        return {f"{host}:{self.server_port}" for host in (HOST, "localhost")}


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "ssl-watch"
    sys_version = ""

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.names:
            return self._send(HTTPStatus.MISDIRECTED_REQUEST, "not the name of this server")
        parts = urlsplit(self.path).path.split("/")[1:]
        runs = find_runs(self.server.root)
        if parts in ([""], ["version"]):
            return self._index(runs, page=parts == [""])
        name = unquote(parts[1]) if len(parts) > 1 and parts[0] == "run" else None
        if name not in runs or len(parts) > 3:
            return self._send(HTTPStatus.NOT_FOUND, "no such run")
        if len(parts) == 2:
            return self._send(
                HTTPStatus.MOVED_PERMANENTLY, "", Location=f"/run/{quote(name, safe='')}/"
            )
        return self._run(name, runs[name], parts[2])

    do_HEAD = do_GET

    def _index(self, runs: dict[str, Run], *, page: bool) -> None:
        version = _digest("\n".join(f"{name} {version_of(run)}" for name, run in runs.items()))
        if not page:
            return self._send(HTTPStatus.OK, version)
        text = render_index(runs, self.server.root, scripts=[asset("live.js")], version=version)
        return self._send(HTTPStatus.OK, text, kind="text/html")

    def _run(self, name: str, run: Run, what: str) -> None:
        version = version_of(run)
        if what == "version":
            return self._send(HTTPStatus.OK, version)
        if what:
            return self._send(HTTPStatus.NOT_FOUND, "no such page")
        known = self.server.pages.get(name)
        if known is None or known[0] != version:
            try:
                page = render(run, scripts=[asset("live.js")], version=version)
            except (SSLError, OSError, ValueError, KeyError) as error:
                # A run that is being written, deleted or damaged: said, and asked for again.
                return self._send(
                    HTTPStatus.SERVICE_UNAVAILABLE, f"this run cannot be read: {error}"
                )
            known = self.server.pages[name] = (version, page.encode())
        return self._send(HTTPStatus.OK, known[1], kind="text/html")

    def _send(
        self, status: HTTPStatus, content: str | bytes, *, kind: str = "text/plain", **more: str
    ) -> None:
        body = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        fixed = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}
        for name, value in {**fixed, **_HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal belongs to the user."""
