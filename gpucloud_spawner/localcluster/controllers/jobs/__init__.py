"""Jobs: their pods, their counts and their end.

`decision` looks at a Job and its pods and says what is to be done, without doing it; `controller`
does it. What a Job may say is the API server's business.
"""

from __future__ import annotations

from .controller import JobController
from .ttl import FinishedJobs

__all__ = ["FinishedJobs", "JobController"]
