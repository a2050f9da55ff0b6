"""The controllers' shared caches, reduced to what they read, and discovery of what exists."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Self

from ..client import KubeClient, Obj
from ..informer import Handler, Informer

PODS = "/api/v1/pods"
NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
LEASES = "/apis/coordination.k8s.io/v1/leases"
JOBS = "/apis/batch/v1/jobs"
SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"

_WHOLE = frozenset({NODES, NAMESPACES, CLAIMS, VOLUMES, CLASSES, LEASES, JOBS, SERVICES, SLICES})
_POD_SPEC = ("nodeName", "tolerations", "volumes", "hostname", "subdomain", "hostNetwork")
_POD_STATUS = ("phase", "conditions", "podIP")
_JOB_POD_STATUS = (*_POD_STATUS, "containerStatuses", "initContainerStatuses")


@dataclass(frozen=True)
class Kind:
    """A resource that the API server lists, watches and deletes."""

    path: str
    api_version: str
    name: str
    namespaced: bool


async def discover(client: KubeClient) -> list[Kind]:
    groups = (await client.request("GET", "/apis"))["groups"]
    versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]
    kinds = []
    for version in versions:
        prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
        for entry in (await client.request("GET", prefix))["resources"]:
            if {"list", "watch", "delete"} <= set(entry["verbs"]):
                path = f"{prefix}/{entry['name']}"
                kinds.append(Kind(path, version, entry["kind"], entry["namespaced"]))
    return kinds


def _reduced(path: str, obj: Obj) -> Obj:
    """What the controllers read of an object: thousands of whole pods would fill the memory."""
    if path in _WHOLE:
        return obj
    meta = {k: v for k, v in obj["metadata"].items() if k not in ("annotations", "labels")}
    small: Obj = {"metadata": meta}
    if path == PODS:
        # Services select pods by their labels; a Job keeps notes in the annotations of its own.
        of_job = any(owner["kind"] == "Job" for owner in meta.get("ownerReferences", []))
        for part in ("labels", "annotations") if of_job else ("labels",):
            if part in obj["metadata"]:
                meta[part] = obj["metadata"][part]
        spec, status = obj["spec"], obj.get("status") or {}
        small["spec"] = {k: spec[k] for k in _POD_SPEC if k in spec}
        if ports := [{"ports": c["ports"]} for c in spec.get("containers", []) if c.get("ports")]:
            small["spec"]["containers"] = ports
        kept = _JOB_POD_STATUS if of_job else _POD_STATUS
        small["status"] = {k: status[k] for k in kept if k in status}
    return small


class _ReducingInformer(Informer):
    def _set(self, key: str, new: Obj | None, last: Obj | None = None) -> None:
        path = self.resource
        super()._set(
            key,
            None if new is None else _reduced(path, new),
            None if last is None else _reduced(path, last),
        )


class Informers:
    """One informer per resource, started together once every controller has said what it needs."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._informers: dict[str, Informer] = {}

    def on(self, path: str, handler: Handler) -> Informer:
        informer = self[path]
        informer.handlers.append(handler)
        return informer

    def __getitem__(self, path: str) -> Informer:
        if path not in self._informers:
            self._informers[path] = _ReducingInformer(self._client, path)
        return self._informers[path]

    async def synced(self) -> None:
        await asyncio.gather(*(informer.synced() for informer in self._informers.values()))

    async def __aenter__(self) -> Self:
        for informer in self._informers.values():
            informer.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for informer in self._informers.values():
            with contextlib.suppress(Exception):
                await informer.stop()
