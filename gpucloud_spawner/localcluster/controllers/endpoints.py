"""EndpointSlices: which pods stand behind a Service, at which address and under which name.

Nothing routes a Service's own address here; what the slices are for is the names of headless
Services, which the kubelet writes into its pods' hosts files as a cluster's DNS would tell them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ..client import ApiError, KubeClient, Obj, object_key, split_key
from ..informer import WorkQueue
from .informers import PODS, SERVICES, SLICES, Informers

SERVICE_NAME = "kubernetes.io/service-name"
HEADLESS = "service.kubernetes.io/headless"
_MANAGED = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
_ENDED = ("Succeeded", "Failed")


class EndpointController:
    """Keys of its queue are Services'."""

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        self._client = client
        # Services by one of the labels that they select, so that a pod does not ask all of them.
        self._selecting: dict[tuple[str, str, str], set[str]] = {}
        self._members: dict[str, set[str]] = {}
        self.queue: WorkQueue[str] = WorkQueue(self._reconcile, name="endpoints")
        self._services = informers.on(SERVICES, self._service_changed)
        self._pods = informers.on(PODS, self._pod_changed)
        self._slices = informers.on(SLICES, self._slice_changed)

    def _service_changed(self, old: Obj | None, new: Obj | None) -> None:
        if old is not None and (label := _label_of(old)):
            services = self._selecting.get(label, set())
            services.discard(object_key(old))
            if not services:
                self._selecting.pop(label, None)
        key = object_key(new or old or {})
        self._members.pop(key, None)
        if new is None or not (label := _label_of(new)):
            return
        self._selecting.setdefault(label, set()).add(key)
        namespace = new["metadata"]["namespace"]
        pods = self._pods.store.items()
        found = {k for k, pod in pods if pod["metadata"]["namespace"] == namespace}
        self._members[key] = {k for k in found if _selects(new, self._pods.store[k])}
        self.queue.add(key)

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        key = object_key(new or old or {})
        for service in {*self._services_of(old), *self._services_of(new)}:
            members = self._members.setdefault(service, set())
            if new is not None and _selects(self._services.store[service], new):
                members.add(key)
            else:
                members.discard(key)
            self.queue.add(service)

    def _services_of(self, pod: Obj | None) -> Iterator[str]:
        if pod is None:
            return
        namespace = pod["metadata"]["namespace"]
        for name, value in pod["metadata"].get("labels", {}).items():
            for service in self._selecting.get((namespace, name, value), ()):
                if _selects(self._services.store[service], pod):
                    yield service

    def _slice_changed(self, old: Obj | None, new: Obj | None) -> None:
        changed = new or old
        assert changed is not None
        meta = changed["metadata"]
        if service := meta.get("labels", {}).get(SERVICE_NAME):
            self.queue.add(f"{meta['namespace']}/{service}")

    async def _reconcile(self, key: str) -> None:
        service = self._services.store.get(key)
        if service is None or not _label_of(service):
            return  # its slices go with it: it owns them
        found = (self._pods.store.get(k) for k in sorted(self._members.get(key, ())))
        pods = [pod for pod in found if pod is not None and _has_address(pod)]
        wanted = _slice(service, pods)
        namespace, name = split_key(object_key(wanted))
        present = self._slices.store.get(f"{namespace}/{name}")
        if present is not None and all(
            present.get(part) == wanted[part] for part in ("endpoints", "ports")
        ):
            return
        try:
            if present is None:
                await self._client.create("endpointslices", wanted, namespace)
            else:
                meta = {**wanted["metadata"], "resourceVersion": _version(present)}
                await self._client.replace(
                    "endpointslices", {**wanted, "metadata": meta}, namespace
                )
        except ApiError as error:
            # Made or changed meanwhile (the event brings us back), or the namespace ends.
            if error.status not in (403, 404, 409):
                raise


def _version(obj: Obj) -> str:
    return str(obj["metadata"]["resourceVersion"])


def _label_of(service: Obj) -> tuple[str, str, str] | None:
    """One label that all its pods have; None for a Service that selects none by itself."""
    selector = service["spec"].get("selector")
    if not selector or service["spec"].get("type") == "ExternalName":
        return None
    # Some labels are on every pod: the longest value is the most likely to be its own.
    name, value = max(selector.items(), key=lambda pair: (len(pair[1]), pair))
    return service["metadata"]["namespace"], name, value


def _selects(service: Obj, pod: Obj) -> bool:
    labels = pod["metadata"].get("labels", {})
    return all(labels.get(k) == v for k, v in service["spec"].get("selector", {}).items())


def _has_address(pod: Obj) -> bool:
    status = pod.get("status") or {}
    return bool(status.get("podIP")) and status.get("phase") not in _ENDED


def _slice(service: Obj, pods: list[Obj]) -> Obj:
    meta = service["metadata"]
    suffix = hashlib.sha256(meta["uid"].encode()).hexdigest()[:5]
    labels = {SERVICE_NAME: meta["name"], **_MANAGED}
    if service["spec"].get("clusterIP") == "None":
        labels[HEADLESS] = ""
    owner = {"apiVersion": "v1", "kind": "Service", "name": meta["name"], "uid": meta["uid"]}
    reference = {**owner, "controller": True, "blockOwnerDeletion": True}
    return {
        "metadata": {
            "name": f"{meta['name']}-{suffix}",
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [reference],
        },
        "addressType": "IPv4",
        "endpoints": [_endpoint(service, pod) for pod in pods],
        "ports": list(_ports(service, pods)),
    }


def _endpoint(service: Obj, pod: Obj) -> Obj:
    meta, spec = pod["metadata"], pod["spec"]
    conditions = pod["status"].get("conditions", [])
    serving = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    terminating = "deletionTimestamp" in meta
    always = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint: Obj = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {
            "ready": always or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
        },
        "nodeName": spec["nodeName"],
    }
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        endpoint["hostname"] = spec["hostname"]
    return endpoint


def _ports(service: Obj, pods: list[Obj]) -> Iterator[Obj]:
    for port in service["spec"].get("ports", []):
        number = port.get("targetPort", port["port"])
        if isinstance(number, str):
            number = _named_port(number, pods)
        told = {"name": port.get("name", ""), "protocol": port["protocol"]}
        yield told if number is None else {**told, "port": number}


def _named_port(name: str, pods: list[Obj]) -> int | None:
    for pod in pods:
        for container in pod["spec"].get("containers", []):
            for port in container["ports"]:
                if port.get("name") == name:
                    return int(port["containerPort"])
    return None
