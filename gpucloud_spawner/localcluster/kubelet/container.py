"""One container of a pod: its instances, restarts, probes and how it is stopped.

The order in which a pod's containers start and end is the pod worker's business.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import shutil
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..events import now
from ..quantity import amount
from .environment import ConfigError
from .health import Health
from .host import Host
from .images import Image, InvalidImage, UnknownImage
from .launch import Inputs, Launch, prepare
from .logs import head, tail
from .probes import Target, check
from .pulling import Pull
from .runtime import UNKNOWN, Exit, Instance, StartError, never_ran
from .status import ContainerState
from .view import View
from .volumes import MountError

log = logging.getLogger(__name__)
Obj = dict[str, Any]
KEPT_INSTANCES = 2  # the running one and the one before it, for `kubectl logs --previous`
MESSAGE_BYTES = 4096
HOOK_SECONDS = 30.0
NOT_LOCATED = "The container could not be located when the pod was terminated"


class Container:
    """Start, adopt and stop it; `state` is always what there is to report."""

    def __init__(
        self, host: Host, pod_dir: Path, spec: Obj, *, init: bool, wake: Callable[[], None]
    ) -> None:
        self.host = host
        self.spec = spec
        self.name: str = spec["name"]
        self.init = init
        self.sidecar = init and spec.get("restartPolicy") == "Always"
        self.pod_dir = pod_dir
        self.directory = pod_dir / "containers" / self.name
        self.state = ContainerState(self.name, spec.get("image", ""))
        self.instance: Instance | None = None
        self.attempt = -1
        self.retry_at = 0.0  # loop time before which it is not started (again)
        self.stopping = False
        self.view: View | None = None
        self._wake = wake
        self._backoff = 0.0
        self._retries = 0
        self._started_loop = 0.0
        self._target: Target | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._pod: Obj = {}
        self._pull = Pull(host, spec, self.state)
        self._health = Health(
            spec,
            self.state,
            http=host.http,
            spawn=self.spawn,
            unhealthy=self._unhealthy,
            failed=self._failed_probe,
            wake=wake,
        )
        limit = ((spec.get("resources") or {}).get("limits") or {}).get("memory")
        self.memory_limit = amount("memory", limit) if limit else 0

    # What the pod worker asks

    @property
    def running(self) -> bool:
        return self.instance is not None and self.instance.running

    @property
    def lost(self) -> bool:
        """It ended with its node, not by itself."""
        return self.state.exit is not None and self.state.exit.reason == UNKNOWN

    @property
    def target(self) -> Target | None:
        """With what commands are run in it, if it runs."""
        return self._target if self.running else None

    def log_path(self, previous: bool) -> Path | None:
        """The log of the present (or last) instance, or of the one before that."""
        number = self.attempt - 1 if previous else self.attempt
        return self.directory / str(number) / "log" if number >= 0 else None

    def adopt(self, pod: Obj) -> None:
        """Takes up what an earlier kubelet process has started."""
        attempts = sorted(int(p.name) for p in self.directory.glob("[0-9]*") if p.name.isdecimal())
        if attempts and never_ran(self.directory / str(attempts[-1])):
            shutil.rmtree(self.directory / str(attempts.pop()), ignore_errors=True)
        if not attempts:
            return
        self.attempt = self.state.restarts = attempts[-1]
        if len(attempts) > 1:
            previous = Instance(self.directory / str(attempts[-2]), lambda: None)
            previous.adopt()
            previous.release()
            self.state.last = previous.exit
        self._identify(pod)
        self.instance = Instance(self.directory / str(self.attempt), self._wake)
        self.instance.adopt()
        if self.instance.running:
            self.state.running_since = self.instance.started_at
            self.state.started = self.state.ready = True
        else:
            self.state.exit = self.instance.exit

    def begin_anew(self) -> None:
        """The node has lost the pod: an init container counts as never run, another one as one that
        waits for those."""
        state = self.state
        if self.attempt < 0:
            return
        state.last = None if self.init and not self.sidecar else state.exit or state.last
        state.exit, state.waiting = None, "PodInitializing"

    def conclude(self) -> None:
        """Its pod will not run again: what never ran counts as lost."""
        state = self.state
        if state.exit is None:
            lost = Exit(137, "ContainerStatusUnknown", NOT_LOCATED, "", "")
            state.exit, state.last = state.last or lost, None
        state.ready = state.started = False

    def note_exit(self) -> bool:
        """Takes over an end that has happened; True if there was one."""
        if not self.state.running_since or self.running or self.instance is None:
            return False
        ended = self.instance.exit
        assert ended is not None
        self._cancel_tasks()
        self.state.exit = replace(ended, message=self._termination_message(ended))
        self.state.running_since = ""
        self.state.ready = self.state.started = False
        loop = asyncio.get_running_loop()
        if loop.time() - self._started_loop > self.host.timing.restart_backoff_reset:
            self._backoff = 0.0
        self.retry_at = loop.time() + self._backoff
        return True

    def restarts_after(self, policy: str) -> bool:
        """Whether the end it has come to is followed by a restart."""
        if self.sidecar or (policy == "Always" and not self.init):
            return True
        return policy != "Never" and self.state.exit is not None and self.state.exit.code != 0

    def wait_for_restart(self, pod: Obj) -> None:
        """Shows CrashLoopBackOff until `retry_at`."""
        if self.state.exit is None:
            return
        self.state.last, self.state.exit = self.state.exit, None
        self.state.waiting = "CrashLoopBackOff"
        meta = pod["metadata"]
        where = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
        delay = _duration(self._backoff)
        what = f"restarting failed container={self.name} pod={where}"
        self.state.message = f"back-off {delay} {what}"
        text = f"Back-off restarting failed container {self.name} in pod {where}"
        self.event(pod, "Warning", "BackOff", text)

    def event(self, pod: Obj, event_type: str, reason: str, message: str) -> None:
        kind = "initContainers" if self.init else "containers"
        path = f"spec.{kind}{{{self.name}}}"
        self.host.events.record(pod, event_type, reason, message, field_path=path)

    # Starting

    async def start(self, inputs: Inputs) -> None:
        """Tries to start the next instance; what is in the way is in the state afterwards."""
        pod = inputs.pod
        tell = functools.partial(self.event, pod)
        image, delay = self._pull.try_again(tell, first=self.attempt < 0)
        if image is None:
            self.retry_at = asyncio.get_running_loop().time() + delay
            return
        try:
            await self._prepare_and_run(inputs, image)
        except (ConfigError, MountError) as error:
            self._postpone("CreateContainerConfigError", str(error))
            self.event(pod, "Warning", "Failed", f"Error: {error}")
        except StartError as error:
            self._failed_to_start(pod, str(error))

    def _postpone(self, reason: str, message: str) -> None:
        self._retries += 1
        timing = self.host.timing
        delay = min(timing.retry * 2 ** (self._retries - 1), timing.retry_max)
        self.retry_at = asyncio.get_running_loop().time() + delay
        self.state.waiting, self.state.message = reason, message

    async def _prepare_and_run(self, inputs: Inputs, image: Image) -> None:
        pod = inputs.pod
        launch = await self._prepare(inputs, image)
        self.attempt += 1
        self._prune()
        self._empty_report()
        if self.attempt > 0:
            self.state.restarts = self.attempt
        self._identify(pod)
        self._raise_backoff()
        self.event(pod, "Normal", "Created", f"Created container: {self.name}")
        self.instance = Instance(self.directory / str(self.attempt), self._wake)
        await self.instance.start(launch.argv, launch.env, launch.cwd)
        self._note_running(pod)
        await self._post_start(pod)

    async def _prepare(self, inputs: Inputs, image: Image) -> Launch:
        allocatable = self.host.allocatable
        launch = await prepare(inputs, self.spec, image, self.pod_dir, allocatable)
        self.view = launch.view
        self._aim(inputs.pod, launch.env, launch.cwd, launch.view.translate)
        return launch

    def _identify(self, pod: Obj) -> None:
        self.state.identity = f"gpucloud://{pod['metadata']['uid']}/{self.name}/{self.attempt}"

    def _prune(self) -> None:
        old = self.directory / str(self.attempt - KEPT_INSTANCES)
        shutil.rmtree(old, ignore_errors=True)

    def _empty_report(self) -> None:
        report = self.directory / "termination-log"
        # It was the last instance's: opening whatever that has put there could block for ever.
        if report.is_dir() and not report.is_symlink():
            shutil.rmtree(report)
        report.unlink(missing_ok=True)
        report.touch(mode=0o600)

    def _raise_backoff(self) -> None:
        timing = self.host.timing
        doubled = max(timing.restart_backoff, self._backoff * 2)
        self._backoff = min(doubled, timing.restart_backoff_max)

    def _failed_to_start(self, pod: Obj, reason: str) -> None:
        message = f"failed to create containerd task: unable to start container process: {reason}"
        self.event(pod, "Warning", "Failed", f"Error: {message}")
        exit_file = self.directory / str(self.attempt) / "exit"
        exit_file.parent.mkdir(parents=True, exist_ok=True)
        exit_file.write_text(f"128 {now()} StartError {message}")
        self.state.last = self.state.exit or self.state.last
        self.state.exit = Exit(128, "StartError", message, "1970-01-01T00:00:00Z", now())
        self.retry_at = asyncio.get_running_loop().time() + self._backoff

    def _note_running(self, pod: Obj) -> None:
        assert self.instance is not None
        state = self.state
        state.last = state.exit or state.last
        state.exit, state.message = None, ""
        state.running_since = self.instance.started_at
        self._retries = 0
        self._started_loop = asyncio.get_running_loop().time()
        self.event(pod, "Normal", "Started", f"Started container {self.name}")
        self._health.note_start()
        self._begin_probes(pod)
        if self.memory_limit:
            self.host.watch_memory()

    async def _post_start(self, pod: Obj) -> None:
        hook = (self.spec.get("lifecycle") or {}).get("postStart")
        if not hook:
            return
        assert self._target is not None
        succeeded, output = await check(hook, self._target, self.host.http, HOOK_SECONDS)
        if not succeeded:
            self.event(pod, "Warning", "FailedPostStartHook", f"PostStartHook failed: {output}")
            self.spawn(self.stop(pod, 0, "FailedPostStartHook"))

    async def resume(self, inputs: Inputs) -> None:
        """After adoption: probes go on. They need the environment, which is kept nowhere."""
        if not self.running or self._target is not None:
            return
        try:
            image = self.host.images.get(self.spec.get("image", ""))
            await self._prepare(inputs, image)
        except (ConfigError, MountError, InvalidImage, UnknownImage) as error:
            # What it was started with is gone meanwhile: only its exec probes miss that.
            log.warning("container %s: its environment is incomplete: %s", self.name, error)
            self._aim(inputs.pod, {}, self.pod_dir, str)
        self._begin_probes(inputs.pod)
        if self.memory_limit:
            self.host.watch_memory()

    def _aim(
        self, pod: Obj, env: Mapping[str, str], cwd: Path, translate: Callable[[str], str]
    ) -> None:
        """Where probes and hooks go."""
        ports = {p["name"]: p["containerPort"] for p in self.spec.get("ports") or [] if "name" in p}
        self._target = Target(pod["status"].get("podIP", ""), ports, env, cwd, translate)

    # Probes

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that ends with the container."""
        task = asyncio.create_task(work, name=f"container {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def close(self) -> None:
        """Ends the probes and stops watching; the process itself goes on."""
        self._cancel_tasks()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.instance is not None:
            self.instance.release()

    def _begin_probes(self, pod: Obj) -> None:
        assert self._target is not None
        self._pod = pod
        self._health.begin(self._target)

    def _unhealthy(self, message: str) -> None:
        if not self.stopping:
            self.event(self._pod, "Warning", "Unhealthy", message)

    def _failed_probe(self, kind: str, probe: Obj) -> None:
        if self.stopping:
            return
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is None:
            grace = self._pod["spec"].get("terminationGracePeriodSeconds", 30)
        why = f"Container {self.name} failed {kind} probe, will be restarted"
        self.spawn(self.stop(self._pod, grace, why))

    # Ending

    async def stop(self, pod: Obj, grace: float, why: str = "") -> None:
        """preStop, SIGTERM, and SIGKILL when the grace period is over. While that is under way,
        another call waits for its end, for as long as its own grace period allows."""
        if not self.running:
            return
        assert self.instance is not None
        if self.stopping:
            await self.instance.stop(grace, ask=False)
            return
        self.stopping = True
        try:
            self.event(pod, "Normal", "Killing", why or f"Stopping container {self.name}")
            loop = asyncio.get_running_loop()
            deadline = loop.time() + grace
            hook = (self.spec.get("lifecycle") or {}).get("preStop")
            if hook and grace > 0 and self._target is not None:
                succeeded, output = await check(hook, self._target, self.host.http, grace)
                if not succeeded:
                    text = f"PreStopHook failed: {output}"
                    self.event(pod, "Warning", "FailedPreStopHook", text)
                # As a kubelet: two seconds at least after a hook that took all the time.
                deadline = max(deadline, loop.time() + 2.0)
            await self.instance.stop(max(deadline - loop.time(), 0.0))
        finally:
            self.stopping = False
            self._wake()

    def kill(self) -> None:
        """SIGKILL at once."""
        if self.instance is not None:
            self.instance.kill()

    def kill_for_memory(self) -> None:
        """What the kernel's OOM killer would do."""
        if self.instance is not None:
            self.instance.mark("oomkilled")
            self.instance.kill()

    async def shutdown(self, grace: float) -> None:
        """Ends the process because the node ends; the next start finds it as after a reboot."""
        if self.instance is not None and self.instance.running:
            self.instance.mark("shutdown")
            await self.instance.stop(grace)

    def _termination_message(self, ended: Exit) -> str:
        text = head(self.directory / "termination-log", MESSAGE_BYTES)
        policy = self.spec.get("terminationMessagePolicy")
        if not text and ended.code != 0 and policy == "FallbackToLogsOnError":
            text = tail(self.directory / str(self.attempt) / "log")
        return text or ended.message


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
