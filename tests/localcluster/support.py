"""A running local cluster inside a test's event loop, and short ways to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import KubeClient
from gpucloud_spawner.localcluster.gpus import NodeGPUs
from gpucloud_spawner.localcluster.informer import Informer
from gpucloud_spawner.localcluster.kubelet.host import Timing
from gpucloud_spawner.localcluster.kubelet.kubelet import Kubelets, Settings
from gpucloud_spawner.localcluster.kubelet.node import NodeConfig
from gpucloud_spawner.localcluster.networks import Networks
from gpucloud_spawner.localcluster.scheduler import Scheduler

Obj = dict[str, Any]
NAMESPACE = "default"
# A kubelet's waits are made for machines; a test's patience is not.
QUICK = Timing(restart_backoff=0.3, retry=0.1, retry_max=0.3, memory_poll=0.1, shutdown_grace=1.0)
PATIENCE = 15.0
SERVE = (
    "import http.server, os, sys\n"
    "class Handler(http.server.SimpleHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200 if os.path.exists('healthy') else 500)\n"
    "        self.end_headers()\n"
    "        self.wfile.write(os.environ['HOSTNAME'].encode())\n"
    "    def log_message(self, *args): pass\n"
    "http.server.HTTPServer((os.environ['POD_IP'], 8888), Handler).serve_forever()\n"
)
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def pod(name: str, *command: str, container: Obj | None = None, **spec: Any) -> Obj:
    """A pod of one container `c` that runs this command and is not restarted."""
    labels = spec.pop("labels", {})
    annotations = spec.pop("annotations", {})
    main = {"name": "c", "image": "busybox:1", "command": list(command), **(container or {})}
    spec = {"restartPolicy": "Never", "containers": [main], **spec}
    meta = {"name": name, "labels": labels, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def shell(name: str, script: str, **kwargs: Any) -> Obj:
    return pod(name, "sh", "-c", script, **kwargs)


def mount(path: str, source: Obj, **more: str) -> Obj:
    """Pod arguments for one volume."""
    return {
        "volumes": [{"name": "v", **source}],
        "container": {"volumeMounts": [{"name": "v", "mountPath": path, **more}]},
    }


def gpus(count: int, **more: str) -> Obj:
    """Container fields that ask for GPUs."""
    return {"resources": {"limits": {"nvidia.com/gpu": str(count), **more}}}


def job(name: str, script: str, *, template: Obj | None = None, **spec: Any) -> Obj:
    """A Job whose pods run a shell script; `template` is for the spec of its pods."""
    pods = {"spec": {**shell("", script)["spec"], **(template or {})}}
    body = {"backoffLimit": 0, "template": pods, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": body}


def indexed(name: str, script: str, completions: int, **spec: Any) -> Obj:
    """An Indexed Job all of whose pods run at once."""
    size = {"completions": completions, "parallelism": completions}
    return job(name, script, completionMode="Indexed", **{**size, **spec})


def state_of(obj: Obj) -> Obj:
    """The status of a pod's only container, or an empty one."""
    return next(iter(obj["status"].get("containerStatuses") or []), {})


def terminated(obj: Obj) -> Obj:
    return state_of(obj).get("state", {}).get("terminated", {})


def waiting(obj: Obj) -> Obj:
    return state_of(obj).get("state", {}).get("waiting", {})


def condition(obj: Obj, kind: str) -> Obj:
    found = [c for c in obj["status"].get("conditions") or [] if c["type"] == kind]
    return found[0] if found else {}


def is_ready(obj: Obj) -> bool:
    return condition(obj, "Ready").get("status") == "True"


@dataclass
class Cluster:
    """A client, and an informer per resource to wait with."""

    client: KubeClient
    server: APIServer
    data: Path
    _informers: dict[str, Informer] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def informer(self, resource: str) -> Informer:
        if resource not in self._informers:
            informer = Informer(self.client, resource, handler=lambda old, new: self._changed.set())
            informer.start()
            self._informers[resource] = informer
        await self._informers[resource].synced()
        return self._informers[resource]

    async def close(self) -> None:
        for informer in self._informers.values():
            await informer.stop()

    async def until(
        self,
        name: str,
        test: Callable[[Obj], Any],
        *,
        resource: str = "pods",
        timeout: float = PATIENCE,
    ) -> Obj:
        """Waits until the object exists and passes; fails with what it is by then."""
        informer = await self.informer(resource)
        key = name if "/" in name or resource == "nodes" else f"{NAMESPACE}/{name}"
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self._changed.clear()
                    obj = informer.store.get(key)
                    if obj is not None and test(obj):
                        return obj
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{key} never got there: {informer.store.get(key)}") from None

    async def gone(self, name: str, *, timeout: float = PATIENCE) -> None:
        informer = await self.informer("pods")
        async with asyncio.timeout(timeout):
            while f"{NAMESPACE}/{name}" in informer.store:
                self._changed.clear()
                await self._changed.wait()

    async def create(self, obj: Obj) -> Obj:
        plurals = {"Pod": "pods", "Secret": "secrets", "ConfigMap": "configmaps", "Node": "nodes"}
        plurals |= {"Job": "jobs", "Service": "services"}
        plurals["PersistentVolumeClaim"] = "persistentvolumeclaims"
        namespace = None if obj["kind"] == "Node" else NAMESPACE
        return await self.client.create(plurals[obj["kind"]], obj, namespace)

    async def claim(self, name: str) -> Path:
        """Creates a claim and binds it as a volume controller does; where its data will be."""
        body, status = bound_claim(name)
        made = await self.create(body)
        await self.client.patch_status("persistentvolumeclaims", name, status, NAMESPACE)
        return self.data / "kubelet/volumes" / NAMESPACE / made["metadata"]["uid"]

    async def run(self, obj: Obj) -> Obj:
        """Creates a pod and waits until it has ended."""
        await self.create(obj)
        return await self.phase(obj["metadata"]["name"], "Succeeded", "Failed")

    async def phase(self, name: str, *phases: str) -> Obj:
        return await self.until(name, lambda p: p["status"]["phase"] in phases)

    async def started(self, obj: Obj) -> Obj:
        """Creates a pod and waits until it runs."""
        await self.create(obj)
        return await self.phase(obj["metadata"]["name"], "Running")

    async def delete(self, name: str, grace: int | None = None) -> None:
        await self.client.delete("pods", name, NAMESPACE, grace_seconds=grace)

    async def logs(self, name: str, **query: str) -> str:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/log"
        async with self.client.open("GET", path, params=query) as response:
            return await response.text()

    async def output(self, obj: Obj) -> str:
        """What a pod that ends has written."""
        await self.run(obj)
        return await self.logs(obj["metadata"]["name"])

    async def event(self, name: str, reason: str, timeout: float = PATIENCE) -> Obj:
        """The first event of that reason about the object."""
        informer = await self.informer("events")

        def found() -> Iterator[Obj]:
            for event in informer.store.values():
                if event["involvedObject"]["name"] == name and event["reason"] == reason:
                    yield event

        async with asyncio.timeout(timeout):
            while True:
                self._changed.clear()
                if event := next(found(), None):
                    return event
                await self._changed.wait()


@contextlib.asynccontextmanager
async def api(server: APIServer, data: Path) -> AsyncIterator[Cluster]:
    """Only the API server, with helpers."""
    async with KubeClient.from_kubeconfig(str(server.kubeconfig)) as client:
        cluster = Cluster(client, server, data)
        try:
            yield cluster
        finally:
            await cluster.close()


def node_configs(networks: Networks, gpus_each: int = 2) -> list[NodeConfig]:
    """A node for each of these networks."""
    ids = tuple(str(index) for index in range(gpus_each))
    return [
        NodeConfig(f"node-{i}", cidr, NodeGPUs(ids), cpu="8", memory="32Gi")
        for i, cidr in enumerate(networks.cidrs)
    ]


@contextlib.asynccontextmanager
async def nodes(
    cluster: Cluster, count: int = 1, first: int = 0, **settings: Any
) -> AsyncIterator[Kubelets]:
    """The kubelets of a cluster, in networks that no other test run of this machine uses."""
    options = {"timing": QUICK, **settings}
    made = Settings(cluster.data / "kubelet", **options)
    with Networks(cluster.data, first + count) as networks:
        configs = node_configs(networks)[first:]
        async with Kubelets(cluster.client, configs, made) as kubelets:
            yield kubelets


@contextlib.asynccontextmanager
async def everything(
    server: APIServer, data: Path, count: int = 1, first: int = 0, **settings: Any
) -> AsyncIterator[Cluster]:
    """API server, scheduler and nodes."""
    async with (
        api(server, data) as cluster,
        Scheduler(cluster.client),
        nodes(cluster, count, first, **settings),
    ):
        yield cluster


def bound_claim(name: str) -> tuple[Obj, Obj]:
    """A claim, and the status patch of a volume controller that has bound it."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "ceph-rbd",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    return claim, {"status": {"phase": "Bound"}}


def processes_with(marker: str) -> list[psutil.Process]:
    """Every process of the machine whose command line or environment has this text."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            texts = [*process.cmdline(), *process.environ().values()]
            if any(marker in text for text in texts):
                found.append(process)
    return found


async def first_line(cluster: Cluster, name: str, **query: str) -> str:
    async with asyncio.timeout(PATIENCE):
        while not (text := await cluster.logs(name, **query)).endswith("\n"):
            await asyncio.sleep(0.02)
    return text
