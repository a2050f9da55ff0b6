"""Finished Jobs go away with their pods when their time is over (ttlSecondsAfterFinished)."""

from __future__ import annotations

from datetime import UTC, datetime

from ...client import ApiError, KubeClient, Obj, object_key, split_key
from ...informer import WorkQueue
from ..informers import JOBS, Informers


class FinishedJobs:
    """Keys of its queue are Jobs'."""

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        self._client = client
        self.queue: WorkQueue[str] = WorkQueue(self._reconcile, name="finished jobs")
        self._jobs = informers.on(JOBS, self._changed)

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None and _left(new) is not None:
            self.queue.add(object_key(new))

    async def _reconcile(self, key: str) -> float | None:
        job = self._jobs.store.get(key)
        left = None if job is None else _left(job)
        if job is None or left is None:
            return None
        if left > 0:
            return left
        namespace, name = split_key(key)
        uid = job["metadata"]["uid"]
        try:
            await self._client.delete("jobs", name, namespace, uid=uid, propagation="Foreground")
        except ApiError as error:
            if error.status not in (404, 409):
                raise
        return None


def _left(job: Obj) -> float | None:
    """Seconds until it may go; None where it does not end by time."""
    seconds = job["spec"].get("ttlSecondsAfterFinished")
    if seconds is None or job["metadata"].get("deletionTimestamp"):
        return None
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            ended = datetime.fromisoformat(condition["lastTransitionTime"])
            return float(seconds) - (datetime.now(UTC) - ended).total_seconds()
    return None
