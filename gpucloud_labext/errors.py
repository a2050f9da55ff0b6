"""The one kind of error that a user of this package meets: a stable code, and words that help."""

from __future__ import annotations

from typing import Any


class LabError(Exception):
    """Something that was refused or failed, with the HTTP status of an answer that says so."""

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details

    def as_data(self) -> dict[str, Any]:
        """The JSON of every error of gpucloud."""
        return {"code": self.code, "message": self.message, "details": self.details}
