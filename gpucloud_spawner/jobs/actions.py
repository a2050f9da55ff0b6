"""What is done to the cluster for a job: made, looked into, taken away. All may be repeated."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiClient, ApiException, BatchV1Api, CoreV1Api

from ..model import labels
from ..model.job_record import JobRecord
from ..model.pods import Pod
from ..model.profiles import Profile
from .manifests import CONTAINER, Site, job_name, kube_job, service
from .objects import JobObjects
from .view import is_ending, place_of
from .words import LINES

log = logging.getLogger(__name__)

TIMEOUT = 10
_LOG_BYTES = 128 * 1024


class LaunchRefused(Exception):
    """Kubernetes will never take these objects; the text says why."""


class LaunchForbidden(Exception):
    """Kubernetes does not take these objects now: a quota, a policy; the text says why."""


class Actions:
    """The writing side of the cluster, for the jobs of one database."""

    def __init__(self, client: ApiClient, namespace: str, site: Site) -> None:
        self._core = CoreV1Api(client)
        self._batch = BatchV1Api(client)
        self._namespace = namespace
        self._site = site

    async def launch(self, record: JobRecord, profile: Profile) -> None:
        """Make what is not there yet. Raises LaunchRefused, LaunchForbidden, or what the client
        raises."""
        try:
            owner = await self._service(record, profile)
            for role in record.spec.roles:
                body = kube_job(record, role, self._site, profile, owner)
                try:
                    await self._batch.create_namespaced_job(
                        self._namespace, body, _request_timeout=TIMEOUT
                    )
                except ApiException as error:
                    if error.status != 409:  # made before a crash
                        raise
        except ApiException as error:
            if error.status in (400, 413, 422):
                raise LaunchRefused(f"Kubernetes refused the job: {_message(error)}") from error
            if error.status == 403:
                raise LaunchForbidden(f"Kubernetes does not take it: {_message(error)}") from error
            raise

    async def _service(self, record: JobRecord, profile: Profile) -> str:
        """The uid of the job's Service, which owns all the rest."""
        body = service(record, self._site, profile)
        try:
            made = await self._core.create_namespaced_service(
                self._namespace, body, _request_timeout=TIMEOUT
            )
        except ApiException as error:
            if error.status != 409:
                raise
            made = await self._core.read_namespaced_service(
                record.id, self._namespace, _request_timeout=TIMEOUT
            )
            if (made.metadata.labels or {}).get(labels.HUB) != self._site.identity:
                raise LaunchRefused(
                    f"The name {record.id} is taken in this namespace. Launch the job again."
                ) from error
        return str(made.metadata.uid)

    async def release(self, record: JobRecord, objects: JobObjects) -> None:
        """End what still runs or waits: its machines are free at once. What has ended stays."""
        for role in lingering(record, objects):
            if job_name(record.id, role) in objects.jobs:
                await self._delete_job(job_name(record.id, role))
        await self._delete_pods(pod for pod in objects.pods.values() if _is_active(pod))

    async def remove(self, job: str, objects: JobObjects) -> None:
        """Delete everything of a job: its Service, and with it all that it owns."""
        for name in objects.jobs:
            await self._delete_job(name)
        await self._delete_pods(pod for pod in objects.pods.values() if _is_active(pod))
        for name in {*objects.services, job}:
            await _gone_is_fine(
                self._core.delete_namespaced_service(
                    name,
                    self._namespace,
                    propagation_policy="Background",
                    _request_timeout=TIMEOUT,
                )
            )

    async def _delete_job(self, name: str) -> None:
        await _gone_is_fine(
            self._batch.delete_namespaced_job(
                name, self._namespace, propagation_policy="Background", _request_timeout=TIMEOUT
            )
        )

    async def _delete_pods(self, pods: Iterable[Pod]) -> None:
        # not left to the garbage collector, which may take its time with the GPUs
        for pod in pods:
            if pod["metadata"].get("deletionTimestamp"):
                continue
            await _gone_is_fine(
                self._core.delete_namespaced_pod(
                    pod["metadata"]["name"], self._namespace, _request_timeout=TIMEOUT
                )
            )

    async def log_tail(self, pod: Pod) -> str:
        """The last lines that a replica wrote; "" where they are gone."""
        meta = pod["metadata"]
        try:
            text = await self._core.read_namespaced_pod_log(
                meta["name"],
                meta["namespace"],
                container=CONTAINER,
                tail_lines=LINES,
                _request_timeout=TIMEOUT,
            )
        except (TimeoutError, ApiException, OSError, aiohttp.ClientError) as error:
            log.info("No log of %s: %s", meta["name"], error)
            return ""
        return str(text)[-_LOG_BYTES:]

    async def why_no_pods(self, name: str) -> str:
        """Kubernetes' own words why a Job of this name gets no pods (a quota, a policy)."""
        events = await self._core.list_namespaced_event(
            self._namespace,
            field_selector=f"involvedObject.name={name},reason=FailedCreate",
            _request_timeout=TIMEOUT,
        )
        words = [str(event.message) for event in events.items if event.message]
        return words[-1] if words else ""


def lingering(record: JobRecord, objects: JobObjects) -> list[str]:
    """The roles that do not end by themselves: their Jobs would go on, or start pods again."""
    found = []
    for role in record.spec.roles:
        pods = [p for p in objects.pods.values() if (place_of(p) or ("", 0))[0] == role]
        job = objects.jobs.get(job_name(record.id, role))
        done = {place_of(p) for p in pods if _phase(p) == "Succeeded"}
        # the pods are ahead of their Job: one whose pods are all done is about to be complete
        ends = job is None or is_ending(job) or len(done) == record.spec.replicas[role]
        if not ends or any(_is_active(pod) for pod in pods):
            found.append(role)
    return found


def _phase(pod: Pod) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def _is_active(pod: Pod) -> bool:
    return _phase(pod) not in ("Succeeded", "Failed")


def _message(error: ApiException) -> str:
    text = str(error.body or error.reason or "")
    _, _, rest = text.partition('"message":"')
    return (rest.split('","', 1)[0] or text)[:500]


async def _gone_is_fine(call: Any) -> None:
    try:
        await call
    except ApiException as error:
        if error.status != 404:
            raise
