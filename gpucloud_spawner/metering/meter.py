"""The service's metering: follows the cluster, audits itself, and writes the ledger.

One `Meter` per process; of all processes on a database only the holder of the lease writes, the
others stand by. SQL runs in one writer thread, never in the event loop. What is written is
`writer`'s business, what the events mean `observe`'s.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import aiohttp
from kubernetes_asyncio.client import ApiException, CoreV1Api
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from ..kube.watch import ListMethod, cancel_and_wait
from ..model import labels
from .lease import Lease, LeaseLost
from .metrics import LedgerMetrics
from .observe import GPUResources, read_claim, read_pod
from .sources import WATCH_SECONDS, ClaimStream, NodeStream, PodStream
from .statements import month_totals
from .writer import Differences, Writer

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class MeterSettings:
    """How the meter works. All times in seconds."""

    namespace: str | None = None  # None: all namespaces
    gpus: GPUResources = field(default_factory=GPUResources)
    audit_seconds: float = 60.0
    # how long the watch may lag behind a list or the hub's word before that is a difference
    settle_seconds: float = 5.0
    inbox_seconds: float = 2.0
    lease_seconds: int = 15
    watch_seconds: int = WATCH_SECONDS
    retry_seconds: float = 1.0


class Meter:
    """Owns the streams and all tasks. `start()` returns at once; `stop()` stores what is left."""

    def __init__(
        self,
        engine: Engine,
        api: CoreV1Api,
        settings: MeterSettings | None = None,
        metrics: LedgerMetrics | None = None,
    ) -> None:
        self.settings = settings or MeterSettings()
        self.metrics = metrics or LedgerMetrics()
        self._api = api
        self._engine = engine
        holder = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        lease = Lease(engine, holder, self.settings.lease_seconds)
        self.writer = Writer(engine, lease, self.settings.gpus)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpucloud-ledger")
        # for what only reads, and takes long
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="gpucloud-ledger-totals")
        self._main: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stored = asyncio.Event()
        self._streams: tuple[NodeStream, ClaimStream, PodStream] | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes the ledger."""
        return self._streams is not None

    async def start(self) -> None:
        """Begin in the background; waits neither for the database nor for Kubernetes."""
        if self._main is None:
            self._main = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End all tasks, store what has arrived, and hand the lease back."""
        if self._main is not None:
            await cancel_and_wait(self._main)
            self._main = None
        for threads in (self._thread, self._reader):
            # whoever stops us closes the database next: nothing of ours may still use it
            await asyncio.to_thread(threads.shutdown)

    async def in_thread(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a blocking function in the writer thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: call(*args, **kwargs))

    # -- who leads

    async def _run(self) -> None:
        while True:
            try:
                if await self.in_thread(self.writer.lease.acquire):
                    await self._lead()
            except* LeaseLost:
                log.error("Lost the ledger's lease: standing by until it is free again")
            except* DBAPIError as group:
                self._database_failed(group.exceptions[0])
            except* Exception:
                # the border of an endless loop: a mistake of ours must not end the metering
                log.exception("The ledger's writer failed, starting it again")
            await asyncio.sleep(min(self.settings.retry_seconds, self.settings.lease_seconds / 3))

    async def _lead(self) -> None:
        positions = await self.in_thread(self.writer.positions)
        nodes, claims, pods = streams = self._make_streams(positions)
        log.info("Writing the ledger, from position %s on", positions.get("pods") or "none")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(nodes.follower.run())
                self._streams = streams
                self.metrics.leads.set(1)
                group.create_task(self._store_for_ever(streams))
                await self._first_nodes(nodes)
                group.create_task(pods.follower.run())
                group.create_task(claims.follower.run())
                group.create_task(self._inbox_for_ever(nodes))
                group.create_task(self._audit_for_ever(streams))
        finally:
            self._streams = None
            self.metrics.leads.set(0)
            # cancelled by stop(): what has arrived is stored, in a task that outlives us
            await asyncio.shield(asyncio.ensure_future(self._last_words(streams)))

    async def _first_nodes(self, nodes: NodeStream) -> None:
        """Pods are read after the nodes, for their products; not for ever, where we may not see."""
        deadline = time.monotonic() + self.settings.settle_seconds
        while not nodes.listed_once and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    async def _last_words(self, streams: tuple[NodeStream, ClaimStream, PodStream]) -> None:
        if self.writer.lease.token is None:
            return
        with suppress(LeaseLost, DBAPIError):
            nodes, claims, pods = streams
            await self.in_thread(
                self.writer.store, nodes.take(), claims.take(), pods.take(), nodes.products
            )
        with suppress(DBAPIError):
            await self.in_thread(self.writer.lease.release)

    def _make_streams(
        self, positions: Mapping[str, str | None]
    ) -> tuple[NodeStream, ClaimStream, PodStream]:
        common: dict[str, Any] = {
            "wake": self._wake.set,
            "count": lambda stream, kind: self.metrics.events.labels(stream, kind).inc(),
            "watch_seconds": self.settings.watch_seconds,
        }
        gpus = self.settings.gpus
        list_pods, pod_selectors = self._pods()
        list_claims, claim_selectors = self._claims()
        return (
            NodeStream(self._api.list_node, {}, gpus=gpus, **common),
            ClaimStream(list_claims, claim_selectors, position=positions.get("claims"), **common),
            PodStream(
                list_pods, pod_selectors, gpus=gpus, position=positions.get("pods"), **common
            ),
        )

    def _pods(self) -> tuple[ListMethod, dict[str, str]]:
        namespace, selector = self.settings.namespace, {"label_selector": labels.COMPONENT}
        if namespace is None:
            return self._api.list_pod_for_all_namespaces, selector
        return self._api.list_namespaced_pod, {"namespace": namespace, **selector}

    def _claims(self) -> tuple[ListMethod, dict[str, str]]:
        namespace, selector = self.settings.namespace, {"label_selector": labels.USER}
        if namespace is None:
            return self._api.list_persistent_volume_claim_for_all_namespaces, selector
        method = self._api.list_namespaced_persistent_volume_claim
        return method, {"namespace": namespace, **selector}

    # -- the tasks

    async def _store_for_ever(self, streams: tuple[NodeStream, ClaimStream, PodStream]) -> None:
        renew_after = self.settings.lease_seconds / 3
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(renew_after):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._store(streams)
            except DBAPIError as error:
                self._database_failed(error)
                await asyncio.sleep(self.settings.retry_seconds)
                self._wake.set()

    async def _store(self, streams: tuple[NodeStream, ClaimStream, PodStream]) -> None:
        nodes, claims, pods = streams
        batches = nodes.take(), claims.take(), pods.take()
        try:
            stored = await self.in_thread(self.writer.store, *batches, nodes.products)
        except BaseException:
            # also where we are cancelled: storing a batch twice changes nothing
            nodes.restore(batches[0])
            claims.restore(batches[1])
            pods.restore(batches[2])
            raise
        if stored.open >= 0:
            self.metrics.open.set(stored.open)
        if batches[2].synced_at is not None:
            self.metrics.heartbeat_at = time.monotonic()
        for stream in streams:
            self.metrics.waiting.labels(stream.name).set(stream.waiting)
        self._stored.set()
        self._stored = asyncio.Event()

    async def _inbox_for_ever(self, nodes: NodeStream) -> None:
        while True:
            try:
                read, added, closed = await self.in_thread(
                    self.writer.store_inbox, nodes.products, self.settings.settle_seconds
                )
                self._count("only-in-stop-record", added)
                if added or closed:
                    log.warning(
                        "The hub's stop records added %d and closed %d lines that the watch "
                        "had not",
                        added,
                        closed,
                    )
            except DBAPIError as error:
                self._database_failed(error)
                read = 0
            if not read:
                await asyncio.sleep(self.settings.inbox_seconds)

    async def _audit_for_ever(self, streams: tuple[NodeStream, ClaimStream, PodStream]) -> None:
        while True:
            await asyncio.sleep(self.settings.audit_seconds)
            try:
                await self.audit()
            except (TimeoutError, ApiException, aiohttp.ClientError) as error:
                log.warning("The audit could not list the cluster: %s", error)
            except DBAPIError as error:
                self._database_failed(error)

    # -- the audit

    async def audit(self) -> Differences:
        """Compare the ledger with a complete list, and make it agree. Only where we lead."""
        if self._streams is None:
            raise LeaseLost("this process does not write the ledger")
        nodes, claims, pods = self._streams
        differences = await self._audit_pods(nodes, pods)
        await self._audit_claims(claims)
        loop = asyncio.get_running_loop()
        totals = await loop.run_in_executor(self._reader, month_totals, self._engine)
        for (team, product), (gpu_seconds, cost) in totals.items():
            self.metrics.gpu_seconds.labels(team, product).set(gpu_seconds)
            self.metrics.cost.labels(team, product).set(float(cost))
        self.metrics.audited_at = time.monotonic()
        return differences

    async def _audit_pods(self, nodes: NodeStream, pods: PodStream) -> Differences:
        open_before = await self.in_thread(self.writer.open_pods)
        asked_at = pods.follower.server_time
        method, selectors = self._pods()
        answer = await list_all(method, selectors)
        facts = await asyncio.to_thread(
            lambda: [read_pod(pod, self.settings.gpus) for pod in answer["items"]]
        )
        differences = await self._settle(
            lambda: self.in_thread(self.writer.compare, facts, open_before)
        )
        for kind in ("missing", "ended", "vanished"):
            uids = getattr(differences, kind)
            self._count(kind, len(uids))
            if uids:
                log.error("Audit: %d pods %s: %s", len(uids), kind, ", ".join(sorted(uids)[:10]))
        await self.in_thread(
            self.writer.store_audit, facts, differences.vanished, asked_at, nodes.products
        )
        return differences

    async def _settle(self, compare: Callable[[], Awaitable[Differences]]) -> Differences:
        """Differences that remain after the watch had time to tell."""
        deadline = time.monotonic() + self.settings.settle_seconds
        while True:
            differences = await compare()
            left = deadline - time.monotonic()
            if not differences or left <= 0:
                return differences
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._stored.wait()

    async def _audit_claims(self, claims: ClaimStream) -> None:
        open_before = await self.in_thread(self.writer.open_claims)
        seen_at = claims.follower.server_time
        method, selectors = self._claims()
        answer = await list_all(method, selectors)
        facts = [read_claim(claim, seen_at) for claim in answer["items"]]
        await self.in_thread(self.writer.store_claim_audit, facts, open_before)

    def _count(self, kind: str, number: int) -> None:
        self.metrics.differences.labels(kind).inc(number)

    def _database_failed(self, error: BaseException) -> None:
        self.metrics.database_errors.inc()
        log.error("The ledger's database failed, trying again: %s", str(error).splitlines()[0])


async def list_all(method: ListMethod, selectors: Mapping[str, str]) -> dict[str, Any]:
    """A complete, consistent list as plain dicts. Raises what the client raises."""
    response = await method(**selectors, _preload_content=False, _request_timeout=60)
    async with response:
        body = await response.read()
        if response.status != 200:
            raise ApiException(status=response.status, reason=body.decode(errors="replace"))
    answer: dict[str, Any] = await asyncio.to_thread(json.loads, body)
    return answer
