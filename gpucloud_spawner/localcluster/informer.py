"""What a Kubernetes controller stands on: a watch-fed cache (`Informer`), a keyed work queue
(`WorkQueue`).

Level-triggered: events only enqueue keys, and `reconcile(key)` looks at the whole object. No
policy of any resource belongs here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, Self, TypeVar

from .client import RETRYABLE, ApiError, KubeClient, Obj, object_key

log = logging.getLogger(__name__)
MAX_BACKOFF = 5.0

Handler = Callable[[Obj | None, Obj | None], None]


class Informer:
    """A cache of one resource, kept right by list and watch for as long as it runs.

    `store` maps object keys to the newest objects: read them, never change them. Handlers get
    (old, new): (None, obj) added, (old, obj) changed, (old, None) deleted; they must be quick and
    only enqueue. It resumes a watch where it ended, relists on 410, backs off on any failure and
    never ends by itself.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: str,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        handler: Handler | None = None,
    ) -> None:
        self.client = client
        self.resource = resource
        self.namespace = namespace
        self.selectors: Any = {"label_selector": label_selector, "field_selector": field_selector}
        self.store: dict[str, Obj] = {}
        self.handlers: list[Handler] = [handler] if handler else []
        self._synced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._version = ""
        self._failures = 0

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"informer {self.resource}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def synced(self) -> None:
        """Returns once the first list is in the store."""
        await self._synced.wait()

    @property
    def version(self) -> int:
        """The resourceVersion up to which the store is complete, 0 while it is not known. Whoever
        has written an object waits for its version before it trusts the store."""
        return int(self._version or 0)

    async def _run(self) -> None:
        while True:
            try:
                if not self._version:
                    await self._relist()
                await self._watch()
                self._failures = 0
            except ApiError as error:
                if error.status == 410:
                    self._version = ""
                    log.info("%s: watch is too old, listing again", self.resource)
                    # The first 410 relists at once; a server that only says 410 is not hammered.
                    self._failures += 1
                    if self._failures == 1:
                        continue
                await self._back_off(error)
            except RETRYABLE as error:
                await self._back_off(error)
            except Exception as error:  # a cache that dies blinds its owner for good
                log.exception("%s: informer failed, starting again", self.resource)
                self._version = ""
                await self._back_off(error)

    async def _back_off(self, error: Exception) -> None:
        self._failures += 1
        # A watch that ends unexpectedly once is usual (a proxy, a restart): no noise, no long wait.
        level = logging.DEBUG if self._failures < 2 else logging.WARNING
        log.log(level, "%s: %s; trying again", self.resource, error or type(error).__name__)
        delay = min(MAX_BACKOFF, 0.1 * 2 ** min(self._failures, 10))
        await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def _relist(self) -> None:
        result = await self.client.list(self.resource, self.namespace, **self.selectors)
        found = {object_key(item): item for item in result["items"]}
        for key, old in list(self.store.items()):
            new = found.get(key)
            if new is None or new["metadata"].get("uid") != old["metadata"].get("uid"):
                self._set(key, None)
        for key, new in found.items():
            self._set(key, new)
        self._version = result["metadata"]["resourceVersion"]
        self._synced.set()

    async def _watch(self) -> None:
        events = self.client.watch(
            self.resource, self.namespace, resource_version=self._version, **self.selectors
        )
        async with contextlib.aclosing(events):  # type: ignore[type-var]
            async for event in events:
                obj = event["object"]
                if event["type"] != "BOOKMARK":
                    self._set(object_key(obj), None if event["type"] == "DELETED" else obj, obj)
                self._version = obj["metadata"]["resourceVersion"]
                self._failures = 0

    def _set(self, key: str, new: Obj | None, last: Obj | None = None) -> None:
        old = self.store.get(key)
        if new is None:
            if old is None:
                return
            del self.store[key]
            old = last or old  # a DELETED event carries the final state
        else:
            if old is not None:
                if old["metadata"]["resourceVersion"] == new["metadata"]["resourceVersion"]:
                    return
                if old["metadata"].get("uid") != new["metadata"].get("uid"):
                    self._notify(old, None)
                    old = None
            self.store[key] = new
        self._notify(old, new)

    def _notify(self, old: Obj | None, new: Obj | None) -> None:
        for handler in self.handlers:
            try:
                handler(old, new)
            except Exception:  # one bad handler must not blind the others
                log.exception("%s: event handler failed", self.resource)


Key = TypeVar("Key", bound=Hashable)


class WorkQueue(Generic[Key]):
    """Runs `reconcile(key)` for every key added: deduplicated, never twice at once for one key,
    again with a growing delay after a failure, and after n seconds if it returns n."""

    def __init__(
        self,
        reconcile: Callable[[Key], Awaitable[float | None]],
        *,
        name: str = "queue",
        workers: int = 4,
        max_delay: float = 30.0,
    ) -> None:
        self.name = name
        self._reconcile = reconcile
        self._workers = workers
        self._max_delay = max_delay
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        names = (f"{self.name} worker {number}" for number in range(self._workers))
        self._tasks = [asyncio.create_task(self._work(), name=name) for name in names]

    async def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def add(self, key: Key) -> None:
        """Reconcile this key soon; after the present run if it is being reconciled now."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Reconcile this key in so many seconds; the earliest of several such wishes counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._running.add(key)
            try:
                await self._once(key)
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    async def _once(self, key: Key) -> None:
        try:
            delay = await self._reconcile(key)
            self._failures.pop(key, None)
        except Exception as error:  # the border of a work item: log, try again
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = min(self._max_delay, 0.05 * 2 ** min(failures, 16))
            expected = isinstance(error, (ApiError, *RETRYABLE))
            if expected and failures < 5:
                log.debug("%s: %s: %s; trying again", self.name, key, error)
            else:
                log.warning("%s: %s: %s", self.name, key, error, exc_info=not expected)
        if delay is not None:
            self.add_after(key, delay)
