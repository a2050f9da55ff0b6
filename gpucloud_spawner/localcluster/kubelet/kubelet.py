"""Nodes of the process kubelet: one worker for each of their pods.

`Kubelet` is one node; `Kubelets` runs several in one process, with one HTTP endpoint, one memory
watch and one set of connections, so that an idle cluster costs next to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from ..client import KubeClient
from ..events import EventRecorder
from ..gpus import DeviceManager
from ..informer import Informer
from ..quantity import amount
from .host import Addresses, Host, Timing
from .hosts import Hosts
from .images import DEFAULT_PATTERNS, ImageStore
from .node import NodeConfig, NodeObject
from .podworker import PodWorker
from .reclaim import Reclaimer
from .runtime import descendants, memory_of, process_table
from .server import Server
from .stats import summary
from .strays import remove_strays
from .volumes import Volumes

log = logging.getLogger(__name__)
Obj = dict[str, Any]
MAX_PODS = 110
# A pod whose start takes longer (a hook, a Secret that nobody answers for) holds nobody up.
SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Settings:
    """What all nodes of a process have in common."""

    data: Path
    images: Sequence[str] = DEFAULT_PATTERNS
    allow_host_path: bool = False
    client_ca: Path | None = None
    port: int = 0
    timing: Timing = field(default_factory=Timing)


def machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Kubelet:
    """One node. `Kubelets` starts and stops it."""

    def __init__(self, config: NodeConfig, host: Host, port: int) -> None:
        self.config = config
        self.host = host
        self.node = NodeObject(config, host, port)
        self.workers: dict[str, PodWorker] = {}
        self._pods = Informer(
            host.client,
            "pods",
            field_selector=f"spec.nodeName={config.name}",
            handler=self._on_pod,
        )
        self._ready = False
        self._finished: set[str] = set()

    async def start(self) -> None:
        """Registers the node; returns once its pods are known and cared for."""
        await self.node.register()
        self._pods.start()
        await self._pods.synced()
        known = {pod["metadata"]["uid"] for pod in self._pods.store.values()}
        await remove_strays(self.host.pods, self.config.name, known)
        self._ready = True
        for pod in list(self._pods.store.values()):
            # Not again those that appeared while the strays were removed.
            self._on_pod(None, pod)
        self.node.start()

    async def settled(self) -> None:
        """Returns once it has looked at every pod that was bound to it when it started."""
        workers = list(self.workers.values())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await asyncio.gather(*(worker.settled.wait() for worker in workers))

    async def close(self, shutdown: bool) -> None:
        """Ends the node; with `shutdown` its containers too."""
        await self.node.stop()
        await self._pods.stop()
        workers = list(self.workers.values())
        grace = self.host.timing.shutdown_grace
        await asyncio.gather(*(w.shutdown(grace) if shutdown else w.close() for w in workers))
        await self.host.volumes.objects.close()

    # Pods

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        if not self._ready:
            return
        uid = (new or old or {})["metadata"]["uid"]
        worker = self.workers.get(uid)
        if new is None:
            if worker is not None:
                worker.vanish()
                if worker.finished:
                    self.workers.pop(uid)
                else:
                    self._finished.add(uid)
        elif worker is not None:
            worker.update(new)
        else:
            self._add(new)
        self._sweep()

    def _add(self, pod: Obj) -> None:
        try:
            worker = PodWorker(self.host, pod)
            worker.adopt()
        except Exception:  # one pod that cannot be understood must not take the node's others along
            log.exception("pod %s is left alone", pod["metadata"]["name"])
            return
        self.workers[pod["metadata"]["uid"]] = worker
        worker.start()

    def _sweep(self) -> None:
        """Forgets the workers of pods that left the API before they had ended."""
        for uid in [uid for uid in self._finished if self.workers[uid].finished]:
            self._finished.discard(uid)
            del self.workers[uid]

    def find(self, namespace: str, name: str) -> PodWorker | None:
        pod = self._pods.store.get(f"{namespace}/{name}")
        return self.workers.get(pod["metadata"]["uid"]) if pod else None


class Kubelets:
    """All nodes of this process. On leaving `async with` their containers are ended, the pods stay
    in the API: the next start finds them as after a reboot."""

    def __init__(self, client: KubeClient, nodes: Sequence[NodeConfig], settings: Settings) -> None:
        self.client = client
        self.configs = nodes
        self.settings = settings
        self.nodes: list[Kubelet] = []
        self._stack = AsyncExitStack()
        self._memory: asyncio.Task[None] | None = None
        self._server = Server(client, settings.data, self._find, settings.client_ca, self._summary)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))
            )
            await self._claim_data()
            await stack.enter_async_context(self._server)
            await stack.enter_async_context(Reclaimer(self.client, self.settings.data))
            self._hosts = await stack.enter_async_context(Hosts(self.client))
            await self._hosts.synced()
            addresses = [Addresses(config.pod_cidr) for config in self.configs]
            await self._server.start([a.node for a in addresses], self.settings.port)
            for config, own in zip(self.configs, addresses, strict=True):
                events = EventRecorder(self.client, "kubelet", config.name)
                await stack.enter_async_context(events)
                host = self._host(config, own, events, http)
                self.nodes.append(Kubelet(config, host, self._server.port))
            stack.push_async_callback(self._close_nodes)
            await asyncio.gather(*(node.start() for node in self.nodes))
            await asyncio.gather(*(node.settled() for node in self.nodes))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def _close_nodes(self) -> None:
        if self._memory is not None:
            self._memory.cancel()
            await asyncio.gather(self._memory, return_exceptions=True)
        await asyncio.gather(*(node.close(shutdown=True) for node in self.nodes))

    async def _claim_data(self) -> None:
        """The directory holds the volumes of one cluster: under another one's kubeconfig all its
        pods would look like strays."""
        cluster = (await self.client.get("namespaces", "kube-system"))["metadata"]["uid"]
        path = self.settings.data / "cluster-uid"
        self.settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            path.write_text(cluster)
        elif path.read_text() != cluster:
            raise RuntimeError(
                f"{self.settings.data} belongs to another cluster; use another --data directory"
            )

    def _host(
        self,
        config: NodeConfig,
        addresses: Addresses,
        events: EventRecorder,
        http: aiohttp.ClientSession,
    ) -> Host:
        settings = self.settings
        devices = config.devices()
        disk = shutil.disk_usage(settings.data).total
        allocatable = {
            "cpu": config.cpu or str(os.cpu_count() or 1),
            "ephemeral-storage": f"{disk // 1024}Ki",
            "memory": config.memory or f"{machine_memory() // 1024}Ki",
            "pods": str(MAX_PODS),
            **{name: str(len(ids)) for name, ids in devices.items()},
        }
        return Host(
            name=config.name,
            client=self.client,
            events=events,
            data=settings.data,
            images=ImageStore(settings.images),
            volumes=Volumes(self.client, settings.data, allocatable, settings.allow_host_path),
            hosts=self._hosts,
            devices=DeviceManager(devices),
            addresses=addresses,
            http=http,
            allocatable=allocatable,
            capacity={name: amount(name, text) for name, text in allocatable.items()},
            timing=settings.timing,
            watch_memory=self._watch_memory,
        )

    def _find(self, namespace: str, name: str) -> PodWorker | None:
        found = (node.find(namespace, name) for node in self.nodes)
        return next((worker for worker in found if worker is not None), None)

    async def _summary(self, address: str) -> Obj | None:
        for node in self.nodes:
            if node.host.addresses.node == address:
                return await summary(node.host, node.workers.values())
        return None

    # Memory limits

    def _watch_memory(self) -> None:
        if self._memory is None or self._memory.done():
            self._memory = asyncio.create_task(self._poll_memory(), name="memory limits")

    async def _poll_memory(self) -> None:
        """Looks only while a container with a limit runs: nothing tells without cgroups."""
        while True:
            limited = [
                container
                for node in self.nodes
                for worker in node.workers.values()
                for container in worker.running
                if container.memory_limit
            ]
            if not limited:
                return
            table = process_table()
            for container in limited:
                if container.instance is None:
                    continue
                limit = container.memory_limit
                # The shim is ours, not the container's.
                if memory_of(descendants(container.instance.shim, table), limit) > limit:
                    container.kill_for_memory()
            await asyncio.sleep(self.settings.timing.memory_poll)
