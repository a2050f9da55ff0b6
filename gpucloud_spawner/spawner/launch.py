"""One start of one server, from the pod's creation to the first answer of JupyterLab.

KubeSpawner makes the pod; beside it a guard follows what becomes of it, so that a start that cannot
succeed ends at once with its reason, one that waits for a GPU has its own, longer patience, and
whatever ends early leaves no pod behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
from kubernetes_asyncio.client import ApiException

from ..kube.watch import cancel_and_wait
from . import words
from .errors import StartRefused

if TYPE_CHECKING:
    from .spawner import GPUCloudSpawner

LOG_LINES = 12


class Launch:
    """Guards the start of ``spawner``; ``create`` is KubeSpawner's own start."""

    def __init__(self, spawner: GPUCloudSpawner, create: Callable[[], Awaitable[str]]) -> None:
        self._spawner = spawner
        self._create = create
        self._began = time.monotonic()
        self._scheduled_at: float | None = None
        self._ailing_since: float | None = None

    async def run(self) -> str:
        """The URL of the ready server. Raises StartRefused, or what KubeSpawner raises."""
        creating = asyncio.ensure_future(self._create())
        guarding = asyncio.create_task(self._guard())
        try:
            await asyncio.wait({creating, guarding}, return_when=asyncio.FIRST_COMPLETED)
            if guarding.done():
                guarding.result()  # raises: a guard returns only once the pod runs
                url = await self._finish(creating)
            else:
                url = creating.result()
            await self._wait_for_answer(url)
            return url
        finally:
            await cancel_and_wait(guarding)
            await cancel_and_wait(creating)

    async def _finish(self, creating: asyncio.Future[str]) -> str:
        """The URL, without waiting for KubeSpawner's next look (up to five seconds later)."""
        spawner = self._spawner
        if spawner.internal_ssl or spawner.services_enabled or spawner.after_pod_created_hook:
            return await creating  # it makes further objects after the pod
        await cancel_and_wait(creating)
        pod = spawner.current_pod
        if pod is None:
            raise StartRefused(
                "The pod was deleted while it started.", reason="pod-deleted", status_code=500
            )
        spawner.pod_id = pod["metadata"]["uid"]
        return str(spawner._get_pod_url(pod))

    async def _guard(self) -> None:
        """Return once the pod runs; raise StartRefused once it cannot."""
        while not await self._looked_good():
            reflector = self._spawner.pod_reflector
            if reflector is None:  # the first start of this hub: not watching yet
                await asyncio.sleep(0.05)
            else:
                await reflector.wait_for_change(timeout=1.0)

    async def _looked_good(self) -> bool:
        pod = self._spawner.current_pod
        if pod is None or not self._spawner.is_of_this_start(pod):
            return False
        await self._raise_if_failed(pod)
        self._raise_if_late(pod)
        return bool(self._spawner.is_pod_running(pod))

    async def _raise_if_failed(self, pod: dict[str, Any]) -> None:
        failure = words.failure_of(pod)
        if failure is None:
            self._ailing_since = None
            return
        if failure.patient:
            self._ailing_since = self._ailing_since or time.monotonic()
            if time.monotonic() - self._ailing_since < self._spawner.start_patience:
                return
        log = await self._log_tail(pod)
        raise StartRefused(failure.message, reason="pod-failed", status_code=500, log=log)

    def _raise_if_late(self, pod: dict[str, Any]) -> None:
        spawner, now = self._spawner, time.monotonic()
        if not words.is_scheduled(pod):
            if spawner.queue_timeout and now - self._began > spawner.queue_timeout:
                raise StartRefused(
                    "No machine became free for this request within "
                    f"{spawner.queue_timeout} seconds. Try again later, or ask for less.",
                    reason="queue-timeout",
                    status_code=503,
                )
            return
        self._scheduled_at = self._scheduled_at or now
        if now - self._scheduled_at > spawner.launch_timeout:
            state = words.describe(pod, spawner.events, "").message
            raise StartRefused(
                f"The server did not start within {spawner.launch_timeout} seconds of getting a "
                f"machine. Its last state: {state}.",
                reason="launch-timeout",
                status_code=504,
            )

    async def _wait_for_answer(self, url: str) -> None:
        """Wait until the server's port accepts a connection, so that a crash is told at once."""
        if not self._spawner.wait_for_port:
            return
        where = urlsplit(url)
        while True:
            pod = self._spawner.current_pod
            if pod is None:
                raise StartRefused(
                    "The pod was deleted while it started.", reason="pod-deleted", status_code=500
                )
            host = where.hostname or ""
            if host == self._spawner.dns_name:
                # its Service was made a moment ago: the name may not resolve here, or not yet
                host = pod["status"]["podIP"]
            if await _accepts(host, where.port or 80):
                return
            await self._raise_if_failed(pod)
            self._raise_if_late(pod)
            await self._spawner.pod_reflector.wait_for_change(timeout=0.1)

    async def _log_tail(self, pod: dict[str, Any]) -> str:
        """The notebook container's last lines, also of an instance that was restarted since."""
        spawner, meta = self._spawner, pod["metadata"]
        restarted = words.notebook_status(pod).get("restartCount", 0) > 0
        try:
            text = await spawner.api.read_namespaced_pod_log(
                meta["name"],
                meta["namespace"],
                container=words.NOTEBOOK_CONTAINER,
                tail_lines=LOG_LINES,
                previous=restarted,
                _request_timeout=spawner.k8s_api_request_timeout,
            )
        except (TimeoutError, ApiException, OSError, aiohttp.ClientError) as error:
            spawner.log.debug("No log of %s: %s", meta["name"], error)
            return ""
        return str(text).strip()[-2000:]


async def _accepts(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True
