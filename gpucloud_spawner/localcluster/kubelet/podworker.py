"""Brings one pod to what the API says about it, again after every event; see `container` for one
container's life and `status` for what is reported.

Level-triggered: whatever wakes the worker (the API, an exit, a probe, a timer), `_sync` looks at
the whole pod. Only ending containers takes time, and that runs beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..client import RETRYABLE, ApiError
from ..events import now
from ..gpus import Grant, NotEnoughDevices
from ..scheduling import pod_requests
from .container import Container
from .host import Host
from .runtime import Exit, Instance
from .status import FAILED, SUCCEEDED, phase, pod_status
from .volumes import MountError

log = logging.getLogger(__name__)
Obj = dict[str, Any]
STATE_FILE = "pod.json"
LEAVING_SECONDS = 0.05
NOT_LOCATED = "The container could not be located when the pod was terminated"


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
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._grace = float("inf")
        self._gone = False
        self._admitted = False
        self._forced: dict[str, str] = {}
        self._grant: Grant = {}
        self._address = ""
        self._started_at = ""
        self._volumes: dict[str, Path] | None = None
        self._refresh = False
        self._mount_failures = 0
        self._mount_at = 0.0
        self._sent: Obj | None = None
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
            self._refresh = True  # downward API volumes
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
        try:
            saved = json.loads((self.dir / STATE_FILE).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return
        self._address, self._started_at = saved["ip"], saved["startTime"]
        self._grant = saved["grant"]
        for container in self.containers:
            container.adopt(self.pod)
        if (self.pod.get("status") or {}).get("phase") not in (SUCCEEDED, FAILED):
            self.host.addresses.reserve(self._address)
            self.host.devices.restore(self.uid, self._grant)
            self.host.granted[self.uid] = pod_requests(self.pod)
        self._admitted = True

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
            if not self.finished:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), delay)

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
        if (self.pod.get("status") or {}).get("phase") in (SUCCEEDED, FAILED):
            self._rest()
            return None
        if not self._admitted and (delay := self._admit()):
            return delay
        self._check_deadline()
        if self._forced or self._done():
            if self.running:
                self._end(self._spec_grace())
                await self._report()
                return None
        else:
            await self._advance()
        await self._report()
        return self._next_timer()

    def _rest(self) -> None:
        """An ended pod holds nothing; its directory stays for its logs until it is deleted."""
        if self.running:
            self._end(0)
        else:
            self._release()

    def _done(self) -> bool:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        inits = [c.state for c in self.inits if not c.sidecar]
        return phase(policy, inits, [c.state for c in self.mains]) in (SUCCEEDED, FAILED)

    def _spec_grace(self) -> float:
        grace = self.pod["spec"].get("terminationGracePeriodSeconds")
        return 30 if grace is None else grace

    # Beginning

    def _admit(self) -> float:
        """The kubelet's own check of what the pod needs; >0: ask again in so many seconds."""
        requests = pod_requests(self.pod)
        try:
            self._check_room(requests)
            self._grant = self.host.devices.allocate(self.pod)
        except NotEnoughDevices as short:
            if self.host.leaving:
                # Force-deleted pods leave the API before their processes have ended.
                return LEAVING_SECONDS
            self._reject(short)
            return 0
        self.host.granted[self.uid] = requests
        self._address = self.host.addresses.allocate()
        self._started_at = now()
        self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        meta = self.pod["metadata"]
        saved = {
            "namespace": meta["namespace"],
            "name": meta["name"],
            "node": self.host.name,
            "ip": self._address,
            "startTime": self._started_at,
            "grant": self._grant,
        }
        partial = self.dir / f"{STATE_FILE}.new"
        partial.write_text(json.dumps(saved))
        partial.replace(self.dir / STATE_FILE)
        self._admitted = True
        return 0

    def _check_room(self, requests: dict[str, int]) -> None:
        for name, wanted in requests.items():
            used = sum(granted.get(name, 0) for granted in self.host.granted.values())
            capacity = self.host.capacity.get(name, 0)
            if used + wanted > capacity:
                raise NotEnoughDevices(name, wanted, used, capacity)

    def _reject(self, short: NotEnoughDevices) -> None:
        self._admitted = True
        self._started_at = now()
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
        age = datetime.now(UTC) - datetime.fromisoformat(self._started_at)
        return float(seconds) - age.total_seconds()

    # Running

    async def _advance(self) -> None:
        if not await self._mount():
            return
        begun = any(container.attempt >= 0 for container in self.mains)
        for container in self.inits:
            if begun and not container.sidecar:
                continue  # done once for the pod's life
            await self._keep(container)
            state = container.state
            ready = state.started if container.sidecar else _succeeded(state.exit)
            if not ready:
                for waiting in self.mains:
                    if waiting.attempt < 0:
                        waiting.state.waiting = "PodInitializing"
                return
        for container in self.mains:
            await self._keep(container)

    async def _keep(self, container: Container) -> None:
        """Starts it if it should run and does not."""
        pod = self._with_addresses()
        assert self._volumes is not None
        if container.running:
            await container.resume(pod, self._volumes, self._lookup)
            return
        if container.state.exit is not None:
            policy = self.pod["spec"].get("restartPolicy", "Always")
            if not container.restarts_after(policy):
                return
        if asyncio.get_running_loop().time() < container.retry_at:
            container.wait_for_restart(pod)
            return
        devices = self._grant.get(container.name, {})
        await container.start(pod, self._volumes, devices, self._lookup)

    async def _mount(self) -> bool:
        loop = asyncio.get_running_loop()
        if self._volumes is not None and not self._refresh:
            return True
        if loop.time() < self._mount_at:
            return self._volumes is not None
        self._refresh = False
        try:
            self._volumes = await self.host.volumes.prepare(
                self._with_addresses(), self.dir, self._on_object_change
            )
        except MountError as error:
            self._mount_failures += 1
            # A claim that is being bound right now is no failure worth telling.
            if self._mount_failures > 3 or "is not bound yet" not in str(error):
                self.host.events.record(self.pod, "Warning", "FailedMount", str(error))
            delay = min(0.05 * 2.0**self._mount_failures, self.host.timing.retry_max)
            self._mount_at = loop.time() + delay
            self._refresh = self._volumes is not None
            return self._volumes is not None
        self._mount_failures = 0
        return True

    def _on_object_change(self) -> None:
        self._refresh = True
        self._mount_at = 0.0
        self._wake.set()

    async def _lookup(self, resource: str, name: str) -> Obj | None:
        try:
            return await self.host.client.get(resource, name, self.pod["metadata"]["namespace"])
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _with_addresses(self) -> Obj:
        host, own = self.host.addresses.node, self._address
        status = {**(self.pod.get("status") or {}), "hostIP": host, "podIP": own}
        status |= {"hostIPs": [{"ip": host}], "podIPs": [{"ip": own}]}
        return {**self.pod, "status": status}

    def _next_timer(self) -> float | None:
        if self._forced or self._done():
            return None
        loop = asyncio.get_running_loop()
        times = [c.retry_at for c in self.containers if not c.running]
        if self._volumes is None or self._refresh:
            times.append(self._mount_at)
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
        grace = self.pod["metadata"].get("deletionGracePeriodSeconds")
        if self.running:
            self._end(30 if grace is None else grace)
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
        """The states of a pod that will not run again: what never ran counts as lost."""
        if (self.pod.get("status") or {}).get("phase") in (SUCCEEDED, FAILED):
            return
        for container in self.mains:
            state = container.state
            if state.exit is None:
                lost = Exit(137, "ContainerStatusUnknown", NOT_LOCATED, "", "")
                state.exit, state.last = state.last or lost, None
            state.ready = state.started = False
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

    def _release(self) -> None:
        """Gives devices and the address back."""
        self.host.granted.pop(self.uid, None)
        self.host.devices.release(self.uid)
        if self._address:
            self.host.addresses.release(self._address)

    async def _clean(self) -> None:
        for container in self.containers:
            await container.close()
            for link in container.view.links if container.view else ():
                link.unlink(missing_ok=True)
        await self.host.volumes.objects.release(self.uid)
        await asyncio.to_thread(shutil.rmtree, self.dir, ignore_errors=True)
        self._release()
        self.host.leaving.discard(self.uid)

    # Telling

    async def _report(self) -> None:
        status_now = (self.pod.get("status") or {}).get("phase")
        if status_now in (SUCCEEDED, FAILED):
            return  # an ended pod's status is final
        status = pod_status(
            self.pod,
            [c.state for c in self.inits if not c.sidecar],
            [c.state for c in self.mains],
            forced={} if self.running else self._forced,
            addresses={"host": self.host.addresses.node, "pod": self._address},
            started_at=self._started_at or now(),
            sandbox=self._volumes is not None,
            now=now(),
        )
        status["initContainerStatuses"] = [c.state.to_status() for c in self.inits] or None
        if self._sent == status or not self._changed(status):
            return
        if status["phase"] in (SUCCEEDED, FAILED) and not self.running:
            self._release()  # before the scheduler can know
        meta = self.pod["metadata"]
        patch = {"metadata": {"uid": self.uid}, "status": status}
        try:
            await self.host.client.patch_status("pods", meta["name"], patch, meta["namespace"])
        except ApiError as error:
            if error.status not in (404, 409):
                raise
        self._sent = status

    def _changed(self, status: Obj) -> bool:
        """Whether anything but the time of looking differs from what was sent last."""
        if self._sent is None:
            return True
        skip = {"startTime"}
        for condition in status["conditions"]:
            same = (c for c in self._sent["conditions"] if c["type"] == condition["type"])
            old: Obj = next(same, {})
            if old.get("status") == condition["status"]:
                condition["lastTransitionTime"] = old["lastTransitionTime"]
        return any(self._sent.get(k) != v for k, v in status.items() if k not in skip)


def _succeeded(ended: Exit | None) -> bool:
    return ended is not None and ended.code == 0


def kill_strays(directory: Path) -> None:
    """Ends what still runs of a pod that the API no longer knows."""
    for container in _directories(directory / "containers"):
        for attempt in _directories(container):
            instance = Instance(attempt, lambda: None)
            instance.adopt()
            if instance.running:
                log.info("%s: ending a process of a pod that no longer exists", attempt)
                instance.kill_tree()
            instance.release()


def _directories(path: Path) -> Iterable[Path]:
    return (entry for entry in path.glob("*") if entry.is_dir())
