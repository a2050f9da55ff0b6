"""When a pod's volumes are made ready, tried again and brought up to date. How each kind of volume
is made is in `volumes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .host import Host
from .volumes import MountError

Obj = dict[str, Any]
QUIET_FAILURES = 3  # of a claim that is being bound right now: no failure worth telling


class Mounts:
    """The volumes of one pod; `volumes` is None until all of them are there."""

    def __init__(self, host: Host, directory: Path, wake: Callable[[], None]) -> None:
        self.volumes: dict[str, Path] | None = None
        self._host = host
        self._directory = directory
        self._wake = wake
        self._stale = False
        self._failures = 0
        self._due = 0.0

    @property
    def due(self) -> float | None:
        """The loop time of the next attempt, if there is something to do."""
        return self._due if self.volumes is None or self._stale else None

    def refresh(self) -> None:
        """Files made from the pod's own metadata have to be written again."""
        self._stale = True

    async def ensure(self, pod: Obj) -> bool:
        """Whether the pod's containers can be started."""
        self._host.hosts.add(pod, self._directory)
        loop = asyncio.get_running_loop()
        if self.due is None:
            return True
        if loop.time() < self._due:
            return self.volumes is not None
        self._stale = False
        try:
            self.volumes = await self._host.volumes.prepare(pod, self._directory, self._changed)
        except MountError as error:
            self._failures += 1
            if self._failures > QUIET_FAILURES or "is not bound yet" not in str(error):
                self._host.events.record(pod, "Warning", "FailedMount", str(error))
            self._due = loop.time() + min(
                0.05 * 2.0 ** min(self._failures, 10), self._host.timing.retry_max
            )
            self._stale = self.volumes is not None
            return self.volumes is not None
        self._failures = 0
        return True

    def _changed(self) -> None:
        self._stale = True
        self._due = 0.0
        self._wake()

    async def release(self, uid: str) -> None:
        """Nobody needs to be told of changes any more."""
        self._host.hosts.remove(uid)
        await self._host.volumes.objects.release(uid)
