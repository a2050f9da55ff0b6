"""Every error of a handler as the one kind that people and programs are told."""

from __future__ import annotations

import http.client
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from tornado.web import HTTPError

from ..errors import LabError


class ErrorsOfGPUCloud(JupyterHandler):
    """Before a handler's other bases. The handler says in `write_refusal` how an error looks."""

    def log_exception(self, kind: Any, value: Any, trace: Any) -> None:
        """A refusal is a line: no trace of ours would help who was refused."""
        if isinstance(value, LabError):
            self.log.info("%s %.200s: %.300s", self.request.method, self.request.path, value)
        else:
            super().log_exception(kind, value, trace)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Called by tornado for whatever was raised."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if not isinstance(error, LabError):
            words = http.client.responses.get(status_code, "Error")
            if isinstance(error, HTTPError) and error.log_message and status_code < 500:
                words = error.log_message % error.args  # as tornado itself
            error = LabError(status_code, words.lower().replace(" ", "_")[:40], f"{words}.")
        self.write_refusal(error)

    def write_refusal(self, error: LabError) -> None:
        """Finish the answer with ``error``."""
        raise NotImplementedError
