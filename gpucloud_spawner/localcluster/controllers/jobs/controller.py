"""Brings Jobs about: watches them and their pods and carries out what `decision` says.

Every step may be the last one before a crash: pods are created and deleted first, then the status
is written, then pods lose their finalizers. Nothing is kept but the back-off, which a restart
forgets, as in Kubernetes.
"""

from __future__ import annotations

import asyncio

from ...client import ApiError, KubeClient, Obj, object_key
from ...events import EventRecorder
from ...informer import WorkQueue
from ..informers import JOBS, PODS, Informers
from . import policies
from .backoff import Backoff, Delays
from .decision import Decision, decide

_OWN = "kubernetes.io/job-controller"
_SOON = 0.02  # the caches are behind our own writes: they will have caught up


class JobController:
    """Keys of its queue are ("job", key) and ("pod", key): a pod whose Job is gone."""

    def __init__(
        self, client: KubeClient, informers: Informers, events: EventRecorder, delays: Delays
    ) -> None:
        self._client = client
        self._events = events
        self._delays = delays
        self._backoff: dict[str, Backoff] = {}
        # By the Job's uid: its pods, and the newest versions that we have written.
        self._pods_of: dict[str, set[str]] = {}
        self._written: dict[str, tuple[int, int]] = {}
        self.queue: WorkQueue[tuple[str, str]] = WorkQueue(self._reconcile, name="jobs")
        self._jobs = informers.on(JOBS, self._job_changed)
        self._pods = informers.on(PODS, self._pod_changed)

    def _job_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            self.queue.add(("job", object_key(new)))
            return
        assert old is not None
        uid = old["metadata"]["uid"]
        self._backoff.pop(uid, None)
        self._written.pop(uid, None)
        for key in self._pods_of.get(uid, ()):
            self.queue.add(("pod", key))

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        pod = new or old
        assert pod is not None
        key = object_key(pod)
        before, owner = _job_of(old), _job_of(new)
        if before is not None and (owner is None or before["uid"] != owner["uid"]):
            pods = self._pods_of.get(before["uid"], set())
            pods.discard(key)
            if not pods:
                self._pods_of.pop(before["uid"], None)
        if owner is not None:
            self._pods_of.setdefault(owner["uid"], set()).add(key)
        for reference in (before, owner):
            if reference is not None:
                namespace = pod["metadata"]["namespace"]
                self.queue.add(("job", f"{namespace}/{reference['name']}"))
        if new is not None and policies.tracked(new) and not self._known(new, owner):
            self.queue.add(("pod", key))

    def _known(self, pod: Obj, owner: Obj | None) -> bool:
        if owner is None:
            return False
        job = self._jobs.store.get(f"{pod['metadata']['namespace']}/{owner['name']}")
        return job is not None and bool(job["metadata"]["uid"] == owner["uid"])

    async def _reconcile(self, key: tuple[str, str]) -> float | None:
        kind, name = key
        if kind == "pod":
            await self._release_orphan(name)
            return None
        job = self._jobs.store.get(name)
        if job is None or job["spec"].get("managedBy", _OWN) != _OWN:
            return None
        uid = job["metadata"]["uid"]
        pods_written, job_written = self._written.get(uid, (0, 0))
        # Versions of one server can be compared (Kubernetes 1.35 and later promise it).
        if self._pods.version < pods_written or self._jobs.version < job_written:
            return _SOON
        keys = sorted(self._pods_of.get(uid, ()))
        pods = [self._pods.store[k] for k in keys if k in self._pods.store]
        decision = decide(job, pods, self._backoff.get(uid, Backoff()), self._delays)
        await self._carry_out(job, decision)
        return decision.again

    # Doing it

    async def _carry_out(self, job: Obj, decision: Decision) -> None:
        doing = [self._create(job, pod) for pod in decision.create]
        doing += [self._drop(job, pod) for pod in decision.drop]
        doing += [self._delete(job, pod) for pod in decision.delete]
        done = await asyncio.gather(*doing, return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error
        await self._write_status(job, decision)
        uid = job["metadata"]["uid"]
        self._backoff[uid] = decision.backoff
        for event in decision.events:
            self._tell(job, *event)
        await asyncio.gather(*(self._release(pod, job) for pod in decision.release))

    async def _create(self, job: Obj, pod: Obj) -> None:
        try:
            made = await self._client.create("pods", pod, job["metadata"]["namespace"])
        except ApiError as error:
            self._tell(job, "Warning", "FailedCreate", f"Error creating: {error.message}")
            raise
        self._note(job, pods=int(made["metadata"]["resourceVersion"]))
        self._tell(job, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")

    async def _drop(self, job: Obj, pod: Obj) -> None:
        await self._release(pod, job)  # first: what the Job has let go of does not count as failed
        await self._delete(job, pod)

    async def _delete(self, job: Obj, pod: Obj) -> None:
        meta = pod["metadata"]
        try:
            gone = await self._client.delete(
                "pods", meta["name"], meta["namespace"], uid=meta["uid"]
            )
        except ApiError as error:
            if error.status not in (404, 409):  # gone, or the name is another pod's
                raise
            return
        self._note(job, pods=int(gone["metadata"]["resourceVersion"]))
        self._tell(job, "Normal", "SuccessfulDelete", f"Deleted pod: {meta['name']}")

    async def _write_status(self, job: Obj, decision: Decision) -> None:
        if decision.status == (job.get("status") or {}):
            return
        meta = job["metadata"]
        body = {**job, "status": decision.status}  # of the version that was looked at
        stored = await self._client.replace("jobs", body, meta["namespace"], subresource="status")
        self._note(job, jobs=int(stored["metadata"]["resourceVersion"]))

    def _note(self, job: Obj, pods: int = 0, jobs: int = 0) -> None:
        uid = job["metadata"]["uid"]
        before = self._written.get(uid, (0, 0))
        self._written[uid] = (max(before[0], pods), max(before[1], jobs))

    def _tell(self, job: Obj, kind: str, reason: str, message: str) -> None:
        reference = {**job, "kind": "Job", "apiVersion": "batch/v1"}
        self._events.record(reference, kind, reason, message)

    # Letting pods go

    async def _release(self, pod: Obj, job: Obj | None = None) -> None:
        meta = pod["metadata"]
        finalizers = {"$deleteFromPrimitiveList/finalizers": [policies.TRACKING]}
        patch = {"metadata": {"uid": meta["uid"], **finalizers}}
        namespace = meta["namespace"]
        try:
            stored = await self._client.patch(
                "pods", meta["name"], patch, namespace, kind="strategic"
            )
        except ApiError as error:
            if error.status not in (404, 409):  # gone, or the name is another pod's
                raise
            return
        if job is not None:
            self._note(job, pods=int(stored["metadata"]["resourceVersion"]))

    async def _release_orphan(self, key: str) -> None:
        pod = self._pods.store.get(key)
        if pod is None or not policies.tracked(pod):
            return
        owner = _job_of(pod)
        if owner is None or not await self._exists(pod, owner):
            await self._release(pod)

    async def _exists(self, pod: Obj, owner: Obj) -> bool:
        """Asked of the server: the cache may lag behind a Job that was just made."""
        try:
            job = await self._client.get("jobs", owner["name"], pod["metadata"]["namespace"])
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return bool(job["metadata"]["uid"] == owner["uid"])


def _job_of(pod: Obj | None) -> Obj | None:
    """The reference to the Job that controls a pod."""
    for owner in (pod or {"metadata": {}})["metadata"].get("ownerReferences", []):
        if owner.get("controller") and (owner["apiVersion"], owner["kind"]) == ("batch/v1", "Job"):
            reference: Obj = owner
            return reference
    return None
