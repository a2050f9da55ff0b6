"""Deletes pods that no server of this hub stands for.

They are rare: a start that failed while the API server could not be reached to delete its pod, or a
hub that was killed between two writes. Left alone they would hold a GPU, and be billed, for ever.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kubernetes_asyncio.client import ApiException, V1DeleteOptions, V1Preconditions

from ..model import labels

if TYPE_CHECKING:
    from .spawner import GPUCloudSpawner

PERIOD_SECONDS = 20
# A pod younger than this may belong to a start whose server is just being recorded.
MIN_AGE_SECONDS = 60


class OrphanSweeper:
    """Looks at all pods of the reflectors every now and then. One per hub process."""

    def __init__(self, spawner: GPUCloudSpawner) -> None:
        self._class = type(spawner)
        self._api = spawner.api
        self._log = spawner.log
        self._hub_name = spawner.hub_name
        self._users: Any = getattr(spawner.user, "settings", {}).get("users")
        # the hub cancels all tasks of its loop at its end
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            try:
                await self.sweep()
            except Exception:  # noqa: BLE001 - the border of an endless loop
                self._log.exception("Looking for orphaned pods failed; trying again later")

    async def sweep(self, now: datetime | None = None) -> list[str]:
        """Delete the orphans there are at ``now`` (UTC); returns their names."""
        now = now or datetime.now(UTC)
        deleted = []
        for (kind, _), reflector in list(self._class.reflectors.items()):
            if kind != "pods":
                continue
            for pod in list(reflector.pods.values()):
                if self._is_orphan(pod, now) and await self._delete(pod):
                    deleted.append(pod["metadata"]["name"])
        return deleted

    def _is_orphan(self, pod: dict[str, Any], now: datetime) -> bool:
        meta = pod["metadata"]
        notes = meta.get("annotations") or {}
        if self._users is None or notes.get(labels.HUB) != self._hub_name:
            return False
        if "deletionTimestamp" in meta:
            return False
        age = (now - datetime.fromisoformat(meta["creationTimestamp"])).total_seconds()
        if age < MIN_AGE_SECONDS:
            return False
        return not self._is_wanted(notes[labels.USER], notes.get(labels.APP, ""), meta["name"])

    def _is_wanted(self, user_name: str, app: str, pod_name: str) -> bool:
        user = self._users.get(user_name)
        if user is None or app not in user.orm_spawners:
            return False
        if user.orm_spawners[app].server is not None:
            return True
        spawner = user.spawners[app]
        return bool(spawner.active or spawner.pending) and spawner.pod_name == pod_name

    async def _delete(self, pod: dict[str, Any]) -> bool:
        meta = pod["metadata"]
        # by uid: a new pod of the same name is not the orphan
        options = V1DeleteOptions(preconditions=V1Preconditions(uid=meta["uid"]))
        try:
            await self._api.delete_namespaced_pod(meta["name"], meta["namespace"], body=options)
        except ApiException as error:
            if error.status not in (404, 409):
                raise
            return False
        self._log.warning(
            "Deleted the orphaned pod %s/%s: no server of this hub stands for it",
            meta["namespace"],
            meta["name"],
        )
        return True
