"""Brings one pod to what the API says about it, again after every event; see `container` for one
container's life, `allocation` and `mounting` for what it needs, `status` and `reporting` for what
is told.

Level-triggered: whatever wakes the worker (the API, an exit, a probe, a timer), `_sync` looks at
the whole pod. Only ending containers takes time, and that runs beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from datetime import UTC, datetime
from typing import Any

from ..client import RETRYABLE, ApiError
from ..events import now
from ..gpus import NotEnoughDevices
from .allocation import Allocation
from .container import Container
from .host import Host
from .launch import Inputs
from .mounting import Mounts
from .reporting import Reporter
from .status import FAILED, SUCCEEDED, phase, pod_status

log = logging.getLogger(__name__)
Obj = dict[str, Any]
LEAVING_SECONDS = 0.05


class PodWorker:
    """One pod of this node, from its first sight until it has left the API."""

    def __init__(self, host: Host, pod: Obj) -> None:
        self.host = host
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.dir = host.pods / self.uid
        spec = pod["spec"]
        self.inits = [self._container(c, init=True) for c in spec.get("initContainers") or []]
        self.mains = [self._container(c, init=False) for c in spec["containers"]]
        self.finished = False
        self.settled = asyncio.Event()  # it has been looked at once
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._grace = float("inf")
        self._gone = False
        self._admitted = False
        self._initialised = False  # its init containers are done, until the node restarts
        self._forced: dict[str, str] = {}
        self._allocation = Allocation(host, self.uid, self.dir)
        self._mounts = Mounts(host, self.dir, self._wake.set)
        self._reporter = Reporter(host.client)
        self._failures = 0

    def _container(self, spec: Obj, *, init: bool) -> Container:
        return Container(self.host, self.dir, spec, init=init, wake=lambda: self._wake.set())

    @property
    def containers(self) -> list[Container]:
        return [*self.inits, *self.mains]

    @property
    def running(self) -> list[Container]:
        return [container for container in self.containers if container.running]

    def container(self, name: str) -> Container | None:
        return next((c for c in self.containers if c.name == name), None)

    # From outside

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"pod {self.pod['metadata']['name']}")

    def update(self, pod: Obj) -> None:
        """The API has a new version of the pod."""
        old, self.pod = self.pod["metadata"], pod
        new = pod["metadata"]
        if any(old.get(part) != new.get(part) for part in ("labels", "annotations")):
            self._mounts.refresh()  # downward API volumes
        self._wake.set()

    def vanish(self) -> None:
        """The API has forgotten the pod."""
        self._gone = True
        if not self.finished:
            self.host.leaving.add(self.uid)
        self._wake.set()

    async def close(self) -> None:
        """Stops working on it; its containers go on."""
        for task in (self._task, self._ending):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        for container in self.containers:
            await container.close()
        self.host.leaving.discard(self.uid)

    async def shutdown(self, grace: float) -> None:
        """The node ends: its processes too, but the API keeps the pod, as at a reboot."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*(container.shutdown(grace) for container in self.containers))
        await self.close()

    def adopt(self) -> None:
        """Takes up a pod that an earlier kubelet process had started."""
        ended = self._phase_in_api() in (SUCCEEDED, FAILED)
        if not self._allocation.restore(self.pod, ended=ended):
            return
        self._admitted = True
        for container in self.containers:
            container.adopt(self.pod)
        self._initialised = any(container.attempt >= 0 for container in self.mains)
        lost = not self.running and any(container.lost for container in self.containers)
        if lost and not ended and self._policy() != "Never":
            # The node was restarted: as after the loss of a sandbox, all begins anew.
            self._initialised = False
            for container in self.containers:
                container.begin_anew()

    # The loop

    async def _run(self) -> None:
        while not self.finished:
            self._wake.clear()
            try:
                delay = await self._sync()
                self._failures = 0
            except (ApiError, *RETRYABLE) as error:
                delay = self._after_failure()
                log.info("pod %s: %s; trying again", self.pod["metadata"]["name"], error)
            except Exception:
                delay = self._after_failure()
                log.exception("pod %s: trying again", self.pod["metadata"]["name"])
            self.settled.set()
            if not self.finished:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._wake.wait()

    def _after_failure(self) -> float:
        self._failures += 1
        return min(self.host.timing.retry_max, 0.1 * 2.0 ** min(self._failures, 10))

    async def _sync(self) -> float | None:
        """One look at the whole pod; the seconds until the next one, unless something happens."""
        for container in self.containers:
            container.note_exit()
        if self._gone:
            return await self._leave()
        if self.pod["metadata"].get("deletionTimestamp"):
            return await self._delete()
        if self._phase_in_api() in (SUCCEEDED, FAILED):
            await self._rest()
            return None
        if not self._admitted and (delay := self._admit()):
            return delay
        self._check_deadline()
        if self._forced or self._done():
            if self.running:
                self._end(_grace(self.pod["spec"], "terminationGracePeriodSeconds"))
                await self._report()
                return None
        else:
            await self._advance()
        await self._report()
        return self._next_timer()

    async def _rest(self) -> None:
        """An ended pod holds nothing; its directory stays for its logs until it is deleted."""
        if self.running:
            self._end(0)
        else:
            self._allocation.release()
            await self._mounts.release(self.uid)

    def _phase_in_api(self) -> str | None:
        return (self.pod.get("status") or {}).get("phase")

    def _policy(self) -> str:
        return str(self.pod["spec"].get("restartPolicy", "Always"))

    def _done(self) -> bool:
        inits = [c.state for c in self.inits if not c.sidecar]
        return phase(self._policy(), inits, [c.state for c in self.mains]) in (SUCCEEDED, FAILED)

    # Beginning

    def _admit(self) -> float:
        """The kubelet's own check of what the pod needs; >0: ask again in so many seconds."""
        try:
            self._allocation.make(self.pod)
        except NotEnoughDevices as short:
            if self.host.leaving:
                # Force-deleted pods leave the API before their processes have ended.
                return LEAVING_SECONDS
            self._reject(short)
        self._admitted = True
        return 0

    def _reject(self, short: NotEnoughDevices) -> None:
        self._allocation.started_at = now()
        text = (
            f"Node didn't have enough resource: {short.resource}, requested: {short.wanted}, "
            f"used: {short.used}, capacity: {short.capacity}"
        )
        reason = f"OutOf{short.resource}"
        self._forced = {
            "phase": FAILED,
            "reason": reason,
            "message": f"Pod was rejected: {text}",
        }
        self.host.events.record(self.pod, "Warning", reason, text)

    def _check_deadline(self) -> None:
        left = self._deadline()
        if left is None or left > 0 or self._forced:
            return
        text = "Pod was active on the node longer than the specified deadline"
        self._forced = {"phase": FAILED, "reason": "DeadlineExceeded", "message": text}
        self.host.events.record(self.pod, "Normal", "DeadlineExceeded", text)

    def _deadline(self) -> float | None:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            return None
        age = datetime.now(UTC) - datetime.fromisoformat(self._allocation.started_at)
        return float(seconds) - age.total_seconds()

    # Running

    async def _advance(self) -> None:
        if not await self._mounts.ensure(self._with_addresses()):
            return
        for container in self.inits:
            if self._initialised and not container.sidecar:
                continue  # done once for the pod's life
            await self._keep(container)
            state = container.state
            ready = state.started if container.sidecar else state.succeeded
            if not ready:
                for waiting in self.mains:
                    if waiting.attempt < 0:
                        waiting.state.waiting = "PodInitializing"
                return
        self._initialised = True
        for container in self.mains:
            await self._keep(container)

    async def _keep(self, container: Container) -> None:
        """Starts it if it should run and does not."""
        pod, volumes = self._with_addresses(), self._mounts.volumes
        assert volumes is not None
        devices = self._allocation.devices(container.name)
        inputs = Inputs(pod, volumes, devices, self._lookup)
        if container.running:
            await container.resume(inputs)
            return
        if container.state.exit is not None and not container.restarts_after(self._policy()):
            return
        if asyncio.get_running_loop().time() < container.retry_at:
            container.wait_for_restart(pod)
            return
        await container.start(inputs)

    async def _lookup(self, resource: str, name: str) -> Obj | None:
        try:
            return await self.host.client.get(resource, name, self.pod["metadata"]["namespace"])
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _with_addresses(self) -> Obj:
        host, own = self.host.addresses.node, self._allocation.address
        status = {**(self.pod.get("status") or {}), "hostIP": host, "podIP": own}
        status |= {"hostIPs": [{"ip": host}], "podIPs": [{"ip": own}]}
        return {**self.pod, "status": status}

    def _next_timer(self) -> float | None:
        if self._forced or self._done():
            return None
        loop = asyncio.get_running_loop()
        times = [c.retry_at for c in self.containers if not c.running]
        if (due := self._mounts.due) is not None:
            times.append(due)
        waits = [time - loop.time() for time in times if time > loop.time()]
        if (deadline := self._deadline()) is not None:
            waits.append(deadline)
        # Something was due at once but could not be done: do not spin on it.
        return max(min(waits), 0.01) if waits else None

    # Ending

    def _end(self, grace: float) -> None:
        """Begins to end all containers, or hastens it if that has begun with a longer grace."""
        if self._ending is None or self._ending.done():
            self._grace = grace
            self._ending = asyncio.create_task(self._stop_all(grace))
        elif grace < self._grace:
            self._grace = grace
            asyncio.get_running_loop().call_later(grace, self._kill_all)

    def _kill_all(self) -> None:
        for container in self.running:
            container.kill()

    async def _stop_all(self, grace: float) -> None:
        pod = self._with_addresses()
        sidecars = [c for c in self.running if c.sidecar]
        others = [c for c in self.running if not c.sidecar]
        for group in (others, sidecars):
            await asyncio.gather(*(container.stop(pod, grace) for container in group))
        self._wake.set()

    async def _delete(self) -> float | None:
        """The API wants the pod gone: end it, say how it ended, then release its name."""
        if self.running:
            self._end(_grace(self.pod["metadata"], "deletionGracePeriodSeconds"))
            await self._report()
            return None
        if self._ending is not None and not self._ending.done():
            self._ending.cancel()
        self._conclude()
        await self._report()
        await self._clean()
        meta = self.pod["metadata"]
        try:
            await self.host.client.delete(
                "pods", meta["name"], meta["namespace"], grace_seconds=0, uid=self.uid
            )
        except ApiError as error:
            if error.status not in (404, 409):  # gone already, or the name is another pod's
                raise
        self.finished = True
        return None

    def _conclude(self) -> None:
        if self._phase_in_api() in (SUCCEEDED, FAILED):
            return
        for container in self.mains:
            container.conclude()
        codes = [c.state.exit.code for c in self.mains if c.state.exit]
        if not self._forced:
            self._forced = {"phase": SUCCEEDED if not any(codes) else FAILED}

    async def _leave(self) -> float | None:
        if self.running:
            self._end(0)
            return None
        await self._clean()
        self.finished = True
        return None

    async def _clean(self) -> None:
        for container in self.containers:
            await container.close()
            if container.view is not None:
                container.view.close()
        await self._mounts.release(self.uid)
        await asyncio.to_thread(shutil.rmtree, self.dir, ignore_errors=True)
        self._allocation.release()
        self.host.leaving.discard(self.uid)

    # Telling

    async def _report(self) -> None:
        if self._phase_in_api() in (SUCCEEDED, FAILED):
            return  # an ended pod's status is final
        status = pod_status(
            self.pod,
            [c.state for c in self.inits if not c.sidecar],
            [c.state for c in self.mains],
            forced={} if self.running else self._forced,
            addresses={"host": self.host.addresses.node, "pod": self._allocation.address},
            started_at=self._allocation.started_at or now(),
            sandbox=self._mounts.volumes is not None,
            now=now(),
        )
        status["initContainerStatuses"] = [c.state.to_status() for c in self.inits] or None
        if not self._reporter.is_news(self.pod, status):
            return
        if status["phase"] in (SUCCEEDED, FAILED) and not self.running:
            self._allocation.release()  # before the scheduler can know
        await self._reporter.send(self.pod, status)


def _grace(part: Obj, field: str) -> float:
    seconds = part.get(field)
    return 30 if seconds is None else seconds
