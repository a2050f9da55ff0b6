"""The cluster's objects of jobs, followed and sorted by job.

What they mean is in `view`; nothing is changed here.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kubernetes_asyncio.client import ApiClient, ApiException, BatchV1Api, CoreV1Api

from ..kube.watch import Follower, ListMethod, cancel_and_wait
from ..model import labels

log = logging.getLogger(__name__)
Object = dict[str, Any]
KINDS = ("services", "jobs", "pods")


@dataclass
class JobObjects:
    """What there is in the cluster of one job, by name."""

    services: dict[str, Object] = field(default_factory=dict)
    jobs: dict[str, Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.services or self.jobs or self.pods)


class ObjectsByJob:
    """Follows the objects of one database's jobs in a namespace.

    ``on_change(job)`` is called whenever an object of a job has changed.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        identity: str,
        on_change: Callable[[str], None],
    ) -> None:
        core = CoreV1Api(client)
        self._methods: dict[str, ListMethod] = {
            "services": core.list_namespaced_service,
            "jobs": BatchV1Api(client).list_namespaced_job,
            "pods": core.list_namespaced_pod,
        }
        self._namespace = namespace
        self._selector = f"{labels.HUB}={identity},{labels.COMPONENT}={labels.JOB_REPLICA}"
        self._on_change = on_change
        self._by_job: dict[str, JobObjects] = {}
        self._owners: dict[tuple[str, str], str] = {}  # kind and key -> job
        self._followers = {kind: self._follow(kind) for kind in KINDS}
        self._tasks: list[asyncio.Task[None]] = []
        self._changed: dict[str, asyncio.Event] = {}  # of jobs that somebody waits for

    def _follow(self, kind: str) -> Follower:
        return Follower(
            self._methods[kind],
            {"namespace": self._namespace, "label_selector": self._selector},
            what=f"{kind} of jobs",
            on_change=lambda: None,
            on_object=lambda key, item: self._apply(kind, key, item),
            log=log,
        )

    def start(self) -> None:
        self._tasks = [asyncio.create_task(f.run()) for f in self._followers.values()]

    async def stop(self) -> None:
        for task in self._tasks:
            await cancel_and_wait(task)

    @property
    def synced(self) -> bool:
        """Whether everything was listed at least once."""
        return all(follower.listed for follower in self._followers.values())

    def of(self, job: str) -> JobObjects:
        """What was seen of a job up to now."""
        return self._by_job.get(job) or JobObjects()

    def known(self) -> list[str]:
        """Every job of which there is an object."""
        return list(self._by_job)

    async def read(self, job: str) -> JobObjects:
        """What there is of a job at this moment, asked for. Raises what the client raises."""
        found = JobObjects()
        for kind, method in self._methods.items():
            response = await method(
                namespace=self._namespace,
                label_selector=f"{self._selector},{labels.JOB}={job}",
                _preload_content=False,
                _request_timeout=10,
            )
            async with response:
                body = await response.read()
                if response.status != 200:
                    raise ApiException(status=response.status, reason=body.decode(errors="replace"))
            items = json.loads(body)["items"]
            getattr(found, kind).update({item["metadata"]["name"]: item for item in items})
        return found

    def _apply(self, kind: str, key: str, item: Object | None) -> None:
        name = key.partition("/")[2]
        if item is None:
            job = self._owners.pop((kind, key), "")
            held = self._by_job.get(job)
            if held is None:
                return
            getattr(held, kind).pop(name, None)
            if not held:
                del self._by_job[job]
        else:
            job = (item["metadata"].get("labels") or {}).get(labels.JOB, "")
            if not job:
                return
            self._owners[kind, key] = job
            getattr(self._by_job.setdefault(job, JobObjects()), kind)[name] = item
        if job in self._changed:
            self._changed.pop(job).set()
        self._on_change(job)

    async def wait_for_change(self, job: str, timeout: float) -> None:
        """Return at the next change of an object of ``job``, or after ``timeout`` seconds."""
        changed = self._changed.setdefault(job, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await changed.wait()
