"""What the hub saw of the pods that it stopped, written down for the ledger (`metering.stops`).

It matters only for pods that began and ended while nobody else looked, so nothing waits for it and
nothing fails with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import object_session

from ..metering import db
from ..metering.stops import record_stop

if TYPE_CHECKING:
    from .spawner import GPUCloudSpawner

log = logging.getLogger(__name__)

# A database that hangs must not gather pods without end; the watch has them anyway.
MAX_WAITING = 1000


class StopRecorder:
    """Writes stop records in a thread of its own, in the order of the stops. One per hub."""

    def __init__(self, url: URL) -> None:
        self._url = url.render_as_string(hide_password=False)
        self._engine: Engine | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpucloud-stops")
        # the hub cancels all tasks of its loop at its end; a record that has begun is finished
        self._waiting: set[asyncio.Future[None]] = set()

    def record(self, pod: Mapping[str, Any], *, gone: bool) -> None:
        """Take note and return at once."""
        if len(self._waiting) >= MAX_WAITING:
            log.error("No stop record of pod %s: the database is too slow", pod["metadata"]["uid"])
            return
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._write, pod, gone)
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)

    def _write(self, pod: Mapping[str, Any], gone: bool) -> None:
        try:
            if self._engine is None:
                self._engine = db.make_engine(self._url)
            record_stop(self._engine, pod, gone=gone)
        except Exception as error:  # noqa: BLE001 - the border: a stop must not fail for it
            log.warning(
                "No stop record of pod %s: %s",
                pod["metadata"]["uid"],
                str(error).splitlines()[0] if isinstance(error, SQLAlchemyError) else error,
            )


def note_stop(spawner: GPUCloudSpawner, pod: Mapping[str, Any], *, gone: bool) -> None:
    """Record that ``spawner`` has stopped ``pod``, in the hub's own database. Never fails."""
    cls = type(spawner)
    if cls._stop_recorder is None:  # one for all spawners of the hub
        # Spawner.db is deprecated; this is the session that the hub itself works in
        session = object_session(spawner.orm_spawner) if spawner.orm_spawner else None
        if session is None:
            return  # no hub, so no ledger
        cls._stop_recorder = StopRecorder(session.get_bind().engine.url)
    cls._stop_recorder.record(pod, gone=gone)
