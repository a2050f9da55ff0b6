"""The error contract of the REST API: a stable code, words for a person, details for a program."""

from __future__ import annotations

from typing import Any


class PortalError(Exception):
    """A refused request, with its HTTP status."""

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details


def error_body(code: str, message: str, details: dict[str, Any]) -> dict[str, Any]:
    """The JSON of every error."""
    return {"code": code, "message": message, "details": details}
