"""Signs of a person: what somebody typed, ran, opened or saved; not what an open page asks for.

A page of JupyterLab asks the server for lists every few seconds for as long as it is open, and
jupyter-server takes every such request for activity. Here a request counts when it changes
something, opens a file or a page, or runs something in a kernel; input of a terminal is known from
the terminal itself, as `w` knows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from jupyter_server.base.handlers import APIHandler
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

API = "api_last_activity"  # where jupyter-server notes the time of every API request
_READING = ("GET", "HEAD", "OPTIONS")
# Of the messages that a page sends to a kernel, those that a person causes.
_TYPED = re.compile(
    r'"msg_type"\s*:\s*"(?:(?:execute|complete|inspect|is_complete)_request|input_reply)"'
)
_SEARCHED_BYTES = 2**20  # a bigger one brings data of a widget


class Presence:
    """Watches the requests of one server from `start` on."""

    def __init__(self, is_busy: Callable[[], bool]) -> None:
        self._is_busy = is_busy
        self._settings: dict[str, Any] = {}
        self._noted: datetime | None = None  # what jupyter-server's note would be without polling
        self.last_input: datetime | None = None

    def start(self, application: Application) -> None:
        """Look at every request that ``application`` has answered, and at kernels' input."""
        self._settings = settings = application.settings
        log = settings.get("log_function")

        def look(handler: RequestHandler) -> None:
            self.note_request(handler)
            if log is not None:
                log(handler)

        settings["log_function"] = look
        connection = settings.get("kernel_websocket_connection_class")
        if connection is not None:
            settings["kernel_websocket_connection_class"] = _listening(connection, self.note_typed)

    def keep_note(self) -> None:
        """Take over what others noted, such as jupyter-server-proxy of what it serves."""
        self._noted = self._settings.get(API)

    def note_typed(self, message: str | bytes) -> None:
        """A message of a page to a kernel."""
        head = message[:_SEARCHED_BYTES]
        if _TYPED.search(head if isinstance(head, str) else head.decode("latin-1")):
            self.last_input = datetime.now(UTC)

    def note_request(self, handler: RequestHandler) -> None:
        """A request that was answered just now."""
        if isinstance(handler, WebSocketHandler):
            return
        if is_polling(handler):
            # jupyter-server has noted it an instant ago
            if self._noted is None:
                self._settings.pop(API, None)
            else:
                self._settings[API] = self._noted
            return
        self.keep_note()
        if self._is_of_a_person(handler):
            self.last_input = datetime.now(UTC)

    def _is_of_a_person(self, handler: RequestHandler) -> bool:
        if handler.get_status() >= 400 or getattr(handler, "_jupyter_current_user", None) is None:
            return False
        if handler.request.method in _READING:
            kind = str(handler._headers.get("Content-Type", ""))
            return isinstance(handler, APIHandler) or kind.startswith("text/html")
        # an open notebook whose cells print is saved every two minutes, without anybody there
        is_save = handler.request.method == "PUT" and "/api/contents/" in handler.request.path
        return not (is_save and self._is_busy())


def is_polling(handler: RequestHandler) -> bool:
    """Whether the request is one that open pages repeat by themselves."""
    if not isinstance(handler, APIHandler) or handler.request.method not in _READING:
        return False
    opens = (
        "/api/contents/" in handler.request.path
        and handler.get_query_argument("type", "") in ("notebook", "file")
        and handler.get_query_argument("content", "1") != "0"
    )
    return not opens


def _listening(connection: type[Any], note: Callable[[str | bytes], None]) -> type[Any]:
    """``connection``, jupyter-server's or a site's own, with an ear."""

    class Listening(connection):
        def handle_incoming_message(self, incoming_msg: str | bytes) -> None:
            note(incoming_msg)
            super().handle_incoming_message(incoming_msg)

    return Listening
