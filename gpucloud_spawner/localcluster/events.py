"""Event objects as Kubernetes' own components write them: named, aggregated, never in the way.

Both shapes: the old recorder's (kubelet: count, firstTimestamp, lastTimestamp) and events.k8s.io's
(scheduler: eventTime, series). What is worth an event is the callers' business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from .client import RETRYABLE, ApiError, KubeClient, Obj

log = logging.getLogger(__name__)
REMEMBERED = 4096  # events that a repetition is counted on, as client-go's cache
QUEUED = 1000
NAME_CHARS = 236  # of the object's name; with the suffix no more than Kubernetes' 253
SAME_SECONDS = 600.0  # a repetition after this long is a new event


def now(micro: bool = False) -> str:
    """The present as Kubernetes writes a Time or a MicroTime."""
    moment = datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


@dataclass
class _Seen:
    name: str
    count: int = 1
    last: float = field(default_factory=time.monotonic)


class EventRecorder:
    """Writes events in the background; on an overload or an outage they are dropped and logged."""

    def __init__(
        self, client: KubeClient, component: str, instance: str = "", *, action: bool = False
    ) -> None:
        self.client = client
        self.component = component
        self.instance = instance or component
        self._new_style = action
        self._seen: OrderedDict[tuple[str, ...], _Seen] = OrderedDict()
        self._queue: asyncio.Queue[tuple[tuple[str, ...], Obj]] = asyncio.Queue(QUEUED)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"events of {self.component}")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            # Give the last events (a Killing at shutdown) a short chance.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._queue.join()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def record(
        self,
        obj: Obj,
        event_type: str,
        reason: str,
        message: str,
        *,
        action: str = "",
        field_path: str = "",
    ) -> None:
        """Queues one event about a pod, node, ...; never blocks and never fails."""
        meta = obj["metadata"]
        kind = obj.get("kind") or "Pod"
        reference: Obj = {
            "kind": kind,
            "namespace": meta.get("namespace", ""),
            "name": meta["name"],
            "uid": meta.get("uid", ""),
            "apiVersion": obj.get("apiVersion") or "v1",
            "resourceVersion": meta.get("resourceVersion", ""),
        }
        if field_path:
            reference["fieldPath"] = field_path
        if kind == "Node":  # as the kubelet does: nodes are found by name in `describe`
            reference.update(uid=meta["name"], namespace="")
        key = (kind, meta.get("namespace", ""), meta["name"], meta.get("uid", ""))
        event = {"involvedObject": reference, "reason": reason, "message": message[:1024]}
        event |= {"type": event_type, "action": action, "when": now(micro=True)}
        try:
            self._queue.put_nowait(((*key, field_path, event_type, reason, message), event))
        except asyncio.QueueFull:
            log.warning("event dropped: %s %s %s", meta["name"], reason, message)

    async def _run(self) -> None:
        while True:
            key, event = await self._queue.get()
            try:
                await self._write(key, event)
            except ApiError as error:
                # 404 or 403: the namespace is going away, as usual when a pod ends with it.
                log.debug("event not written: %s: %s", event["message"], error)
            except RETRYABLE as error:
                log.info("event not written: %s: %s", event["message"], error)
            finally:
                self._queue.task_done()

    async def _write(self, key: tuple[str, ...], event: Obj) -> None:
        seen = self._seen.get(key)
        namespace = event["involvedObject"]["namespace"] or "default"
        if seen is not None and time.monotonic() - seen.last < SAME_SECONDS:
            seen.count += 1
            seen.last = time.monotonic()
            self._seen.move_to_end(key)
            try:
                await self.client.patch("events", seen.name, self._repeat(event, seen), namespace)
                return
            except ApiError as error:
                if error.status != 404:  # expired meanwhile: write a fresh one
                    raise
        # 16 hex digits as client-go's: kubespawner orders events of one second by name.
        name = f"{key[2][:NAME_CHARS].rstrip('.-')}.{time.time_ns():x}"
        await self.client.create("events", self._first(event, name, namespace), namespace)
        self._seen[key] = _Seen(name)
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _first(self, event: Obj, name: str, namespace: str) -> Obj:
        when = event["when"]
        body: Obj = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": event["involvedObject"],
            "reason": event["reason"],
            "message": event["message"],
            "type": event["type"],
            "reportingComponent": self.component,
            "reportingInstance": self.instance,
        }
        if self._new_style:
            return body | {"eventTime": when, "action": event["action"]}
        second = when[:19] + "Z"
        source: dict[str, Any] = {"component": self.component, "host": self.instance}
        times = {"firstTimestamp": second, "lastTimestamp": second, "count": 1}
        return body | times | {"source": source}

    def _repeat(self, event: Obj, seen: _Seen) -> Obj:
        if self._new_style:
            return {"series": {"count": seen.count, "lastObservedTime": event["when"]}}
        return {"count": seen.count, "lastTimestamp": event["when"][:19] + "Z"}
