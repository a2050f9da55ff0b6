"""How long a Job waits before it replaces a failed pod: twice as long after each failure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Delays:
    """Seconds; Kubernetes' own values."""

    base: float = 10.0
    longest: float = 600.0

    def remaining(self, failures: int, last: datetime, now: datetime) -> float:
        """Seconds that are left after so many failures in a row, the last one then."""
        if not failures:
            return 0.0
        delay = min(self.base * 2.0 ** min(failures - 1, 32), self.longest)
        return max(delay - (now - last).total_seconds(), 0.0)


@dataclass(frozen=True)
class Backoff:
    """The failures of a Job since its last success."""

    failures: int = 0
    last: datetime = EPOCH

    def after(self, succeeded: Iterable[datetime], failed: Iterable[datetime]) -> Backoff:
        """With the ends of pods that have just been seen."""
        ends = sorted(failed)
        success = max(succeeded, default=None)
        if success is not None:
            ends = [end for end in ends if end > success]
            return Backoff(len(ends), max(ends, default=EPOCH))
        if not ends:
            return self
        return Backoff(self.failures + len(ends), max(self.last, ends[-1]))
