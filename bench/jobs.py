"""Jobs: what a user waits for. The bars: at most 3 s more than the same processes by hand."""

from __future__ import annotations

import os

from . import _jobs_service, _jobs_user
from .report import report


def main() -> None:
    """Print and write the table."""
    rows = [*_jobs_user.uploads(), *_jobs_user.launches(), *_jobs_service.rows()]
    report("jobs", rows, cores=os.cpu_count(), load=os.getloadavg()[0])
