"""Used + idle = capacity x time: what the GPUs of the cluster were doing. Blocking.

"Used" is what the ledger meters; GPUs held by pods that are none of gpucloud's count as idle here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from ..model.usage import DAY, Window, day_name, rfc3339
from .db import reading
from .errors import LedgerError, not_allowed
from .statements import as_of_text, heartbeat
from .sums import clipped, greatest, overlapping
from .tables import CAPACITY, INTERVAL

GROUPS = ("product", "node", "resource")


@dataclass(frozen=True)
class CapacityRow:
    """GPU-seconds there were, of which so many were used; the rest was idle."""

    group: dict[str, str]
    capacity_gpu_seconds: int
    used_gpu_seconds: int

    @property
    def idle_gpu_seconds(self) -> int:
        return self.capacity_gpu_seconds - self.used_gpu_seconds

    def as_json(self) -> dict[str, Any]:
        return {
            **self.group,
            "capacity_gpu_seconds": self.capacity_gpu_seconds,
            "used_gpu_seconds": self.used_gpu_seconds,
            "idle_gpu_seconds": self.idle_gpu_seconds,
        }


@dataclass(frozen=True)
class CapacityStatement:
    """Capacity up to the last heartbeat, inside the window."""

    window: Window
    as_of: int
    rows: list[CapacityRow]

    def as_json(self) -> dict[str, Any]:
        return {
            "start": rfc3339(self.window.start),
            "end": rfc3339(self.window.end),
            "as_of": as_of_text(self.as_of),
            "rows": [row.as_json() for row in self.rows],
        }


def capacity(
    engine: Engine,
    window: Window,
    group_by: tuple[str, ...] = ("product",),
    *,
    by_day: bool = False,
) -> CapacityStatement:
    """Capacity, used and idle GPU-seconds, by any of product, node and resource, and by UTC day.

    Raises LedgerError.
    """
    for name in group_by:
        if name not in GROUPS:
            raise not_allowed("unknown_group_by", "group_by", name, GROUPS)
    if by_day and window.seconds > 100 * DAY:
        raise LedgerError("window_too_long", "By day, ask for at most 100 days.", max_days=100)
    rows: list[CapacityRow] = []
    with reading(engine).connect() as connection:
        as_of = heartbeat(connection)
        known = window.clip(0, as_of)
        if known is None:
            return CapacityStatement(window, as_of, [])
        for piece in known.split(known.midnights() if by_day else ()):
            extra = {"day": day_name(piece.start)} if by_day else {}
            rows += _rows(connection, piece, as_of, group_by, extra)
    return CapacityStatement(window, as_of, rows)


def _rows(
    connection: Connection,
    window: Window,
    as_of: int,
    group_by: tuple[str, ...],
    extra: dict[str, str],
) -> list[CapacityRow]:
    there = _seconds(connection, CAPACITY, window, as_of, group_by)
    used = _seconds(connection, INTERVAL, window, as_of, group_by)
    return [
        CapacityRow(
            {**dict(zip(group_by, key, strict=True)), **extra}, there.get(key, 0), used.get(key, 0)
        )
        for key in sorted(set(there) | set(used))
    ]


def _seconds(
    connection: Connection, table: Any, window: Window, as_of: int, group_by: tuple[str, ...]
) -> dict[tuple[str, ...], int]:
    start, end = clipped(table, window, as_of)
    keys = [table.c[name] for name in group_by]
    statement = (
        select(*keys, func.sum(table.c.gpus * greatest(end - start, 0)))
        .where(*overlapping(table, window), table.c.gpus > 0)
        .group_by(*keys)
    )
    return {
        tuple(row[:-1]): int(row[-1])
        for row in connection.execute(statement)
        if row[-1] is not None
    }
