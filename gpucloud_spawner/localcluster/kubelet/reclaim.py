"""The end of a volume's data: when its PersistentVolume is deleted, so is its directory.

A claim's directory is named by the claim's uid. It is kept for as long as there is a volume that
refers to that claim (also one whose class says Retain) or the claim itself. Without the API's word
nothing is ever removed.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from ..client import KubeClient, Obj
from ..informer import Informer, WorkQueue

log = logging.getLogger(__name__)


class Reclaimer:
    """Removes directories under DATA/volumes whose volume is gone."""

    def __init__(self, client: KubeClient, data: Path) -> None:
        self.root = data / "volumes"
        self._queue: WorkQueue[str] = WorkQueue(self._reconcile, name="reclaim", workers=1)
        self._volumes = Informer(client, "persistentvolumes", handler=self._on_volume)
        self._claims = Informer(client, "persistentvolumeclaims", handler=self._on_claim)
        self._start: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for part in (self._queue, self._volumes, self._claims):
            await self._stack.enter_async_context(part)
        self._start = asyncio.create_task(self._look_at_all(), name="reclaim at start")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._start is not None:
            self._start.cancel()
            await asyncio.gather(self._start, return_exceptions=True)
        await self._stack.aclose()

    async def _look_at_all(self) -> None:
        """What was deleted while nobody looked."""
        await self._volumes.synced()
        await self._claims.synced()
        for directory in self.root.glob("*/*"):
            self._queue.add(directory.name)

    def _on_volume(self, old: Obj | None, new: Obj | None) -> None:
        if new is None and old is not None:
            self._queue.add((old["spec"].get("claimRef") or {}).get("uid", ""))

    def _on_claim(self, old: Obj | None, new: Obj | None) -> None:
        if new is None and old is not None:
            self._queue.add(old["metadata"]["uid"])

    async def _reconcile(self, uid: str) -> None:
        if not uid:
            return
        await self._volumes.synced()
        await self._claims.synced()
        referring = ((v["spec"].get("claimRef") or {}) for v in self._volumes.store.values())
        if any(reference.get("uid") == uid for reference in referring):
            return
        if any(claim["metadata"]["uid"] == uid for claim in self._claims.store.values()):
            return
        # Compared, not put into a pattern: a volume made by hand may name any text as its claim.
        for directory in [d for d in self.root.glob("*/*") if d.name == uid]:
            log.info("removing %s: its volume has been deleted", directory)
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
