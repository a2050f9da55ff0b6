"""Jobs on a real local cluster and a real database, whose replicas are small shell scripts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubernetes_asyncio.client import ApiClient, CoreV1Api
from prometheus_client import CollectorRegistry

from gpucloud_spawner.jobs.controller import ControllerSettings, JobController
from gpucloud_spawner.jobs.logs import JobLogs
from gpucloud_spawner.jobs.manifests import Site
from gpucloud_spawner.jobs.metrics import JobMetrics
from gpucloud_spawner.kube.inventory import InventoryReader
from gpucloud_spawner.metering.job_records import JobRecords, NewJob
from gpucloud_spawner.model.job_record import JobRecord
from gpucloud_spawner.model.jobs import ROLES, JobSpec
from gpucloud_spawner.model.profiles import Profile, parse_profiles
from tests.localcluster.support import Cluster

NAMESPACE = "default"
PATIENCE = 30.0
QUICK = ControllerSettings(ttl=600, poll=0.1, words=0.5, settle=0.3, retry=0.05, retry_max=0.5)
PROFILES: dict[str, Profile] = {
    profile.slug: profile
    for profile in parse_profiles(
        [
            {
                "slug": "small",
                "display_name": "Small",
                "images": {"box": {"image": "busybox:1"}},
                "gpus": [0, 1, 2, 3],
                "price_per_gpu_hour": "1.50",
            }
        ]
    )
}
# What all replicas run: a line of the script's own per replica, chosen by its name.
CHOOSE = """
case "$GPUCLOUD_ROLE-$JOB_COMPLETION_INDEX" in
{cases}
esac
"""


def script(**of_replicas: str) -> tuple[str, ...]:
    """A command that does something else in each replica: ``worker_0="exit 1"``; ``rest=``."""
    rest = of_replicas.pop("rest", "exit 0")
    cases = [f"{name.replace('_', '-')}) {text} ;;" for name, text in of_replicas.items()]
    text = CHOOSE.format(cases="\n".join([*cases, f"*) {rest} ;;"]))
    return ("sh", "-c", text.replace("$", "$$"))  # as it is, not as Kubernetes expands it


# Until it is told to stop, as servers are; quick about it.
SERVE = "trap 'exit 0' TERM; echo serving; while :; do sleep 0.05; done"


class World:
    """The cluster, the database, and one controller that can be killed and started again."""

    def __init__(self, cluster: Cluster, client: ApiClient, records: JobRecords) -> None:
        self.cluster = cluster
        self.client = client
        self.records = records
        self.command: tuple[str, ...] = ("sh", "-c", "exit 0")
        self.settings = QUICK
        self.queue = ""
        self.profiles = PROFILES
        self.leads = True
        self.registry = CollectorRegistry()
        self.metrics = JobMetrics(self.registry)
        self.controllers: list[JobController] = []
        self._keys = itertools.count()

    def controller(self, **more: Any) -> JobController:
        """A new one, as a service that starts makes it."""
        made = JobController(
            self.records,
            self.client,
            NAMESPACE,
            Site(self.records.identity(), {}, self.queue, self.command),
            self.profiles,
            leads=lambda: self.leads,
            in_thread=asyncio.to_thread,
            inventory=InventoryReader(CoreV1Api(self.client), max_age_seconds=0.2).read,
            metrics=self.metrics,
            settings=self.settings,
            **more,
        )
        self.controllers.append(made)
        return made

    @property
    def until_let_go(self) -> str:
        """What a script says that waits for `let_go`."""
        return f"until [ -e {self._go} ]; do sleep 0.05; done"

    def let_go(self) -> None:
        self._go.touch()

    @property
    def _go(self) -> Path:
        return self.cluster.data / "go"

    async def start(self) -> JobController:
        made = self.controller()
        made.start()
        return made

    async def stop(self) -> None:
        for controller in self.controllers:
            await controller.stop()
        self.controllers.clear()

    def logs(self, controller: JobController) -> JobLogs:
        async def find(job: str) -> JobRecord | None:
            return await asyncio.to_thread(self.records.get, job)

        return JobLogs(self.client, controller.objects, find)

    def submit(self, *, secret: str = "", user: str = "ada", **changes: Any) -> JobRecord:
        replicas = {role: changes.pop(role, 0) for role in ROLES}
        values: dict[str, Any] = {
            "name": "train",
            "command": ("python", "train.py"),
            "code": "a" * 64,
            "replicas": replicas,
            "profile": "small",
            "image": "box",
            "team": "vision",
            "gpus": 0,
            "ps_gpus": 0,
            "cpu": "",
            "memory": 0,
            "retries": 0,
            "timeout_seconds": 600,
            "gang_seconds": 60,
            **changes,
        }
        key = str(next(self._keys))
        new = NewJob(JobSpec(**values), user, key, key, NAMESPACE, "user-ada", secret)
        return self.records.create(new)[0]

    def record(self, job: JobRecord) -> JobRecord:
        found = self.records.get(job.id)
        assert found is not None
        return found

    async def until(
        self, job: JobRecord, test: Callable[[JobRecord], Any], timeout: float = PATIENCE
    ) -> JobRecord:
        """Wait until the stored job passes; fails with what it is by then."""
        try:
            async with asyncio.timeout(timeout):
                while not test(found := await asyncio.to_thread(self.record, job)):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"never got there: {self.record(job)}") from None
        return found

    async def over(self, job: JobRecord, timeout: float = PATIENCE) -> JobRecord:
        return await self.until(job, lambda r: r.is_over, timeout)

    async def running(self, job: JobRecord) -> JobRecord:
        return await self.until(job, lambda r: r.state == "running")

    async def items(self, resource: str, job: JobRecord | None = None) -> list[dict[str, Any]]:
        listed = await self.cluster.client.list(resource, namespace=NAMESPACE)
        marked = [
            o for o in listed["items"] if "gpucloud.io/job" in (o["metadata"].get("labels") or {})
        ]
        if job is None:
            return marked
        return [o for o in marked if o["metadata"]["labels"]["gpucloud.io/job"] == job.id]

    async def everything(self, job: JobRecord | None = None) -> list[str]:
        """Names of all that there is of a job."""
        found = []
        for resource in ("services", "jobs", "pods"):
            found += [
                f"{resource}/{o['metadata']['name']}" for o in await self.items(resource, job)
            ]
        return found

    async def nothing_left(self, job: JobRecord | None = None) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.everything(job):
                await asyncio.sleep(0.05)

    async def active_pods(self, job: JobRecord) -> list[dict[str, Any]]:
        return [
            pod
            for pod in await self.items("pods", job)
            if pod["status"].get("phase") not in ("Succeeded", "Failed")
        ]

    async def released(self, job: JobRecord) -> None:
        """Wait until no pod of a job holds anything."""
        async with asyncio.timeout(PATIENCE):
            while await self.active_pods(job):
                await asyncio.sleep(0.02)
