"""A cluster by hand: pods, nodes and claims on a real API server, moved as a kubelet would.

`History` is the oracle's source: an independent watcher that writes down every event there ever
was. `expected_intervals` computes from it what the ledger must say, and imports nothing of it.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp

from gpucloud_spawner.localcluster.apiserver import APIServer

NAMESPACE = "default"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
CLAIMS = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
Object = dict[str, Any]


def stamp(at: float | None = None) -> str:
    """A Kubernetes time; None: now."""
    moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> int:
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


class Cluster:
    """What the hub, the scheduler, kubelets and controllers do to an API server."""

    def __init__(self, server: APIServer) -> None:
        self.server = server
        context = ssl.create_default_context(cafile=str(server.ca))
        self._session = aiohttp.ClientSession(
            server.url,
            headers={"Authorization": f"Bearer {server.token}"},
            connector=aiohttp.TCPConnector(ssl=context, limit=0, force_close=True),
        )

    async def close(self) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: Object | None = None) -> Object:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        async with self._session.request(
            method, path, json=body, headers={"Content-Type": kind}
        ) as response:
            answer: Object = await response.json()
            assert response.status < 300, answer
            return answer

    async def watch(self, path: str, version: str) -> aiohttp.ClientResponse:
        query = f"{path}?watch=1&resourceVersion={version}&timeoutSeconds=3600"
        return await self._session.get(query, timeout=aiohttp.ClientTimeout(total=None))

    async def add_node(
        self, name: str, gpus: int, product: str = "NVIDIA-A100", resource: str = "nvidia.com/gpu"
    ) -> None:
        labels = {"nvidia.com/gpu.product": product}
        await self.call("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": labels}})
        amounts = {resource: str(gpus), "cpu": "8", "pods": "500"}
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp()}
        status = {"capacity": amounts, "allocatable": amounts, "conditions": [ready]}
        await self.call("PATCH", f"/api/v1/nodes/{name}/status", {"status": status})

    async def lose_node(self, name: str) -> int:
        """The node controller's word that nobody hears from a node; returns since when."""
        now = stamp()
        lost = {"type": "Ready", "status": "Unknown", "lastTransitionTime": now}
        await self.call("PATCH", f"/api/v1/nodes/{name}/status", {"status": {"conditions": [lost]}})
        return seconds(now)

    async def create(
        self,
        name: str,
        gpus: int = 1,
        *,
        user: str = "ada",
        team: str = "vision",
        restart: str = "OnFailure",
        resource: str = "nvidia.com/gpu",
        notes: Mapping[str, str] | None = None,
    ) -> Object:
        annotations = {
            "gpucloud.io/user": user,
            "gpucloud.io/team": team,
            "gpucloud.io/app": "app",
            "gpucloud.io/profile": "tensorflow",
            "gpucloud.io/price-per-gpu-hour": "1.50",
            **(notes or {}),
        }
        container: Object = {"name": "notebook", "image": "i"}
        if gpus:
            container["resources"] = {"limits": {resource: str(gpus)}}
        labels = {"gpucloud.io/component": "notebook", "gpucloud.io/user": "x"}
        return await self.call(
            "POST",
            PODS,
            {
                "metadata": {"name": name, "labels": labels, "annotations": annotations},
                "spec": {
                    "containers": [container],
                    "restartPolicy": restart,
                    "automountServiceAccountToken": False,
                },
            },
        )

    async def bind(self, name: str, node: str) -> None:
        target = {"kind": "Node", "name": node}
        await self.call(
            "POST", f"{PODS}/{name}/binding", {"metadata": {"name": name}, "target": target}
        )

    async def get(self, name: str) -> Object:
        return await self.call("GET", f"{PODS}/{name}")

    async def set_status(self, name: str, **status: Any) -> Object:
        return await self.call("PATCH", f"{PODS}/{name}/status", {"status": status})

    async def run(self, name: str) -> None:
        state = {"running": {"startedAt": stamp()}}
        await self.set_status(name, phase="Running", containerStatuses=[container_status(state)])

    async def finish(self, name: str, at: int, code: int = 0) -> Object:
        """The container ends, and with it the pod."""
        ended = {"exitCode": code, "finishedAt": stamp(at), "startedAt": stamp(at)}
        return await self.set_status(
            name,
            phase="Failed" if code else "Succeeded",
            containerStatuses=[container_status({"terminated": ended})],
        )

    async def delete(self, name: str, grace: int) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace}
        await self.call("DELETE", f"{PODS}/{name}", body)

    async def create_claim(self, name: str, size: str, user: str = "ada") -> None:
        notes = {"gpucloud.io/user": user, "gpucloud.io/team": "vision", "gpucloud.io/app": "app"}
        meta = {"name": name, "labels": {"gpucloud.io/user": "x"}, "annotations": notes}
        resources = {"requests": {"storage": size}}
        spec = {"accessModes": ["ReadWriteOnce"], "resources": resources}
        await self.call("POST", CLAIMS, {"metadata": meta, "spec": spec})

    async def provision_claim(self, name: str, size: str) -> None:
        status = {"phase": "Bound", "capacity": {"storage": size}}
        await self.call("PATCH", f"{CLAIMS}/{name}/status", {"status": status})


def container_status(state: Object) -> Object:
    return {
        "name": "notebook",
        "image": "i",
        "imageID": "",
        "ready": "running" in state,
        "restartCount": 0,
        "state": state,
    }


async def live(cluster: Cluster, name: str, node: str, chance: random.Random) -> None:
    """The life of one pod, by chance: ends, crashes, cancelled starts, lost kubelets, restarts."""

    async def pause() -> None:
        await asyncio.sleep(chance.uniform(0, 0.3))

    fate = chance.choice(
        ["ends", "ends", "stopped", "stopped", "crashed", "cancelled", "never", "killed", "loops"]
    )
    restart = chance.choice(["Always", "OnFailure", "Never"])
    await cluster.create(
        name, chance.choice([0, 1, 2]), user=chance.choice(["ada", "alan"]), restart=restart
    )
    await pause()
    if fate == "never":  # given up before a node was found
        await cluster.delete(name, 0)
        return
    await cluster.bind(name, node)
    await pause()
    if fate == "cancelled":  # while the image was pulled
        await cluster.delete(name, 0)
        return
    await cluster.run(name)
    await pause()
    later = int(datetime.now(UTC).timestamp()) + chance.choice([0, 1, 1, 7, 3600, 90_000])
    if fate == "ends":
        await cluster.finish(name, later)
        await pause()
        await cluster.delete(name, 0)
    elif fate == "crashed":  # the pod object stays for people to look at
        await cluster.finish(name, later, code=1)
    elif fate == "killed":  # by force: nobody reports the containers' end
        await cluster.delete(name, 0)
    elif fate == "loops":  # it waits to be restarted when it is stopped
        ended = {"exitCode": 1, "finishedAt": stamp(1_000_000_000), "startedAt": stamp()}
        waiting = container_status({"waiting": {"reason": "CrashLoopBackOff"}})
        waiting["lastState"] = {"terminated": ended}
        await cluster.set_status(name, phase="Running", containerStatuses=[waiting])
        await pause()
        await cluster.delete(name, 30)
        await cluster.delete(name, 0)
    else:  # stopped as the hub does: asked to end, the kubelet reports, then it is gone
        await cluster.delete(name, 30)
        await pause()
        await cluster.finish(name, later, code=chance.choice([0, 143]))
        await cluster.delete(name, 0)


class History:
    """Every event of pods and nodes since its start, in memory."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.events: list[tuple[str, Object]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for path in (PODS, "/api/v1/nodes"):
            version = (await self._cluster.call("GET", path))["metadata"]["resourceVersion"]
            response = await self._cluster.watch(path, version)
            self._tasks.append(asyncio.create_task(self._read(response)))

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        async with response:
            async for line in response.content:
                event = json.loads(line)
                self.events.append((event["type"], event["object"]))

    async def reach(self, version: str) -> None:
        """Wait until an event of this version or a later one was written down."""
        while not any(int(o["metadata"]["resourceVersion"]) >= int(version)
                      for _, o in reversed(self.events)):  # fmt: skip
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


Expected = dict[str, tuple[int, int | None, int]]


def expected_intervals(events: list[tuple[str, Object]]) -> Expected:
    """uid -> (start, end or None, GPUs), from the cluster's complete history alone."""
    pods: dict[str, list[tuple[str, Object]]] = {}
    lost: dict[str, int] = {}
    for kind, item in events:
        if item["kind"] == "Node":
            for condition in item["status"].get("conditions", []):
                if condition["type"] == "Ready" and condition["status"] == "Unknown":
                    lost.setdefault(
                        item["metadata"]["name"], seconds(condition["lastTransitionTime"])
                    )
        else:
            pods.setdefault(item["metadata"]["uid"], []).append((kind, item))
    found: Expected = {}
    for uid, story in pods.items():
        last = story[-1][1]
        bound = [
            seconds(c["lastTransitionTime"])
            for c in last["status"].get("conditions", [])
            if c["type"] == "PodScheduled" and c["status"] == "True"
        ]
        if bound:
            found[uid] = (bound[0], _end(story, bound[0], lost), _gpus(last))
    return found


def _gpus(pod: Object) -> int:
    limits = pod["spec"]["containers"][0].get("resources", {}).get("limits", {})
    return int(limits.get("nvidia.com/gpu", 0))


def _end(story: list[tuple[str, Object]], start: int, lost: dict[str, int]) -> int | None:
    kind, last = story[-1]
    asked = None
    if "deletionTimestamp" in last["metadata"]:
        grace = last["metadata"]["deletionGracePeriodSeconds"]
        asked = seconds(last["metadata"]["deletionTimestamp"]) - grace
    statuses = last["status"].get("containerStatuses", [])
    over = last["status"]["phase"] in ("Succeeded", "Failed")
    if over and statuses:
        finished = seconds(statuses[0]["state"]["terminated"]["finishedAt"])
        # the first time it was over: was it asked to end before?
        first = next(o for _, o in story if o["status"]["phase"] in ("Succeeded", "Failed"))
        policy = last["spec"]["restartPolicy"]
        for_good = (
            "deletionTimestamp" not in first["metadata"]
            or policy == "Never"
            or (policy == "OnFailure" and last["status"]["phase"] == "Succeeded")
        )
        return max(finished, start) if for_good else max(finished, start, asked or 0)
    if kind != "DELETED":
        return None
    assert asked is not None
    node_lost = lost.get(last["spec"]["nodeName"])
    if node_lost is not None and start <= node_lost < asked:
        return node_lost
    return max(asked, start)
