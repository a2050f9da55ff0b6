"""The one error of the ledger: bad input, with a stable code and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class LedgerError(ValueError):
    """A refused request; nothing was stored. ``message`` is for a person and says what to do."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


def not_allowed(code: str, what: str, value: object, allowed: Iterable[str]) -> LedgerError:
    """The error for a value that is not one of a few; ``details`` carries the allowed ones."""
    options = list(allowed)
    message = f"{what} {str(value)[:80]!r} is not known. Allowed: {', '.join(options)}."
    return LedgerError(code, message, allowed=options)
