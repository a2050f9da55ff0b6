"""The reconciler: makes what jobs in the database ask for true in the cluster, again and again.

Level-triggered: events and timers only name a job; a worker then looks at the whole of it. Of all
services on a database only the one that ``leads`` acts. A job's objects are made once: the row
remembers that they were, and until then making them again makes nothing twice. What the objects
mean is in `view`, what is done to them in `actions`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes_asyncio.client import ApiClient

from ..kube.watch import cancel_and_wait
from ..model.gpus import Inventory, Request, judge
from ..model.job_record import Failure, JobRecord
from ..model.pods import Pod, is_scheduled, unschedulable_reason
from ..model.profiles import Profile
from .actions import Actions, LaunchForbidden, LaunchRefused, lingering
from .manifests import Site, job_name
from .metrics import JobMetrics
from .objects import JobObjects, ObjectsByJob
from .store import JobStore
from .view import Outcome, View, at_the_end, look
from .words import ended, last_words, tail
from .workqueue import WorkQueue

log = logging.getLogger(__name__)

InThread = Callable[..., Awaitable[Any]]
ReadInventory = Callable[[str], Awaitable[Inventory | None]]


@dataclass(frozen=True)
class ControllerSettings:
    """How the reconciler works. Times in seconds."""

    ttl: float = 60.0  # after the end, until a job's objects are deleted
    poll: float = 1.0  # between two looks for jobs that others have stored or stopped
    resync: float = 300.0  # after which every open job is looked at, whatever was missed
    words: float = 5.0  # between two renewals of why a job waits
    settle: float = 5.0  # that a watch may lag behind
    workers: int = 4
    retry: float = 0.2
    retry_max: float = 30.0


class JobController:
    """Owns the watches, the queue and all tasks. `start()`, then `stop()`; both once."""

    def __init__(
        self,
        store: JobStore,
        client: ApiClient,
        namespace: str,
        site: Site,
        profiles: Mapping[str, Profile],
        *,
        leads: Callable[[], bool],
        in_thread: InThread,
        inventory: ReadInventory,
        metrics: JobMetrics,
        settings: ControllerSettings | None = None,
    ) -> None:
        self._store = store
        self._profiles = profiles
        self._site = site
        self._leads = leads
        self._in_thread = in_thread
        self._inventory = inventory
        self._metrics = metrics
        self._settings = settings or ControllerSettings()
        self._actions = Actions(client, namespace, site)
        self._queue = WorkQueue()
        self.objects = ObjectsByJob(client, namespace, site.identity, self._queue.add)
        self._seen: dict[str, int] = {}  # versions of open jobs
        self._moved = False  # whether a job's state has changed since they were counted
        self._failures: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin in the background."""
        self.objects.start()
        self._tasks = [asyncio.create_task(self._poll_for_ever())]
        for _ in range(self._settings.workers):
            self._tasks.append(asyncio.create_task(self._work_for_ever()))

    async def stop(self) -> None:
        for task in self._tasks:
            await cancel_and_wait(task)
        self._queue.close()
        await self.objects.stop()

    def wake(self, job: str) -> None:
        """Look at a job now: it was stored or stopped a moment ago."""
        self._queue.add(job)

    # -- the loops

    async def _poll_for_ever(self) -> None:
        resync_at = time.monotonic() + self._settings.resync
        led = False
        while True:
            try:
                if not self._leads():
                    self._seen.clear()
                    self._metrics.jobs.clear()  # whoever leads tells
                    led = False
                elif self.objects.synced:
                    all_of_them = not led or time.monotonic() > resync_at
                    await self._poll(all_of_them)
                    if all_of_them:
                        led, resync_at = True, time.monotonic() + self._settings.resync
            except Exception:  # the border of an endless loop: the database may be away
                log.exception("Looking for jobs failed; trying again")
                self._metrics.errors.inc()
            await asyncio.sleep(self._settings.poll)

    async def _poll(self, all_of_them: bool) -> None:
        versions: dict[str, int] = await self._in_thread(self._store.open_versions)
        due = [job for job, version in versions.items() if self._seen.get(job) != version]
        for job in versions if all_of_them else due:
            self._queue.add(job)
        if all_of_them:
            for job in self.objects.known():
                self._queue.add(job)  # also those of which there is no row
        if all_of_them or due or self._moved or self._seen.keys() != versions.keys():
            self._moved = False
            await self._count()
        self._seen = {job: self._seen.get(job, 0) for job in versions}

    async def _count(self) -> None:
        counts: dict[str, int] = await self._in_thread(self._store.counts)
        for state, number in counts.items():
            self._metrics.jobs.labels(state).set(number)

    async def _work_for_ever(self) -> None:
        while True:
            job = await self._queue.take()
            try:
                if self._leads() and self.objects.synced:
                    await self._look_at(job)
            finally:
                self._queue.done(job)
                self._metrics.waiting.set(len(self._queue))

    async def _look_at(self, job: str) -> None:
        try:
            with self._metrics.seconds.time():
                again = await self._reconcile(job)
            self._failures.pop(job, None)
            if again is not None:
                self._queue.add_later(job, max(again, 0.05))
        except Exception as error:  # the border of an endless loop
            self._metrics.errors.inc()
            failures = self._failures[job] = self._failures.get(job, 0) + 1
            delay = min(self._settings.retry * 2 ** (failures - 1), self._settings.retry_max)
            log.warning("Job %s: again in %.1f s: %s", job, delay, _first_line(error))
            log.debug("Job %s", job, exc_info=error)
            self._queue.add_later(job, delay)

    # -- one look at one job; the seconds after which another one is due

    async def _reconcile(self, job: str) -> float | None:
        record: JobRecord | None = await self._in_thread(self._store.get, job)
        objects = self.objects.of(job)
        if record is None:
            if not objects:
                return None
            log.warning("Job %s: no row stands for its objects, deleting them", job)
            await self._actions.remove(job, objects)
            return None
        if job in self._seen:
            self._seen[job] = record.version
        if record.is_over:
            return await self._wind_up(record, objects)
        if record.stop_requested:
            seen = look(record, objects)
            return await self._end(record, Outcome("stopped", record.reason), objects, seen)
        if record.launched_at is None:
            return await self._launch(record)
        view = look(record, objects)
        if view.missing or view.outcome is not None:
            # a watch may only be late, and that of Jobs is sometimes ahead of that of pods
            objects = await self.objects.read(job)
            view = look(record, objects)
        if view.outcome is None and view.missing:
            roles = ", ".join(view.missing)
            lost = f"What Kubernetes had of it ({roles}) was deleted by somebody else."
            return await self._end(record, Outcome("failed", lost), objects, view)
        if view.outcome is not None:
            return await self._end(record, view.outcome, objects, view)
        return await self._follow(record, objects, view)

    async def _launch(self, record: JobRecord) -> float | None:
        profile = self._profiles.get(record.spec.profile)
        if profile is None or record.spec.image not in profile.images:
            gone = f"Profile {record.spec.profile} is not offered any more."
            return await self._end(record, Outcome("failed", gone), JobObjects())
        try:
            await self._actions.launch(record, profile)
        except LaunchRefused as error:
            return await self._end(record, Outcome("failed", str(error)), JobObjects())
        except LaunchForbidden as error:
            return await self._put_off(record, str(error))
        now = await self._in_thread(self._store.now)
        await self._update(record, launched_at=now, incomplete_at=None)
        return 0

    async def _put_off(self, record: JobRecord, why: str) -> float | None:
        """Try again later to launch a job, as long as its first replicas may wait for the rest."""
        now: int = await self._in_thread(self._store.now)
        since = record.incomplete_at or now
        if now - since >= record.spec.gang_seconds:
            return await self._end(record, Outcome("failed", why), JobObjects())
        await self._update(record, reason=why, incomplete_at=since)
        return self._settings.words

    async def _update(self, record: JobRecord, **changes: Any) -> JobRecord | None:
        """Store what differs; None where the row was changed meanwhile."""
        fresh = {k: v for k, v in changes.items() if getattr(record, k) != v}
        if not fresh:
            return record
        stored: JobRecord | None = await self._in_thread(self._store.update, record, **fresh)
        if stored is not None and record.id in self._seen:
            self._seen[record.id] = stored.version
        if stored is None:
            self._queue.add(record.id)
        elif "state" in fresh:
            self._moved = True
        return stored

    async def _follow(self, record: JobRecord, objects: JobObjects, view: View) -> float | None:
        """Store how a job stands that goes on; give up one that holds machines in vain."""
        now: int = await self._in_thread(self._store.now)
        due: list[float] = []
        incomplete = (record.incomplete_at or now) if view.incomplete else None
        if incomplete is not None:
            left = incomplete + record.spec.gang_seconds - now
            if left <= 0:
                return await self._end(record, await self._given_back(record, view), objects, view)
            due.append(left + 0.5)
        if view.suspended:
            # Kubernetes' own deadline begins when the queue lets it go
            left = record.created_at + record.spec.timeout_seconds - now
            if left <= 0:
                words = f"did not let it go within its timeout of {record.spec.timeout_seconds} s."
                outcome = Outcome("failed", f"The queue {self._site.queue} {words}")
                return await self._end(record, outcome, objects, view)
            due.append(left + 0.5)
        started = record.started_at
        if started is None and view.state == "running":
            started = now
        reason = "" if view.state == "running" else await self._why_waiting(record, objects, view)
        again = [r for r in view.replicas if r.state in ("pending", "failed") and r.reason]
        if view.state == "running" and again:
            reason = f"{again[0].name}: {again[0].reason}"
        if view.state != "running":
            due.append(max(self._settings.words, len(self._seen) / 20))
        await self._update(
            record,
            state=view.state,
            reason=reason,
            replicas=view.replicas,
            started_at=started,
            incomplete_at=incomplete,
        )
        return min(due, default=None)

    async def _given_back(self, record: JobRecord, view: View) -> Outcome:
        lacking = ", ".join(r.name for r, _ in view.waiting()[:5]) or "a replica"
        words = await self._why_waiting(record, JobObjects(), view)
        return Outcome(
            "failed",
            f"Not all replicas were there within {record.spec.gang_seconds} s ({lacking} lacking), "
            f"so it gave its machines back. {words}".strip(),
        )

    async def _why_waiting(self, record: JobRecord, objects: JobObjects, view: View) -> str:
        if view.suspended:
            return f"Waiting to be admitted by the queue {self._site.queue} (Kueue)."
        for replica, pod in view.waiting():
            if pod is None:
                words = await self._why_no_pod(record, replica.role, objects)
            elif not is_scheduled(pod):
                words = await self._why_unscheduled(record, replica.role, pod)
            else:
                words = replica.reason or f"Starting on {pod['spec']['nodeName']}"
            return f"{replica.name}: {words}"
        return ""

    async def _why_no_pod(self, record: JobRecord, role: str, objects: JobObjects) -> str:
        name = job_name(record.id, role)
        if name in objects.jobs:
            words = await self._actions.why_no_pods(name)
            if words:
                return f"Kubernetes makes no pod for it: {words}"
        return "Waiting for Kubernetes to make its pod"

    async def _why_unscheduled(self, record: JobRecord, role: str, pod: Pod) -> str:
        profile, gpus = self._profiles.get(record.spec.profile), record.spec.gpus_of(role)
        if profile is not None and gpus:
            inventory = await self._inventory(profile.gpu_resource)
            if inventory is not None:
                selector = pod["spec"].get("nodeSelector") or {}
                request = Request(profile.gpu_resource, gpus, selector)
                fit = judge(inventory, request, pod["metadata"]["uid"])
                if fit.kind != "fits":
                    return fit.message
        if unschedulable_reason(pod):
            return "Waiting for a machine with enough free resources"
        return "Looking for a machine"

    # -- the end

    async def _end(
        self,
        record: JobRecord,
        outcome: Outcome,
        objects: JobObjects,
        view: View | None = None,
    ) -> float | None:
        """Store that a job is over, then let go of its machines."""
        failure = await self._failure(outcome) if outcome.pod is not None else None
        now: int = await self._in_thread(self._store.now)
        changes: dict[str, Any] = {}
        if view is not None:
            changes["replicas"] = at_the_end(view.replicas, outcome.state)
        if view is not None and record.started_at is None and outcome.state == "succeeded":
            changes["started_at"] = now
        over = await self._update(
            record,
            state=outcome.state,
            reason=outcome.reason,
            failure=failure,
            ended_at=now,
            **changes,
        )
        if over is None:
            return 0
        log.info("Job %s of %s: %s %s", record.id, record.user, outcome.state, outcome.reason)
        return await self._wind_up(over, objects)

    async def _failure(self, outcome: Outcome) -> Failure:
        assert outcome.pod is not None
        # the runner's last words are in its status, which is there even where the log is not
        text = await self._actions.log_tail(outcome.pod) or last_words(outcome.pod)
        return Failure(
            replica=outcome.replica,
            exit_code=ended(outcome.pod).get("exitCode"),
            lines=tail(text),
            hint=last_words(outcome.pod, "hint"),
        )

    async def _wind_up(self, record: JobRecord, objects: JobObjects) -> float | None:
        """Free what an ended job holds at once, and delete its objects after a while."""
        if record.closed_at is not None and not objects:
            return None
        now: int = await self._in_thread(self._store.now)
        left = (record.ended_at or now) + self._settings.ttl - now
        if record.state != "stopped" and left > 0 and record.launched_at is not None:
            if lingering(record, objects):
                await self._actions.release(record, await self.objects.read(record.id))
            return left
        if not objects:
            objects = await self.objects.read(record.id)  # the watch may be late
        if not objects:
            await self._update(record, closed_at=now)
            return None
        await self._actions.remove(record.id, objects)
        return self._settings.settle  # what ends tells so; unless the watch is blind


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
