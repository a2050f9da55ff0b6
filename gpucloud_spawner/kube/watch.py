"""A list-and-watch that never gives up: the one way this project follows Kubernetes objects.

KubeSpawner's own reflector stops for ever after about a minute without an API server
(jupyterhub/kubespawner#938) and lists everything again every ten seconds. This one resumes from
the last resourceVersion, lists again when the server says that this is too old, retries with a
capped back-off for as long as it runs, and tells when it is blind.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiException

ListMethod = Callable[..., Awaitable[Any]]
Object = dict[str, Any]

# The server ends a watch after this long, so a connection that died without a word is noticed.
WATCH_SECONDS = 10
# Seconds without a single byte after which the connection is taken for dead.
READ_TIMEOUT_SECONDS = 13
MAX_DELAY_SECONDS = 4.0
# Do not trust a chain of resumed watches for ever.
RELIST_SECONDS = 300


class _Gone(Exception):
    """The resourceVersion is too old: list again."""


class Follower:
    """Keeps a dict of objects as the API server has them, and calls back on every change.

    ``list_method`` is a bound list method of a kubernetes_asyncio API, ``selectors`` are its
    keyword arguments (namespace, label_selector, field_selector). Keys are "namespace/name". After
    ``blind_after_seconds`` without an answer it says so as an error in the log, once.

    ``on_object(key, object)`` is told each object that is new or changed, and with None that it is
    gone, before ``on_change``; of a list only what differs.

    With ``on_event`` it follows for somebody to whom every event matters, also those that no later
    state shows: it starts from ``resource_version`` without listing, keeps its position over
    failures, lists only where the server has forgotten that position, and keeps no objects.
    ``on_event(kind, object)`` is called in order with ADDED, MODIFIED,
    DELETED and BOOKMARK; with LISTED and the whole answer where what happened in between is lost;
    and with SYNCED where a watch ended well: everything up to `server_time` was delivered.
    """

    def __init__(
        self,
        list_method: ListMethod,
        selectors: Mapping[str, Any],
        *,
        what: str,
        on_change: Callable[[], None],
        log: logging.Logger | logging.LoggerAdapter[Any],
        blind_after_seconds: float = 30,
        on_event: Callable[[str, Object], None] | None = None,
        on_object: Callable[[str, Object | None], None] | None = None,
        resource_version: str | None = None,
        watch_seconds: int = WATCH_SECONDS,
    ) -> None:
        self.objects: dict[str, Object] = {}
        self.what = what
        self._list_method = list_method
        self._selectors = dict(selectors)
        self._on_change = on_change
        self._log = log
        self._on_event = on_event
        self._on_object = on_object
        self._watch_seconds = watch_seconds
        self._clock_offset = 0.0
        self._resource_version = resource_version
        self._listed_at = 0.0
        self._blind_after = blind_after_seconds
        self._failing_since: float | None = None
        self._said_blind = False

    @property
    def blind_seconds(self) -> float:
        """Seconds since the API server stopped answering; 0 while it answers."""
        return time.monotonic() - self._failing_since if self._failing_since else 0.0

    @property
    def listed(self) -> bool:
        """Whether everything has been listed at least once."""
        return self._listed_at > 0

    @property
    def server_time(self) -> int:
        """The API server's clock in whole seconds (UTC), as told by its answers; never ahead."""
        return int(time.time() + self._clock_offset)

    async def list_once(self) -> None:
        """Replace everything by what the API server has now. Raises what the client raises."""
        response = await self._list_method(
            **self._selectors, _preload_content=False, _request_timeout=60
        )
        async with response:
            self._set_clock(response)
            body = await response.read()
            if response.status != 200:
                raise ApiException(status=response.status, reason=body.decode(errors="replace"))
        answer = json.loads(body)
        if self._on_event is None:
            before, self.objects = self.objects, {_key(item): item for item in answer["items"]}
            self._tell_differences(before)
        self._resource_version = answer["metadata"]["resourceVersion"]
        self._listed_at = time.monotonic()
        self._heard()
        self._tell("LISTED", answer)
        self._on_change()

    async def run(self) -> None:
        """Follow until cancelled. Never returns and never raises anything but CancelledError."""
        delay = 0.1
        while True:
            try:
                stale = time.monotonic() - self._listed_at > RELIST_SECONDS
                # between a watch and a list, events would be lost
                if self._resource_version is None or (stale and not self._on_event):
                    await self.list_once()
                await self._watch_once()
                self._tell("SYNCED", {})
                delay = 0.1
            except _Gone:
                self._resource_version = None
                if time.monotonic() - self._listed_at < 1:  # listed just now, and gone again
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, MAX_DELAY_SECONDS)
            except Exception as error:  # noqa: BLE001 - the border of an endless loop
                if not self._on_event or _refused(error):
                    self._resource_version = None  # what happened meanwhile is found by listing
                self._complain(error, delay)
                # jitter: all hubs and services of a cluster must not come back in step
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
                delay = min(delay * 2, MAX_DELAY_SECONDS)

    async def _watch_once(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=READ_TIMEOUT_SECONDS)
        response = await self._list_method(
            **self._selectors,
            watch=True,
            allow_watch_bookmarks=True,
            resource_version=self._resource_version,
            timeout_seconds=self._watch_seconds,
            _preload_content=False,
            _request_timeout=timeout,
        )
        async with response:
            if response.status == 410:
                raise _Gone
            if response.status != 200:
                text = await response.text()
                raise ApiException(status=response.status, reason=text)
            self._set_clock(response)
            self._heard()
            async for event in _events(response):
                self._apply(event)
        self._heard()

    def _apply(self, event: Object) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            if item.get("code") == 410:
                raise _Gone
            raise ApiException(status=item.get("code"), reason=item.get("message"))
        self._heard()
        self._resource_version = item["metadata"]["resourceVersion"]
        self._tell(kind, item)
        if kind == "BOOKMARK" or self._on_event:
            return
        if kind == "DELETED":
            self.objects.pop(_key(item), None)
        else:
            self.objects[_key(item)] = item
        if self._on_object:
            self._on_object(_key(item), self.objects.get(_key(item)))
        self._on_change()

    def _tell_differences(self, before: Mapping[str, Object]) -> None:
        if self._on_object is None:
            return
        for key in before.keys() | self.objects.keys():
            old, new = before.get(key), self.objects.get(key)
            if new is None or old is None or _version(new) != _version(old):
                self._on_object(key, new)

    def _tell(self, kind: str, item: Object) -> None:
        if self._on_event:
            self._on_event(kind, item)

    def _set_clock(self, response: aiohttp.ClientResponse) -> None:
        with suppress(ValueError):  # a proxy may drop the header: then our own clock
            date = parsedate_to_datetime(response.headers.get("Date", ""))
            self._clock_offset = date.timestamp() - time.time()

    def _heard(self) -> None:
        self._failing_since = None
        if self._said_blind:
            self._log.warning("The Kubernetes API is back: watching %s again", self.what)
            self._said_blind = False

    def _complain(self, error: Exception, delay: float) -> None:
        self._failing_since = self._failing_since or time.monotonic()
        if self.blind_seconds < self._blind_after:
            self._log.warning("Watching %s failed, again in %.1f s: %s", self.what, delay, error)
        elif not self._said_blind:
            self._said_blind = True
            self._log.error(
                "BLIND: the Kubernetes API has not answered for %.0f s; what is known about %s is "
                "out of date. Retrying until it answers. Last error: %s",
                self.blind_seconds,
                self.what,
                error,
            )


def _refused(error: Exception) -> bool:
    """Whether the server itself finds a watch from our position impossible, e.g. as it is in the
    future of a cluster that was restored from a backup."""
    return isinstance(error, ApiException) and error.status in (400, 404, 422, 504)


def _key(item: Object) -> str:
    meta = item["metadata"]
    return f"{meta.get('namespace', '')}/{meta['name']}"


def _version(item: Object) -> str:
    return str(item["metadata"]["resourceVersion"])


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Object]:
    """The JSON lines of a watch; a line may be longer than any read buffer (big pods)."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)


async def cancel_and_wait(task: asyncio.Task[Any] | asyncio.Future[Any]) -> None:
    """End a task that we own and wait until it has ended; its own error is dropped."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise  # it is we who are cancelled
    except Exception:  # noqa: BLE001, S110 - its end is all that is asked for
        pass
