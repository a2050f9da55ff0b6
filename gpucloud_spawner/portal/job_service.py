"""The jobs' part of the service: reconciler and logs, on the database and the cluster.

Here the rooms `jobs` and `metering` meet, which do not see each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kubernetes_asyncio.client import ApiClient

from ..jobs.controller import ControllerSettings, JobController
from ..jobs.logs import JobLogs
from ..jobs.manifests import Site
from ..jobs.metrics import JobMetrics
from ..kube.connection import connect
from ..kube.inventory import InventoryReader
from ..metering.job_records import JobRecords
from ..model.job_record import JobRecord
from .job_settings import JobSettings

# Every replica whose log somebody follows is one.
LOG_CONNECTIONS = 2000


class JobService:
    """Reconciler and logs of one process. `start()`, then `stop()`; both once."""

    def __init__(
        self,
        client: ApiClient,
        log_client: ApiClient,
        records: JobRecords,
        identity: str,
        namespace: str,
        settings: JobSettings,
        *,
        leads: Callable[[], bool],
        inventory: InventoryReader,
        metrics: JobMetrics,
    ) -> None:
        self._log_client = log_client
        # its own: a long statement must not keep a job's GPUs
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="gpucloud-jobs")
        self.controller = JobController(
            records,
            client,
            namespace,
            Site(identity, settings.pods, settings.queue),
            {profile.slug: profile for profile in settings.profiles},
            leads=leads,
            in_thread=self._in_thread,
            inventory=inventory.read,
            metrics=metrics,
            settings=ControllerSettings(ttl=settings.ttl_seconds),
        )

        async def find(job: str) -> JobRecord | None:
            found: JobRecord | None = await self._in_thread(records.get, job)
            return found

        self.logs = JobLogs(log_client, self.controller.objects, find)

    @classmethod
    async def make(
        cls, client: ApiClient, records: JobRecords, *args: Any, **kwargs: Any
    ) -> JobService:
        """With the database's identity, and connections of its own for logs: many at a time must
        not keep the meter from its own."""
        identity = await asyncio.to_thread(records.identity)
        return cls(client, await connect(LOG_CONNECTIONS), records, identity, *args, **kwargs)

    async def _in_thread(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: call(*args, **kwargs))

    def start(self) -> None:
        self.controller.start()

    async def stop(self) -> None:
        await self.controller.stop()
        await asyncio.to_thread(self._threads.shutdown)
        await self._log_client.close()
