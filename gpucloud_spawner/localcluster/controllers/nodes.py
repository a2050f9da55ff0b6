"""Node health: a node whose kubelet falls silent becomes Unknown and is tainted, its pods unready.

What becomes of the pods on a tainted node is decided in `evictions.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..client import ApiError, KubeClient, Obj
from ..events import EventRecorder, now
from ..informer import WorkQueue
from .informers import LEASES, NODES, PODS, Informers

LEASE_NAMESPACE = "kube-node-lease"
UNREACHABLE = "node.kubernetes.io/unreachable"
NOT_READY = "node.kubernetes.io/not-ready"
_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_TAINTS = {"Unknown": UNREACHABLE, "False": NOT_READY}


class NodeController:
    def __init__(
        self, client: KubeClient, informers: Informers, events: EventRecorder, grace: float
    ) -> None:
        self._client = client
        self._events = events
        self._grace = grace
        self._heard: dict[str, tuple[Any, float]] = {}
        self.queue: WorkQueue[str] = WorkQueue(self._reconcile, name="nodes")
        self._nodes = informers.on(NODES, self._node_changed)
        self._leases = informers.on(LEASES, self._lease_changed)
        self._pods = informers[PODS]

    def _node_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            self.queue.add(new["metadata"]["name"])
        elif old is not None:
            self._heard.pop(old["metadata"]["name"], None)

    def _lease_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None and new["metadata"]["namespace"] == LEASE_NAMESPACE:
            self._hear(new["metadata"]["name"])

    def _hear(self, name: str) -> float:
        """Seconds of silence. Only that a heartbeat changes counts, by this clock: the kubelet's
        clock may be another one, and a restarted controller must not blame it for the past."""
        lease = self._leases.store.get(f"{LEASE_NAMESPACE}/{name}", {})
        node = self._nodes.store.get(name, {})
        ready = _condition(node, "Ready")
        beat = (
            lease.get("spec", {}).get("renewTime"),
            ready.get("lastHeartbeatTime") if ready.get("status") != "Unknown" else None,
        )
        time = asyncio.get_running_loop().time()
        known = self._heard.get(name)
        if known is None or (known[0] != beat and any(beat)):
            if known is not None and ready.get("status") == "Unknown":
                self.queue.add(name)
            self._heard[name] = (beat, time)
            return 0.0
        return time - known[1]

    async def _reconcile(self, name: str) -> float | None:
        node = self._nodes.store.get(name)
        if node is None:
            return None
        silence = self._hear(name)
        if silence >= self._grace and _condition(node, "Ready").get("status") != "Unknown":
            await self._lose(node)
            return None  # the change brings us back
        await self._taint(node)
        if _condition(node, "Ready").get("status") == "Unknown":
            return None  # until something is heard
        return max(self._grace - silence, 0.1)

    async def _lose(self, node: Obj) -> None:
        name = node["metadata"]["name"]
        conditions = []
        for kind in _CONDITIONS:
            old = _condition(node, kind)
            if not old and kind != "Ready":
                continue
            conditions.append(
                {
                    "type": kind,
                    "status": "Unknown",
                    "lastHeartbeatTime": old.get("lastHeartbeatTime"),
                    "lastTransitionTime": now(),
                    "reason": "NodeStatusUnknown" if old else "NodeStatusNeverUpdated",
                    "message": "Kubelet stopped posting node status."
                    if old
                    else "Kubelet never posted node status.",
                }
            )
        patch = {"status": {"conditions": conditions}}
        await self._client.patch_status("nodes", name, patch, kind="strategic")
        self._tell(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        await self._mark_pods(name)

    async def _mark_pods(self, node: str) -> None:
        """Nobody can say any more that the pods of a lost node are ready."""
        for pod in list(self._pods.store.values()):
            if pod["spec"].get("nodeName") != node or pod["status"].get("phase") != "Running":
                continue
            meta = pod["metadata"]
            condition = {"type": "Ready", "status": "False", "lastTransitionTime": now()}
            patch = {"metadata": {"uid": meta["uid"]}, "status": {"conditions": [condition]}}
            try:
                await self._client.patch_status(
                    "pods", meta["name"], patch, meta["namespace"], kind="strategic"
                )
            except ApiError as error:
                if error.status not in (404, 409):
                    raise

    async def _taint(self, node: Obj) -> None:
        status = _condition(node, "Ready").get("status", "Unknown")
        wanted = _TAINTS.get(status)
        taints = node["spec"].get("taints", [])
        kept = [t for t in taints if t["key"] not in _TAINTS.values() or t["key"] == wanted]
        for effect in ("NoSchedule", "NoExecute") if wanted else ():
            if not any(t["key"] == wanted and t["effect"] == effect for t in kept):
                taint = {"key": wanted, "effect": effect}
                kept.append({**taint, "timeAdded": now()} if effect == "NoExecute" else taint)
        if kept == taints:
            return
        meta = node["metadata"]
        patch = {
            "metadata": {"resourceVersion": meta["resourceVersion"]},
            "spec": {"taints": kept or None},
        }
        await self._client.patch("nodes", meta["name"], patch)

    def _tell(self, node: Obj, reason: str, message: str) -> None:
        reference = {**node, "kind": "Node", "apiVersion": "v1"}
        self._events.record(reference, "Normal", reason, message)


def _condition(node: Obj, kind: str) -> Obj:
    conditions = node.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})
