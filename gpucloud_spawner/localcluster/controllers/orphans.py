"""Pods that no kubelet will ever end are ended here: those of nodes that no longer exist, and those
that are deleted before they had a node.
"""

from __future__ import annotations

import asyncio

from ..client import ApiError, KubeClient, Obj, object_key, split_key
from ..informer import WorkQueue
from .evictions import disruption
from .informers import NODES, PODS, Informers


class OrphanController:
    """Keys of its queue are pods'."""

    def __init__(self, client: KubeClient, informers: Informers, quarantine: float) -> None:
        self._client = client
        self._quarantine = quarantine
        self._missing: dict[str, float] = {}
        self.queue: WorkQueue[str] = WorkQueue(self._reconcile, name="orphans")
        self._pods = informers.on(PODS, self._pod_changed)
        self._nodes = informers.on(NODES, self._node_changed)

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        node = new["spec"].get("nodeName") if new is not None else None
        if new is None:
            return
        if node not in self._nodes.store if node else new["metadata"].get("deletionTimestamp"):
            self.queue.add(object_key(new))

    def _node_changed(self, old: Obj | None, new: Obj | None) -> None:
        node = new or old
        assert node is not None
        name = node["metadata"]["name"]
        self._missing.pop(name, None)
        if new is None:
            for key, pod in self._pods.store.items():
                if pod["spec"].get("nodeName") == name:
                    self.queue.add(key)

    async def _reconcile(self, key: str) -> float | None:
        pod = self._pods.store.get(key)
        node = pod["spec"].get("nodeName") if pod is not None else None
        if pod is not None and not node and pod["metadata"].get("deletionTimestamp"):
            await self._end(pod, key)
        if pod is None or not node or node in self._nodes.store:
            return None
        time = asyncio.get_running_loop().time()
        # A node may come back: a kubelet that is started again registers it anew.
        left = self._quarantine - (time - self._missing.setdefault(node, time))
        if left > 0:
            return left
        if not await self._gone(node):
            return self._quarantine
        await self._end(
            pod, key, disruption(pod, "DeletionByPodGC", "PodGC: node no longer exists")
        )
        return None

    async def _gone(self, node: str) -> bool:
        try:
            await self._client.get("nodes", node)
        except ApiError as error:
            if error.status == 404:
                return True
            raise
        return False

    async def _end(self, pod: Obj, key: str, told: Obj | None = None) -> None:
        namespace, name = split_key(key)
        uid = pod["metadata"]["uid"]
        patch = told or {"metadata": {"uid": uid}, "status": {}}
        patch["status"]["phase"] = "Failed"
        try:
            if pod["status"].get("phase") not in ("Succeeded", "Failed"):
                await self._client.patch_status("pods", name, patch, namespace, kind="strategic")
            await self._client.delete("pods", name, namespace, grace_seconds=0, uid=uid)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
