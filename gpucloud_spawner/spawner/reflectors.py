"""KubeSpawner's pod and event reflectors on a watch that recovers (`kube.watch`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kubespawner.reflector import ResourceReflector
from kubespawner.spawner import EventReflector, PodReflector
from prometheus_client import Gauge

from ..kube.watch import MAX_DELAY_SECONDS, Follower, cancel_and_wait

BLIND_SECONDS = Gauge(
    "gpucloud_watch_blind_seconds",
    "Seconds since the Kubernetes API last answered the hub's watch; 0 while it does",
    ["kind"],
)


class SteadyReflector(ResourceReflector):
    """A reflector that outlives any outage of the API server and wakes those who wait for a change.

    Same face as KubeSpawner's: `resources`, `first_load_future`, `start()`, `stop()`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        selectors = {"label_selector": self.label_selector, "field_selector": self.field_selector}
        if not self.omit_namespace:
            selectors["namespace"] = self.namespace
        self._follower = Follower(
            getattr(self.api, self.list_method_name),
            selectors,
            what=self.kind,
            on_change=self._on_change,
            log=self.log,
        )
        self._changed = asyncio.Event()
        self.watch_task: asyncio.Task[None] | None = None
        BLIND_SECONDS.labels(self.kind).set_function(lambda: self._follower.blind_seconds)

    def _on_change(self) -> None:
        self.resources = self._follower.objects
        # a new Event for each change: set() wakes everyone who waits for this one
        self._changed.set()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Follow in the background; returns at once. `loaded()` waits for the first view."""
        self.watch_task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """List until it works, then follow.

        Whatever the API server says meanwhile, 401 and 403 of one that is starting among it, is no
        view of the cluster: an empty one would make the hub take every running server for dead.
        """
        delay = 0.2
        while not self._follower.listed:
            try:
                await self._follower.list_once()
            except Exception as error:  # noqa: BLE001 - the border of a loop that must not end
                self.log.error("The hub cannot list %s yet, trying again: %s", self.kind, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, MAX_DELAY_SECONDS)
        if not self.first_load_future.done():
            self.first_load_future.set_result(None)
        await self._follower.run()

    async def loaded(self) -> None:
        """Wait for the first view. A caller that is cancelled leaves the others waiting."""
        await asyncio.shield(self.first_load_future)

    async def stop(self) -> None:
        self._stopping = True
        if self.watch_task:
            await cancel_and_wait(self.watch_task)
            self.watch_task = None

    async def wait_for_change(self, timeout: float) -> None:
        """Return at the next change of any object, or after ``timeout`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()

    async def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``condition()`` holds, looking after every change; False at ``timeout`` s."""
        deadline = asyncio.get_running_loop().time() + timeout
        while not condition():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await self.wait_for_change(min(left, 1.0))
        return True


class SteadyPodReflector(SteadyReflector, PodReflector):
    """Pods of user servers."""


class SteadyEventReflector(SteadyReflector, EventReflector):
    """Events of pods."""


STEADY: dict[type[ResourceReflector], type[ResourceReflector]] = {
    PodReflector: SteadyPodReflector,
    EventReflector: SteadyEventReflector,
}
