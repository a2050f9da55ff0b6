"""TensorBoard's HTTP server on a Unix socket: werkzeug's, as TensorBoard uses it on a port."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from tensorboard.program import TensorBoardServer
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from .pages import Mended

log = logging.getLogger(__name__)


class _RequestHandler(WSGIRequestHandler):
    # connections that stay open, for the proxy's many small requests
    protocol_version = "HTTP/1.1"
    # seconds after which a thread gives up a silent one
    timeout = 120

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the Jupyter server logs requests."""


class UnixServer(ThreadedWSGIServer, TensorBoardServer):
    """Listens on a socket file that only this user may open."""

    daemon_threads = True

    def __init__(self, path: str, wsgi_app: Any) -> None:
        self._path = path
        before = os.umask(0o177)
        try:
            super().__init__(f"unix://{path}", 0, wsgi_app, _RequestHandler)
        finally:
            os.umask(before)

    def get_url(self) -> str:
        """Of no use to a browser; asked for by TensorBoard."""
        return f"unix://{self._path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line where the other end has gone, as the proxy does when a browser leaves."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ECONNRESET):
            log.info("a request was left: %s", error)
        else:
            log.error("a request failed", exc_info=True)


def on(path: str) -> Callable[[Any, Any], UnixServer]:
    """What TensorBoard calls, with its application and flags, to make its server."""

    def make(wsgi_app: Any, flags: Any) -> UnixServer:
        return UnixServer(path, Mended(wsgi_app))

    return make
