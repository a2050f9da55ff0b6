"""The hub's own word on pods that it stopped: an inbox that the hub only appends to.

It closes the one gap that neither watch nor list can: a pod that began or ended while the service
was down for longer than the API server remembers. The hub is no second writer of an interval: it
adds a row here, the service takes it in. Called in the hub from a thread; a stop never waits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update

from ..model.usage import DAY, PodFacts
from .db import writing
from .lease import database_time
from .observe import GPUResources, read_pod, trim
from .tables import STOP_RECORD

# Kept for a while, so that a disputed line can be checked.
KEEP_SECONDS = 90 * DAY


def record_stop(engine: Engine, pod: Mapping[str, Any], *, gone: bool) -> None:
    """Write down a pod as the hub last saw it. Blocks; raises what the database raises.

    ``gone``: the hub knows that the API server no longer has it. May be called more than once for a
    pod, in any order, e.g. when its deletion is asked for and again when it is gone.
    """
    with writing(engine).begin() as connection:
        connection.execute(
            insert(STOP_RECORD).values(
                uid=pod["metadata"]["uid"],
                written_at=database_time(connection),
                gone=gone,
                pod=json.dumps(trim(pod)),
                done_at=None,
            )
        )


def read_inbox(
    connection: Connection, gpus: GPUResources, *, until: int, limit: int = 1000
) -> tuple[list[int], list[PodFacts]]:
    """The oldest records that were not taken in yet: their ids, and what they say.

    Only those written at ``until`` or before: the watch is given time to tell the same first.
    """
    rows = connection.execute(
        select(STOP_RECORD.c.id, STOP_RECORD.c.pod, STOP_RECORD.c.gone)
        .where(STOP_RECORD.c.done_at.is_(None), STOP_RECORD.c.written_at <= until)
        .order_by(STOP_RECORD.c.id)
        .limit(limit)
    ).all()
    facts = [read_pod(json.loads(row.pod), gpus, gone=row.gone) for row in rows]
    return [row.id for row in rows], facts


def mark_done(connection: Connection, ids: list[int], now: int) -> None:
    """Remember that records were taken in, and forget those of long ago."""
    if ids:
        connection.execute(update(STOP_RECORD).where(STOP_RECORD.c.id.in_(ids)).values(done_at=now))
    connection.execute(delete(STOP_RECORD).where(STOP_RECORD.c.done_at < now - KEEP_SECONDS))
