"""The replicas' logs as one text: interleaved, followed, until the job is over.

From Kubernetes, while the pods are there; afterwards they are in the user's bucket, which the
replicas wrote themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiClient, ApiException, CoreV1Api

from ..model.job_record import JobRecord
from ..model.jobs import replica_name
from ..model.labels import JOB
from ..model.pods import Pod, container_status
from .manifests import CONTAINER
from .objects import ObjectsByJob
from .view import place_of
from .words import ended

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
RETRY_SECONDS = 0.5
# A line without an end (a progress bar) is cut here.
MAX_LINE = 64 * 1024
_QUEUE = 200

# Looks, of a second each, that the watch is given to tell of an end.
_SETTLE_LOOKS = 3

Lines = asyncio.Queue[bytes]
FindRecord = Callable[[str], Awaitable[JobRecord | None]]


class JobLogs:
    """Reads the logs of one database's jobs."""

    def __init__(self, client: ApiClient, objects: ObjectsByJob, find: FindRecord) -> None:
        self._core = CoreV1Api(client)
        self._objects = objects
        self._find = find

    async def are_archived(self, record: JobRecord, replica: str) -> bool:
        """Whether the job is over and a pod of it, or the one of ``replica``, is gone."""
        if not record.is_over:
            return False
        there = {_replica_of(pod) for pod in (await self._pods(record.id, over=True)).values()}
        wanted = [replica] if replica else [r.name for r in record.replicas]
        return not there.issuperset(wanted)

    async def stream(
        self, record: JobRecord, replica: str, follow: bool, tail: int | None
    ) -> AsyncIterator[bytes]:
        """Lines as they come; of all replicas, each with its name before it.

        ``tail``: only so many last lines of each pod; None: all. With ``follow`` it ends with the
        job, also with replicas that start later.
        """
        lines: Lines = asyncio.Queue(_QUEUE)
        source = asyncio.create_task(self._read_all(record, replica, follow, tail, lines))
        getting: asyncio.Task[bytes] | None = None
        try:
            while not (source.done() and lines.empty() and getting is None):
                found = []
                if lines.empty():
                    getting = getting or asyncio.create_task(lines.get())
                    await asyncio.wait({getting, source}, return_when=asyncio.FIRST_COMPLETED)
                    if getting.done():
                        found, getting = [getting.result()], None
                    elif source.done() and lines.empty():
                        break
                while not lines.empty():
                    found.append(lines.get_nowait())
                if found:
                    yield b"".join(found)
            await source
        finally:
            await _end_all([source, *([getting] if getting else [])])

    async def _read_all(
        self,
        record: JobRecord,
        replica: str,
        follow: bool,
        tail: int | None,
        lines: Lines,
    ) -> None:
        readers: dict[str, asyncio.Task[None]] = {}  # by replica: its pods one after the other
        done: set[str] = set()
        try:
            while True:
                over = not follow or await self._is_over(record.id)
                try:
                    pods = await self._pods(record.id, over)
                except (ApiException, aiohttp.ClientError, TimeoutError, OSError):
                    if not follow:
                        raise
                    await asyncio.sleep(RETRY_SECONDS)  # the cluster comes back
                    continue
                for name, pod in _unread(pods, replica, done):
                    if name not in readers or readers[name].done():
                        done.add(pod["metadata"]["uid"])
                        prefix = b"" if replica else f"[{name}] ".encode()
                        work = self._read_pod(pod, prefix, follow, tail, lines)
                        readers[name] = asyncio.create_task(work)
                busy = [task for task in readers.values() if not task.done()]
                if busy and over:
                    await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
                elif over and not _unread(pods, replica, done):
                    break
                else:
                    await self._objects.wait_for_change(record.id, LOOK_SECONDS)
        finally:
            await _end_all(readers.values())

    async def _is_over(self, job: str) -> bool:
        record = await self._find(job)
        return record is None or record.is_over

    async def _pods(self, job: str, over: bool) -> dict[str, Pod]:
        """The job's pods. Of one that is over, asked for: the watch may be late with their end."""
        if not over:
            return dict(self._objects.of(job).pods)
        return dict((await self._objects.read(job)).pods)

    async def _read_pod(
        self, pod: Pod, prefix: bytes, follow: bool, tail: int | None, lines: Lines
    ) -> None:
        """One pod's log to its end; a connection that breaks is taken up where it broke."""
        reading = _Reading(prefix, lines)
        while True:
            try:
                found = await self._read_once(pod, reading, follow, tail)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.info("The log of %s broke off: %s", pod["metadata"]["name"], error)
                found = True
            if not found or not follow or await self._has_ended(pod):
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def _read_once(self, pod: Pod, reading: _Reading, follow: bool, tail: int | None) -> bool:
        """False where there is nothing to be read (any more). Raises what the client raises."""
        meta = pod["metadata"]
        more = {"tail_lines": tail} if tail is not None and not reading.last else {}
        response = await self._core.read_namespaced_pod_log(
            meta["name"],
            meta["namespace"],
            container=CONTAINER,
            follow=follow,
            timestamps=True,
            **more,
            _preload_content=False,
            _request_timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )
        async with response:
            if response.status != 200:
                return bool(response.status >= 500)
            reading.begin()
            async for chunk in response.content.iter_any():
                await reading.take(chunk)
            await reading.end()
        return True

    async def _has_ended(self, pod: Pod) -> bool:
        """Whether the container is over: a log that ends before that was cut off."""
        meta = pod["metadata"]
        for _ in range(_SETTLE_LOOKS):
            now = self._objects.of(meta["labels"][JOB]).pods.get(meta["name"])
            if now is None or now["metadata"]["uid"] != meta["uid"] or ended(now):
                return True
            await self._objects.wait_for_change(meta["labels"][JOB], LOOK_SECONDS)
        return False


class _Reading:
    """Cuts one pod's log into lines, and leaves out what was delivered before."""

    def __init__(self, prefix: bytes, lines: Lines) -> None:
        self._prefix = prefix
        self._lines = lines
        self._rest = b""
        self._inside = False  # of a line whose beginning was delivered
        self._after = b""
        self.last = b""  # time of the last line that was delivered

    def begin(self) -> None:
        """A connection was made: it may tell lines again."""
        self._rest, self._inside, self._after = b"", False, self.last

    async def take(self, chunk: bytes) -> None:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in whole:
            await self._deliver(line)
            self._inside = False
        if len(self._rest) > MAX_LINE:
            await self._deliver(self._rest)
            self._rest, self._inside = b"", True

    async def end(self) -> None:
        if self._rest:
            await self._deliver(self._rest)

    async def _deliver(self, line: bytes) -> None:
        if not self._inside:
            stamp, _, text = line.partition(b" ")
            # RFC 3339 in UTC: the order of the texts is that of the times, but for their lengths
            if self._after and _sortable(stamp) <= _sortable(self._after):
                return
            self.last, line = stamp, text
        await self._lines.put(self._prefix + line + b"\n")


def _sortable(stamp: bytes) -> bytes:
    """A time with nine decimals; Kubernetes leaves zeros at the end out."""
    whole, _, decimals = stamp.rstrip(b"Z").partition(b".")
    return whole + b"." + decimals.ljust(9, b"0")


async def _end_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """End tasks that we own, and wait for all of them, also where we are cancelled ourselves."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


def _unread(pods: dict[str, Pod], replica: str, done: set[str]) -> list[tuple[str, Pod]]:
    """Pods whose container has started, the oldest of each replica first."""
    found = [
        (name, pod)
        for pod in pods.values()
        if (name := _replica_of(pod))
        and replica in ("", name)
        and pod["metadata"]["uid"] not in done
        and _has_started(pod)
    ]
    return sorted(found, key=lambda item: item[1]["metadata"]["creationTimestamp"])


def _replica_of(pod: Pod) -> str:
    place = place_of(pod)
    return replica_name(*place) if place else ""


def _has_started(pod: Pod) -> bool:
    state = container_status(pod, CONTAINER).get("state") or {}
    return "running" in state or "terminated" in state
