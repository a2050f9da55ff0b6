"""Deletes pods that no server of this hub stands for.

They are rare: a start that failed while the API server could not be reached to delete its pod, or a
hub that was killed between two writes. Left alone they would hold a GPU, and be billed, for ever.

What is not surely ours is left alone: pods of another hub, and of users whom this hub does not know
(it may have been given a new database).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jupyterhub import orm
from kubernetes_asyncio.client import ApiException, V1DeleteOptions, V1Preconditions

from ..model import labels

if TYPE_CHECKING:
    from .spawner import GPUCloudSpawner


def hub_identity(settings: Mapping[str, Any]) -> str:
    """A name that only this hub has: derived from its cookie secret; "" where it has none.

    It tells hubs apart that share a namespace, as a test hub beside the production one.
    """
    secret = settings.get("cookie_secret")
    return hashlib.sha256(b"gpucloud hub " + secret).hexdigest()[:16] if secret else ""


class OrphanSweeper:
    """Looks at all pods of the reflectors every now and then. One per hub process."""

    def __init__(self, spawner: GPUCloudSpawner) -> None:
        self._class = type(spawner)
        self._age = int(spawner.orphan_age)
        self._api = spawner.api
        self._log = spawner.log
        settings = getattr(spawner.user, "settings", {})
        self._identity = hub_identity(settings)
        self._users: Any = settings.get("users")
        # the hub cancels all tasks of its loop at its end
        self._task = asyncio.create_task(self._run()) if self._identity else None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._age / 3)
            try:
                await self.sweep(datetime.now(UTC))
            except Exception:  # noqa: BLE001 - the border of an endless loop
                self._log.exception("Looking for orphaned pods failed; trying again later")

    async def sweep(self, now: datetime) -> None:
        """Delete the orphans that there are at ``now`` (UTC)."""
        wanted = self._wanted_pods()
        for (kind, _), reflector in list(self._class.reflectors.items()):
            if kind != "pods":
                continue
            for key, pod in list(reflector.pods.items()):
                if key not in wanted and self._is_ours_and_old(pod["metadata"], now):
                    await self._delete(pod["metadata"])

    def _wanted_pods(self) -> set[str]:
        """ "namespace/name" of every pod that a server of this hub stands for."""
        wanted = set()
        running = self._users.db.query(orm.Spawner).filter(orm.Spawner.server_id.is_not(None))
        for recorded in running:
            state = recorded.state or {}
            wanted.add(f"{state.get('namespace')}/{state.get('pod_name')}")
        # those that start or stop: what was recorded of them may be of an earlier start
        for user in list(self._users.values()):
            for spawner in user.spawners.values():
                if spawner.active or spawner.pending:
                    wanted.add(f"{spawner.namespace}/{spawner.pod_name}")
        return wanted

    def _is_ours_and_old(self, meta: Mapping[str, Any], now: datetime) -> bool:
        notes = meta.get("annotations") or {}
        if notes.get(labels.HUB) != self._identity or "deletionTimestamp" in meta:
            return False
        if self._users.get(notes.get(labels.USER)) is None:
            return False
        age = (now - datetime.fromisoformat(meta["creationTimestamp"])).total_seconds()
        return age >= self._age

    async def _delete(self, meta: Mapping[str, Any]) -> None:
        # by uid: a new pod of the same name is not the orphan
        options = V1DeleteOptions(preconditions=V1Preconditions(uid=meta["uid"]))
        where = f"{meta['namespace']}/{meta['name']}"
        try:
            await self._api.delete_namespaced_pod(meta["name"], meta["namespace"], body=options)
        except ApiException as error:
            if error.status not in (404, 409):
                self._log.error("Could not delete the orphaned pod %s: %s", where, error.reason)
            return
        self._log.warning("Deleted the orphaned pod %s: no server stands for it", where)
