"""Where jobs are stored, as far as this room knows: `metering.job_records` is one."""

from __future__ import annotations

from typing import Any, Protocol

from ..model.job_record import JobRecord


class JobStore(Protocol):
    """Blocking calls, for any thread."""

    def get(self, job: str) -> JobRecord | None:
        """One job; None where there is none of that id."""

    def open_versions(self) -> dict[str, int]:
        """Every job that is not closed, with its version."""

    def update(self, record: JobRecord, **changes: Any) -> JobRecord | None:
        """``record`` with changes, stored; None where it was changed meanwhile."""

    def counts(self) -> dict[str, int]:
        """How many jobs there are in every state."""

    def now(self) -> int:
        """The time, by a clock that all services share."""
