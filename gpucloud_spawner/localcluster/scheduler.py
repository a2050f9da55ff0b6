"""The scheduler of the local cluster: watches pods and nodes, binds pods, explains why it cannot.

The queue and the I/O are here, the decisions in `scheduling`. It answers only for pods whose
schedulerName is default-scheduler and works against any API server.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
import socket
from contextlib import AsyncExitStack
from typing import Any, Self

from .client import RETRYABLE, ApiError, KubeClient, Obj
from .events import EventRecorder, now
from .informer import Informer
from .scheduling import Amounts, Decision, Ledger, place, pod_requests, refuse_everywhere

log = logging.getLogger(__name__)
NAME = "default-scheduler"
BINDS_AT_ONCE = 16
RETRY_SECONDS = 1.0
GATED = "Scheduling is blocked due to non-empty scheduling gates"


class Scheduler:
    """Start with `async with`; it then runs until the block ends."""

    def __init__(self, client: KubeClient) -> None:
        self.client = client
        self.ledger = Ledger()
        instance = f"{NAME}-{socket.gethostname()}"
        self.events = EventRecorder(client, NAME, instance, action=True)
        # Ended pods hold nothing: the API server leaves them out, so their end is a DELETED here.
        active = "status.phase!=Succeeded,status.phase!=Failed"
        self._pods = Informer(client, "pods", field_selector=active, handler=self._on_pod)
        self._nodes = Informer(client, "nodes", handler=self._on_node)
        self._claims = Informer(client, "persistentvolumeclaims", handler=self._on_claim)
        self._pending: dict[str, Obj] = {}  # uid -> pod without a node
        self._order: dict[str, int] = {}  # uid -> when it was first seen
        self._counter = 0
        self._heap: list[tuple[int, str, int, str]] = []
        self._queued: set[str] = set()
        self._binding: set[str] = set()
        # Pods that want the same fail for the same reason until something is given back: a
        # thousand waiting pods cost one evaluation per change, not a thousand.
        self._failures: dict[str, Decision] = {}
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(BINDS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for part in (self.events, self._pods, self._nodes, self._claims):
            await self._stack.enter_async_context(part)
        self._spawn(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What the watches say

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        uid = (new or old or {})["metadata"]["uid"]
        if new is None:
            self._forget(uid)
            if self.ledger.release(uid):
                self._retry_all()
            return
        node = new["spec"].get("nodeName")
        if node:
            self._forget(uid)
            moved = self.ledger.holder(uid) not in (None, node)
            self.ledger.grant(uid, node, pod_requests(new))
            if moved:  # somebody else bound it elsewhere than we had assumed
                self._retry_all()
        elif new["spec"].get("schedulerName", NAME) == NAME:
            if new["metadata"].get("deletionTimestamp"):
                self._forget(uid)
            else:
                self._pending[uid] = new
                # Our own status patch comes back as a change; only a changed spec is news.
                if old is None or old["spec"] != new["spec"]:
                    self._enqueue(uid)

    def _on_node(self, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            assert old is not None
            self.ledger.remove_node(old["metadata"]["name"])
            self._retry_all()
        elif self.ledger.set_node(new):
            self._retry_all()

    def _on_claim(self, old: Obj | None, new: Obj | None) -> None:
        if old is None or new is None:  # a pod waits only for a claim to appear
            self._retry_all()

    def _forget(self, uid: str) -> None:
        self._pending.pop(uid, None)
        self._order.pop(uid, None)
        self._queued.discard(uid)

    def _retry_all(self) -> None:
        self._failures.clear()
        for uid in self._pending:
            self._enqueue(uid)

    def _enqueue(self, uid: str) -> None:
        if uid in self._queued or uid in self._binding or uid not in self._pending:
            return
        pod = self._pending[uid]
        if uid not in self._order:
            self._counter += 1
            self._order[uid] = self._counter
        self._queued.add(uid)
        created = pod["metadata"].get("creationTimestamp") or ""
        priority = -(pod["spec"].get("priority") or 0)
        heapq.heappush(self._heap, (priority, created, self._order[uid], uid))
        self._wake.set()

    # The loop

    async def _run(self) -> None:
        for informer in (self._nodes, self._claims, self._pods):
            # Deciding before all grants are known would hand out the same GPU twice.
            await informer.synced()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._heap:
                uid = heapq.heappop(self._heap)[3]
                if uid in self._queued:
                    self._queued.discard(uid)
                    self._attempt(self._pending[uid])
                await asyncio.sleep(0)

    def _attempt(self, pod: Obj) -> None:
        try:
            self._schedule(pod)
        except Exception as error:  # one pod that cannot be understood must not stop all others
            log.exception("pod %s cannot be scheduled", pod["metadata"]["name"])
            self._refuse(pod, "SchedulerError", f"{type(error).__name__}: {error}")

    def _schedule(self, pod: Obj) -> None:
        uid = pod["metadata"]["uid"]
        if pod["spec"].get("schedulingGates"):
            self._refuse(pod, "SchedulingGated", GATED)
            return
        requests = pod_requests(pod)
        decision = self._decide(pod, requests)
        if decision.node is None:
            self._refuse(pod, "Unschedulable", decision.message)
            return
        # Assumed at once: the next decision must not wait for this one's round trip.
        self.ledger.grant(uid, decision.node, requests)
        self._binding.add(uid)
        self._spawn(self._bind(pod, decision.node))

    def _decide(self, pod: Obj, requests: Amounts) -> Decision:
        if reason := self._claim_problem(pod):
            return Decision(None, refuse_everywhere(pod, reason, len(self.ledger.nodes)))
        spec = pod["spec"]
        asked = ("nodeSelector", "affinity", "tolerations", "preemptionPolicy")
        signature = json.dumps([requests, [spec.get(name) for name in asked]], sort_keys=True)
        decision = self._failures.get(signature) or place(pod, requests, self.ledger.nodes)
        if decision.node is None:
            self._failures[signature] = decision
        return decision

    def _claim_problem(self, pod: Obj) -> str:
        for volume in pod["spec"].get("volumes") or []:
            if claim := volume.get("persistentVolumeClaim"):
                name = claim["claimName"]
                found = self._claims.store.get(f"{pod['metadata']['namespace']}/{name}")
                if found is None:
                    return f'persistentvolumeclaim "{name}" not found'
                if found["metadata"].get("deletionTimestamp"):
                    return f'persistentvolumeclaim "{name}" is being deleted'
        return ""

    async def _bind(self, pod: Obj, node: str) -> None:
        meta = pod["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            async with self._slots:
                await self._select_node_for_claims(pod, node)
                await self.client.create("pods", body, meta["namespace"], subresource="binding")
        except (ApiError, *RETRYABLE) as error:
            self._binding.discard(meta["uid"])
            self._unassume(meta["uid"], error)
        else:
            self._binding.discard(meta["uid"])
            self._forget(meta["uid"])  # do not place it again before the watch confirms
            message = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
            self.events.record(pod, "Normal", "Scheduled", message, action="Binding")

    def _unassume(self, uid: str, error: Exception) -> None:
        pod = self._pending.get(uid)
        if pod is None:  # gone, or bound by somebody else: the watch has settled it
            return
        log.info("binding %s failed: %s", pod["metadata"]["name"], error)
        self.ledger.release(uid)
        self._retry_all_but(uid)
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._enqueue, uid)

    def _retry_all_but(self, uid: str) -> None:
        self._binding.add(uid)
        self._retry_all()
        self._binding.discard(uid)

    async def _select_node_for_claims(self, pod: Obj, node: str) -> None:
        """Tells the provisioner where the first consumer of a waiting claim goes."""
        namespace = pod["metadata"]["namespace"]
        for volume in pod["spec"].get("volumes") or []:
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
            claim = self._claims.store.get(f"{namespace}/{name}")
            if claim is None or claim["spec"].get("volumeName"):
                continue
            annotation = {"volume.kubernetes.io/selected-node": node}
            patch = {"metadata": {"annotations": annotation}}
            await self.client.patch("persistentvolumeclaims", name, patch, namespace)

    # What a waiting pod is told

    def _refuse(self, pod: Obj, reason: str, message: str) -> None:
        condition: Obj = {
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": now(),
            "reason": reason,
            "message": message,
        }
        conditions = (pod.get("status") or {}).get("conditions") or []
        old = next((c for c in conditions if c["type"] == "PodScheduled"), None)
        if old is not None:
            if (old["status"], old.get("reason"), old.get("message")) == ("False", reason, message):
                return
            if old["status"] == "False":
                condition["lastTransitionTime"] = old["lastTransitionTime"]
        if generation := pod["metadata"].get("generation"):
            condition["observedGeneration"] = generation
        if reason == "Unschedulable":
            self.events.record(pod, "Warning", "FailedScheduling", message, action="Scheduling")
        self._spawn(self._write_condition(pod, condition))

    async def _write_condition(self, pod: Obj, condition: Obj) -> None:
        meta = pod["metadata"]
        patch = {"metadata": {"uid": meta["uid"]}, "status": {"conditions": [condition]}}
        try:
            async with self._slots:
                if meta["uid"] not in self._pending:
                    return
                await self.client.patch_status(
                    "pods", meta["name"], patch, meta["namespace"], kind="strategic"
                )
        except (ApiError, *RETRYABLE) as error:
            log.debug("condition of %s not written: %s", meta["name"], error)
            if not (isinstance(error, ApiError) and error.status in (404, 409)):
                loop = asyncio.get_running_loop()
                loop.call_later(RETRY_SECONDS, self._enqueue, meta["uid"])
