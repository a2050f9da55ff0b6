"""Watches: what a client missed, then what happens, until it leaves, lags or its time is up."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import orjson

from .errors import APIError
from .resources import Resource
from .selectors import Selector
from .store import Event, Record, Store

# What may wait for a slow client before it is dropped.
BACKLOG = 20_000
BACKLOG_BYTES = 32 * 1024 * 1024
BOOKMARK_EVERY = 60.0
_AT_ONCE = 1024 * 1024
_DEFAULT_SECONDS = 1800.0
_INITIAL_END = {"k8s.io/initial-events-end": "true"}

Send = Callable[[bytes], Awaitable[None]]
Render = Callable[[str, Record], bytes]


@dataclass(frozen=True)
class WatchOptions:
    selector: Selector
    version: int | None = None
    bookmarks: bool = False
    initial_events: bool | None = None
    timeout: int | None = None

    @property
    def starts_with_state(self) -> bool:
        """Without a version, or with "0", a watch begins with what exists."""
        return not self.version if self.initial_events is None else self.initial_events


def json_renderer(resource: Resource) -> Render:
    def render(kind: str, record: Record) -> bytes:
        return b'{"type":"%b","object":%b%b}\n' % (kind.encode(), resource.head, record.body[1:])

    return render


class Watcher:
    """One client's watch of one resource. The store calls `_listen` synchronously for each change;
    `run` writes what has gathered in one go."""

    def __init__(
        self,
        store: Store,
        resource: Resource,
        namespace: str,
        options: WatchOptions,
        render: Render,
        abort: Callable[[], None],
    ) -> None:
        self._store = store
        self._resource = resource
        self._namespace = namespace
        self._options = options
        self._render = render
        self._abort = abort
        self._limit = BACKLOG
        self._bytes = 0
        self._bytes_limit = BACKLOG_BYTES
        self._queue: deque[tuple[str, Record]] = deque()
        self._wake = asyncio.Event()
        self._closed = False

    def close(self) -> None:
        """End the watch as if its time were up."""
        self._closed = True
        self._wake.set()

    async def run(self, send: Send) -> None:
        options = self._options
        loop = asyncio.get_running_loop()
        seconds = options.timeout or _DEFAULT_SECONDS * (1 + random.random())  # noqa: S311
        end = loop.time() + seconds
        table = self._store.table(self._resource)
        try:
            self._begin()
        except APIError as error:
            await send(b'{"type":"ERROR","object":%b}\n' % orjson.dumps(error.status()))
            return
        self._limit += len(self._queue)
        self._bytes_limit += self._bytes
        table.listeners.add(self._listen)
        try:
            if options.initial_events and options.bookmarks:
                await self._drain(send)
                await send(self._bookmark(_INITIAL_END))
            await self._follow(send, end)
        finally:
            table.listeners.discard(self._listen)

    def _begin(self) -> None:
        """Queue the state or the history that the client lacks. Nothing is awaited between this and
        the registration as a listener, so no change falls between."""
        version = self._options.version or 0
        if self._options.starts_with_state:
            for record in self._store.records(self._resource, self._namespace):
                if self._options.selector.matches(record):
                    self._put("ADDED", record)
        elif version:
            for event in self._store.since(self._resource, version):
                self._listen(event)

    def _listen(self, event: Event) -> None:
        if self._namespace and event.record.key[0] != self._namespace:
            return
        if event.record.version <= (self._options.version or 0):
            return  # a client may ask for the future
        seen = self._seen(event)
        if seen is None:
            return
        if len(self._queue) >= self._limit or self._bytes > self._bytes_limit:
            # It reads slower than the cluster changes: cut it off, it will list again.
            self._queue.clear()
            self._abort()
            self.close()
            return
        self._put(*seen)
        self._wake.set()

    def _put(self, kind: str, record: Record) -> None:
        self._queue.append((kind, record))
        self._bytes += len(record.body)

    def _seen(self, event: Event) -> tuple[str, Record] | None:
        """The change as a client with this selector sees it."""
        selector = self._options.selector
        if selector.everything:
            return event.type, event.record
        before = event.previous is not None and selector.matches(event.previous)
        now = event.type != "DELETED" and selector.matches(event.record)
        if event.type == "DELETED":
            return ("DELETED", event.record) if before else None
        if now:
            return ("MODIFIED" if before else "ADDED", event.record)
        if before and event.previous is not None:
            return "DELETED", self._left(event.previous, event.record.version)
        return None

    def _left(self, previous: Record, version: int) -> Record:
        """The last matching state, at the version of the change that ended the match."""
        obj = previous.load()
        obj["metadata"]["resourceVersion"] = str(version)
        return Record(self._resource, previous.key, version, obj, orjson.dumps(obj))

    async def _follow(self, send: Send, end: float) -> None:
        loop = asyncio.get_running_loop()
        next_bookmark = loop.time() + BOOKMARK_EVERY
        while not self._closed:
            await self._drain(send)
            time = loop.time()
            if time >= end:
                return
            if self._options.bookmarks and time >= next_bookmark:
                await send(self._bookmark({}))
                next_bookmark = time + BOOKMARK_EVERY
            self._wake.clear()
            if self._queue or self._closed:
                continue
            try:
                async with asyncio.timeout_at(min(end, next_bookmark)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _drain(self, send: Send) -> None:
        while self._queue:
            chunk = b"".join(self._rendered())
            await send(chunk)

    def _rendered(self) -> Iterator[bytes]:
        # At most so much at once, so that a long state does not hold the loop for long.
        taken = 0
        for _ in range(min(len(self._queue), 500)):
            kind, record = self._queue.popleft()
            self._bytes -= len(record.body)
            taken += len(record.body)
            yield self._render(kind, record)
            if taken > _AT_ONCE:
                return

    def _bookmark(self, annotations: dict[str, str]) -> bytes:
        metadata: dict[str, object] = {"resourceVersion": str(self._store.version)}
        if annotations:
            metadata["annotations"] = annotations
        obj = {"metadata": metadata, **self._resource.bookmark}
        body = self._resource.head + orjson.dumps(obj)[1:]
        return b'{"type":"BOOKMARK","object":%b}\n' % body
