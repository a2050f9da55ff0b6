"""The Node object of one kubelet: registration, status, and the lease that says it is alive.

What runs on the node is not looked at here.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..client import RETRYABLE, ApiError
from ..events import now
from ..gpus import GPU, NodeGPUs
from .host import Host

log = logging.getLogger(__name__)
Obj = dict[str, Any]
VERSION = "v1.36.2"
LEASES = "kube-node-lease"
LEASE_SECONDS, LEASE_DURATION = 10.0, 40
STATUS_SECONDS = 300.0


@dataclass(frozen=True)
class NodeConfig:
    """One node to run."""

    name: str
    pod_cidr: str
    gpus: NodeGPUs = field(default_factory=lambda: NodeGPUs(()))
    cpu: str = ""  # empty: what the machine has
    memory: str = ""
    resources: Mapping[str, int] = field(default_factory=dict)  # further extended resources
    labels: Mapping[str, str] = field(default_factory=dict)

    def devices(self) -> dict[str, list[str]]:
        """Every countable resource of the node, with the ids of its devices."""
        devices = {GPU: list(self.gpus.ids)} if self.gpus.ids else {}
        for name, count in self.resources.items():
            devices[name] = [str(index) for index in range(count)]
        return devices


class NodeObject:
    """Keeps one Node object and its lease right."""

    def __init__(self, config: NodeConfig, host: Host, port: int) -> None:
        self.config = config
        self.host = host
        self.port = port
        self.uid = ""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins the heartbeat; after `register`."""
        name = self.config.name
        self._tasks = [
            asyncio.create_task(self._heartbeat(), name=f"lease of {name}"),
            asyncio.create_task(self._status_loop(), name=f"status of {name}"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def register(self) -> None:
        name, client = self.config.name, self.host.client
        labels = {
            "beta.kubernetes.io/arch": _architecture(),
            "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": _architecture(),
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            **self.config.gpus.labels(),
            **self.config.labels,
        }
        cidr = self.config.pod_cidr
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
            "status": self._status({}),
        }
        try:
            stored = await client.create("nodes", node)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            # Only what is ours: an administrator's taints, labels and cordon stay.
            stored = await client.patch("nodes", name, {"metadata": {"labels": labels}})
        self.uid = stored["metadata"]["uid"]
        await client.patch_status("nodes", name, {"status": self._status(stored)})
        self.host.events.record(
            {"kind": "Node", **stored}, "Normal", "Starting", "Starting kubelet."
        )

    def _status(self, node: Obj) -> Obj:
        capacity = dict(self.host.allocatable)
        moment = now()
        old = {c["type"]: c for c in (node.get("status") or {}).get("conditions") or []}
        texts = [
            ("MemoryPressure", "False", "KubeletHasSufficientMemory", "has sufficient memory"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure", "has no disk pressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID", "has sufficient PID available"),
            ("Ready", "True", "KubeletReady", "is posting ready status"),
        ]
        conditions = []
        for kind, value, reason, message in texts:
            same = old.get(kind, {}).get("status") == value
            since = old[kind]["lastTransitionTime"] if same else moment
            condition = {"type": kind, "status": value, "reason": reason}
            condition["message"] = f"kubelet {message}"
            condition |= {"lastHeartbeatTime": moment, "lastTransitionTime": since}
            conditions.append(condition)
        addresses = [
            {"type": "InternalIP", "address": self.host.addresses.node},
            {"type": "Hostname", "address": self.config.name},
        ]
        return {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": conditions,
            "addresses": addresses,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
            "nodeInfo": _node_info(self.config.name),
        }

    async def _heartbeat(self) -> None:
        while True:
            try:
                await self._renew()
            except (ApiError, *RETRYABLE) as error:
                log.info("lease of %s: %s", self.config.name, error)
            await asyncio.sleep(LEASE_SECONDS)

    async def _renew(self) -> None:
        name, client = self.config.name, self.host.client
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_DURATION,
            "renewTime": now(micro=True),
        }
        try:
            await client.patch("leases", name, {"spec": spec}, LEASES)
        except ApiError as error:
            if error.status != 404:
                raise
            owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": self.uid}
            meta = {"name": name, "namespace": LEASES, "ownerReferences": [owner]}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
            await client.create("leases", {**lease, "metadata": meta, "spec": spec}, LEASES)

    async def _status_loop(self) -> None:
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            try:
                node = await self.host.client.get("nodes", self.config.name)
                patch = {"status": self._status(node)}
                await self.host.client.patch_status("nodes", self.config.name, patch)
            except (ApiError, *RETRYABLE) as error:
                log.info("status of %s: %s", self.config.name, error)


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _node_info(name: str) -> Obj:
    machine = Path("/etc/machine-id")
    boot = Path("/proc/sys/kernel/random/boot_id")
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "machineID": machine.read_text().strip() if machine.exists() else "",
        "systemUUID": name,
        "bootID": boot.read_text().strip(),
        "kernelVersion": platform.release(),
        "osImage": release.get("PRETTY_NAME", platform.system()),
        "containerRuntimeVersion": "gpucloud://1.0",
        "kubeletVersion": VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": _architecture(),
    }
