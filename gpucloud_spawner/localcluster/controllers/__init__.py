"""The controllers of the local cluster: what makes objects come true that neither a kubelet nor a
scheduler looks after. They speak only HTTP, through the client they are given.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

from ..client import KubeClient
from ..events import EventRecorder
from .claims import ClaimController
from .endpoints import EndpointController
from .evictions import EvictionController
from .garbage import GarbageCollector
from .informers import Informers, discover
from .jobs import FinishedJobs, JobController
from .jobs.backoff import Delays
from .namespaces import NamespaceController
from .nodes import NodeController
from .orphans import OrphanController

__all__ = ["Controllers", "Periods"]


@dataclass(frozen=True)
class Periods:
    """Seconds; Kubernetes' own values. Tests shorten them."""

    node_grace: float = 40.0  # without a heartbeat until a node counts as lost
    node_quarantine: float = 40.0  # that a node is missing until its pods are given up
    job_backoff: float = 10.0  # before a Job replaces its first failed pod; then twice as long
    job_backoff_max: float = 600.0


class Controllers:
    """All controllers over one set of caches. Use as an async context manager."""

    def __init__(self, client: KubeClient, periods: Periods | None = None) -> None:
        self.client = client
        self.periods = periods or Periods()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with self._stack:
            client, enter = self.client, self._stack.enter_async_context
            kinds = await discover(client)
            informers = Informers(client)
            claim_events = await enter(EventRecorder(client, "persistentvolume-controller"))
            node_events = await enter(EventRecorder(client, "node-controller"))
            job_events = await enter(EventRecorder(client, "job-controller"))
            delays = Delays(self.periods.job_backoff, self.periods.job_backoff_max)
            for controller in (
                NamespaceController(client, informers, kinds),
                ClaimController(client, informers, claim_events),
                GarbageCollector(client, informers, kinds),
                NodeController(client, informers, node_events, self.periods.node_grace),
                EvictionController(client, informers, node_events),
                OrphanController(client, informers, self.periods.node_quarantine),
                JobController(client, informers, job_events, delays),
                FinishedJobs(client, informers),
                EndpointController(client, informers),
            ):
                await enter(controller.queue)
            await enter(informers)
            async with asyncio.timeout(60):
                await informers.synced()
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
