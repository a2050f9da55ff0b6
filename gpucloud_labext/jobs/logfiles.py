"""How the log of a replica lies in the bucket: `worker-0.log`, then `worker-0.1.log` and so on.

S3 cannot append, so the newest part is written again and again while it is small; a full part, and
every restart of the replica, begins the next one. In this order they are one text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Small enough to be sent every second, big enough for few requests when read.
PART_BYTES = 512 * 1024
MAX_PARTS = 2000  # about 1 GiB of one replica; what comes after is in the pod's log only
_NAME = re.compile(r"([a-z]+-[0-9]+)(?:\.([0-9]+))?\.log", re.ASCII)


def folder(job_prefix: str) -> str:
    """Where a job's logs lie; ``job_prefix`` ends with a slash."""
    return f"{job_prefix}logs/"


def part_key(job_prefix: str, replica: str, number: int) -> str:
    return f"{folder(job_prefix)}{replica}{f'.{number}' if number else ''}.log"


def parts(job_prefix: str, keys: Iterable[str]) -> dict[str, list[int]]:
    """The parts of each replica among ``keys``, in their order."""
    found: dict[str, list[int]] = {}
    for key in keys:
        if match := _NAME.fullmatch(key.removeprefix(folder(job_prefix))):
            found.setdefault(match[1], []).append(int(match[2] or 0))
    return {replica: sorted(numbers) for replica, numbers in sorted(found.items())}
