"""Evictions: a pod leaves a node with NoExecute taints when its tolerations run out."""

from __future__ import annotations

from datetime import UTC, datetime

from ..client import ApiError, KubeClient, Obj, object_key, split_key
from ..events import EventRecorder, now
from ..informer import WorkQueue
from ..scheduling import tolerates
from .informers import NODES, PODS, Informers


class EvictionController:
    """Keys of its queue are pods'."""

    def __init__(self, client: KubeClient, informers: Informers, events: EventRecorder) -> None:
        self._client = client
        self._events = events
        self.queue: WorkQueue[str] = WorkQueue(self._reconcile, name="evictions")
        self._pods = informers.on(PODS, self._pod_changed)
        self._nodes = informers.on(NODES, self._node_changed)

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None and new["spec"].get("nodeName") and self._taints_of(new):
            self.queue.add(object_key(new))

    def _node_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is None or not _no_execute(new) or (old and _no_execute(old) == _no_execute(new)):
            return
        for key, pod in self._pods.store.items():
            if pod["spec"].get("nodeName") == new["metadata"]["name"]:
                self.queue.add(key)

    def _taints_of(self, pod: Obj) -> list[Obj]:
        return _no_execute(self._nodes.store.get(pod["spec"].get("nodeName", ""), {}))

    async def _reconcile(self, key: str) -> float | None:
        pod = self._pods.store.get(key)
        if pod is None or pod["metadata"].get("deletionTimestamp"):
            return None
        waits = [_tolerated(pod, taint) for taint in self._taints_of(pod)]
        limited = [wait for wait in waits if wait is not None]
        if not limited:
            return None
        if min(limited) > 0:
            return min(limited)
        namespace, name = split_key(key)
        reference = {**pod, "kind": "Pod", "apiVersion": "v1"}
        message = f"Marking for deletion Pod {key}"
        self._events.record(reference, "Normal", "TaintManagerEviction", message)
        message = "Taint manager: deleting due to NoExecute taint"
        told = disruption(pod, "DeletionByTaintManager", message)
        try:
            await self._client.patch_status("pods", name, told, namespace, kind="strategic")
            await self._client.delete("pods", name, namespace, uid=pod["metadata"]["uid"])
        except ApiError as error:
            if error.status not in (404, 409):
                raise
        return None


def disruption(pod: Obj, reason: str, message: str) -> Obj:
    """A strategic patch of the status: the pod ends through no fault of its own."""
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastTransitionTime": now(),
        "reason": reason,
        "message": message,
    }
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": [condition]}}


def _no_execute(node: Obj) -> list[Obj]:
    taints = node.get("spec", {}).get("taints", [])
    return [taint for taint in taints if taint["effect"] == "NoExecute"]


def _tolerated(pod: Obj, taint: Obj) -> float | None:
    """Seconds for which the pod still tolerates a taint; None: for ever."""
    matching = [t for t in pod["spec"].get("tolerations", []) if tolerates(t, taint)]
    if not matching:
        return 0.0
    seconds = [t["tolerationSeconds"] for t in matching if "tolerationSeconds" in t]
    if not seconds:
        return None
    added = taint.get("timeAdded")
    start = datetime.fromisoformat(added) if added else datetime.now(UTC)
    elapsed = (datetime.now(UTC) - start).total_seconds()
    return max(float(min(seconds)), 0.0) - elapsed
