"""Replays the exchanges that were recorded from a real Kubernetes 1.36 against the API server.

In order, as later exchanges depend on earlier ones; what the recording did between two exchanges
(registering nodes, binding, a kubelet's status) is done here through the API as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import KubeClient
from gpucloud_spawner.localcluster.controllers import Controllers
from gpucloud_spawner.localcluster.scheduler import Scheduler

RECORDING = Path(__file__).parents[1] / "data" / "kubernetes-1.36.json"
EXCHANGES: list[dict[str, Any]] = json.loads(RECORDING.read_text())["exchanges"]
PODS = "/api/v1/namespaces/t1/pods"
JOBS = "/apis/batch/v1/namespaces/t1/jobs"
CLAIM = "/api/v1/namespaces/t1/persistentvolumeclaims/home-a"

NOT_YET_IMPLEMENTED = {
    "quota-create": 501,
    "quota-status": 404,
    "deployment-create": 501,
    "deployment-get": 501,
    "deployment-scale": 501,
    "apply-create": 501,
    "access-review": 501,
}
# The request itself is served; the recorded answer is the effect of an object that is not.
NEEDS_AN_UNIMPLEMENTED_KIND = {
    "quota-exceeded": "the ResourceQuota of quota-create",
}
# Paths whose value (not whose presence) may differ, and why.
FREE_VALUES = {
    r"version\.(git\w+|buildDate|goVersion|compiler|platform)": "this is another program",
    r"core-groupversions\..*serverAddress": "another port",
    r".*\.columnDefinitions\[\d+\]\.description": "documentation that no client reads",
    r"pod-list-table\.rows\[\d+\]\.cells\[4\]": "an age in seconds",
    r"gpu-pod-running-events\.items\[0\]\.message": "either node is right",
    r"job-.*pods\.items\[\d\]\.spec\.nodeName": "either node is right",
    r"service-clusterip\.spec\.clusterIPs?(\[0\])?": "a random address",
}
# Names that the server made up.
GENERATED = [
    (r"gen-[a-z0-9]{5}", r"gen-[a-z0-9]{5}"),
    (r"e-[a-z0-9]{5}", r"e-[a-z0-9]{5}"),
    (r"(j\d-\d)-[a-z0-9]{5}", r"\1-[a-z0-9]{5}"),
    (r"(g-wait|g0|selector)\.[0-9a-f]+", r"\1\.[0-9a-f]+"),
    (r"default-scheduler-vm", r"default-scheduler-.+"),
]
GO_DIFF = re.compile(r"\n@@.*", re.DOTALL)  # a diff of Go structs follows the message


def differences(wanted: Any, got: Any, path: str) -> list[str]:
    """Where an answer is not what was recorded; `<...>` stands for anything but nothing."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        found = [f"{path}.{k}: missing" for k in wanted.keys() - got.keys()]
        found += [f"{path}.{k}: {got[k]!r} was not recorded" for k in got.keys() - wanted.keys()]
        for key in wanted.keys() & got.keys():
            found += differences(wanted[key], got[key], f"{path}.{key}")
        return found
    if isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        pairs = zip(wanted, got, strict=True)
        return [d for i, (w, g) in enumerate(pairs) for d in differences(w, g, f"{path}[{i}]")]
    return [] if _same(wanted, got, path) else [f"{path}: {got!r} instead of {wanted!r}"]


def _same(wanted: Any, got: Any, path: str) -> bool:
    if any(re.fullmatch(free, path) for free in FREE_VALUES):
        return bool(got is not None)
    if not isinstance(wanted, str) or not isinstance(got, str):
        return bool(wanted == got)
    if re.fullmatch("<[a-zA-Z]+>", wanted):
        return bool(got)
    for name, pattern in GENERATED:
        match = re.fullmatch(name, wanted)
        if match:
            return re.fullmatch(match.expand(pattern), got) is not None
    return GO_DIFF.sub("", wanted) == GO_DIFF.sub("", got)


def _without_tokens(value: Any) -> Any:
    """Without the volume of a service account's token, which no pod of the local cluster gets."""
    if isinstance(value, list):
        named = (isinstance(v, dict) and v.get("name", "") for v in value)
        pairs = zip(value, named, strict=True)
        return [_without_tokens(v) for v, n in pairs if not str(n).startswith("kube-api-access-")]
    if isinstance(value, dict):
        kept = {k: _without_tokens(v) for k, v in value.items()}
        emptied = {k for k in ("volumes", "volumeMounts") if kept.get(k) == [] and value[k]}
        return {k: v for k, v in kept.items() if k not in emptied}
    return value


class Replay:
    def __init__(self, server: APIServer, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http
        self.continue_token = ""
        self.version = ""

    async def call(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> Any:
        data = None if body is None else json.dumps(body)
        async with self.http.request(
            method, path, data=data, headers={"Content-Type": kind}
        ) as response:
            answer = await response.json()
            assert response.status < 300, answer
            return answer

    async def patch(self, path: str, body: Any, kind: str = "merge") -> Any:
        types = {"merge": "merge-patch", "strategic": "strategic-merge-patch"}
        return await self.call("PATCH", path, body, f"application/{types[kind]}+json")

    async def create_pod(self, name: str, **metadata: Any) -> None:
        recorded = next(e for e in EXCHANGES if e["id"] == "pod-create")["request"]["body"]
        await self.call("POST", PODS, {**recorded, "metadata": {"name": name, **metadata}})

    async def bind(self, name: str, node: str) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        await self.call("POST", f"{PODS}/{name}/binding", body)

    async def exchange(self, exchange: dict[str, Any]) -> list[str]:
        request, recorded = exchange["request"], exchange["response"]
        recorded["body"] = _without_tokens(recorded.get("body"))
        query = {k: v for k, v in (request.get("query") or {}).items()}
        if "continue" in query:
            query["continue"] = self.continue_token
        if "events" in recorded:
            number = len(recorded["events"])
            got = await self.events(exchange["id"], request["path"], query, number)
            return differences(recorded["events"], got, exchange["id"])
        headers = dict(request.get("headers") or {})
        if exchange["id"] == "unauthenticated":
            headers["Authorization"] = ""
        body = None if request.get("body") is None else json.dumps(request["body"])
        async with self.http.request(
            request["method"], request["path"], params=query, headers=headers, data=body
        ) as response:
            answer = json.loads(await response.text())
            found = differences(recorded["body"], answer, exchange["id"])
            if response.status != recorded["status"]:
                found.append(f"{exchange['id']}: status {response.status}")
            if response.headers.get("Warning") != recorded.get("warning"):
                found.append(f"{exchange['id']}: warning {response.headers.get('Warning')}")
            if response.content_type != recorded.get("content_type", "application/json"):
                found.append(f"{exchange['id']}: content type {response.content_type}")
        if isinstance(answer.get("metadata"), dict):
            self.continue_token = answer["metadata"].get("continue", "")
            self.version = answer["metadata"].get("resourceVersion", self.version)
        return found

    async def events(self, name: str, path: str, query: dict[str, str], number: int) -> list[Any]:
        if "resourceVersion" in query:
            query["resourceVersion"] = self.version
        changes = name == "watch-add-modify-delete"
        query["timeoutSeconds"] = "60" if changes else "1"
        async with self.http.get(path, params=query) as response:
            assert response.status == 200
            if not changes:
                return [json.loads(line) async for line in response.content]
            await self.during_the_watch()
            found = [json.loads(await response.content.readline()) for _ in range(number)]
            with contextlib.suppress(TimeoutError):  # and there are no more
                async with asyncio.timeout(0.5):
                    found.append(json.loads(await response.content.readline()))
            return found

    async def during_the_watch(self) -> None:
        await self.create_pod("w1", labels={"w": "1"})
        await self.bind("w1", "gpu-node-1")
        await self.create_pod("w2", labels={"w": "other"})
        await self.bind("w2", "gpu-node-1")
        await self.patch(f"{PODS}/w1", {"metadata": {"annotations": {"k": "v"}}})
        await self.call("DELETE", f"{PODS}/w1", {"gracePeriodSeconds": 0})

    # What happened between the exchanges.

    async def before_namespace_create(self) -> None:
        recorded = next(e for e in EXCHANGES if e["id"] == "node-list")["response"]["body"]
        for i in range(2):
            node = json.loads(
                json.dumps(recorded["items"][0]).replace("gpu-node-0", f"gpu-node-{i}")
            )
            node["metadata"] = {k: node["metadata"][k] for k in ("name", "labels")}
            del node["status"]["daemonEndpoints"], node["status"]["nodeInfo"]
            ready = node["status"]["conditions"][0]
            ready["lastTransitionTime"] = ready["lastHeartbeatTime"]
            await self.call("POST", "/api/v1/nodes", node)

    async def before_pod_get(self) -> None:
        pods = await self.call("GET", PODS)
        for pod in pods["items"]:
            await self.bind(pod["metadata"]["name"], "gpu-node-0")

    async def before_pod_running(self) -> None:
        recorded = next(e for e in EXCHANGES if e["id"] == "pod-running")["response"]["body"]
        status = json.loads(json.dumps(recorded["status"]))
        del status["conditions"][1], status["qosClass"], status["containerStatuses"][0]["lastState"]
        status["startTime"] = status["conditions"][0]["lastTransitionTime"] = "2026-11-23T07:30:16Z"
        await self.patch(f"{PODS}/a/status", {"status": status}, "strategic")

    async def before_pod_delete_finalizer(self) -> None:
        await self.bind("f", "gpu-node-0")

    async def before_storageclass_create(self) -> None:
        await self.call("DELETE", "/apis/storage.k8s.io/v1/storageclasses/ceph-rbd")

    async def before_pvc_bound(self) -> None:
        notes = {"bind-completed": "yes", "bound-by-controller": "yes"}
        annotations = {f"pv.kubernetes.io/{k}": v for k, v in notes.items()}
        change = {"metadata": {"annotations": annotations}, "spec": {"volumeName": "pv-home-a"}}
        await self.patch(CLAIM, change)
        size = {"storage": "10Gi"}
        status = {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": size}
        await self.patch(f"{CLAIM}/status", {"status": status})

    async def before_pvc_gone_after_pod(self) -> None:
        await self.patch(CLAIM, {"metadata": {"finalizers": None}})


# The words of the scheduler: replayed with ours beside the API server.
BY_THE_SCHEDULER = {
    "gpu-pod-pending",
    "gpu-pod-pending-events",
    "pod-no-such-node-events",
    "gpu-pod-running-events",
}
# The work of the Job controller, in the order in which it was recorded.
BY_THE_JOB_CONTROLLER = [e["id"] for e in EXCHANGES if e["id"].startswith("job-")]


async def test_the_recorded_exchanges(apiserver: APIServer, http: aiohttp.ClientSession) -> None:
    replay = Replay(apiserver, http)
    found: list[str] = []
    replayed = 0
    for exchange in EXCHANGES:
        name = exchange["id"]
        if name in NOT_YET_IMPLEMENTED or name in NEEDS_AN_UNIMPLEMENTED_KIND:
            continue
        if name in BY_THE_SCHEDULER or name in BY_THE_JOB_CONTROLLER:
            continue
        step: Callable[[], Awaitable[None]] | None
        step = getattr(replay, f"before_{name.replace('-', '_')}", None)
        if step is not None:
            await step()
        found += await replay.exchange(exchange)
        replayed += 1
    assert not found, "\n".join(found)
    skipped = NOT_YET_IMPLEMENTED.keys() | NEEDS_AN_UNIMPLEMENTED_KIND.keys()
    skipped |= BY_THE_SCHEDULER | set(BY_THE_JOB_CONTROLLER)
    assert replayed == len(EXCHANGES) - len(skipped) == 67


async def test_the_recorded_words_of_the_scheduler(
    apiserver: APIServer, http: aiohttp.ClientSession
) -> None:
    """Two nodes of two GPUs each are full; one more pod wants a GPU, another an unknown node."""
    replay = Replay(apiserver, http)
    by_id = {e["id"]: e for e in EXCHANGES}
    await replay.exchange(by_id["namespace-create"])
    await replay.before_namespace_create()
    wanting = by_id["gpu-pod-too-many"]["request"]["body"]
    async with (
        KubeClient.from_kubeconfig(str(apiserver.kubeconfig)) as client,
        Scheduler(client),
    ):
        for name in ("g0", "g1", "g2", "g3"):
            await replay.call("POST", PODS, {**wanting, "metadata": {"name": name}})
            await _until_told(replay, name)
        await replay.call("POST", PODS, wanting)
        nowhere = {**wanting["spec"], "nodeSelector": {"gpu": "none"}}
        body = {**wanting, "metadata": {"name": "selector"}, "spec": nowhere}
        await replay.call("POST", PODS, body)
        for name in ("g-wait", "selector"):
            await _until_told(replay, name)
        found = [d for name in BY_THE_SCHEDULER for d in await replay.exchange(by_id[name])]
    assert not found, "\n".join(found)


async def _until_told(replay: Replay, name: str) -> None:
    """Until the pod has a word of the scheduler in its status and in an event."""
    path = f"/api/v1/namespaces/t1/events?fieldSelector=involvedObject.name={name}"
    async with asyncio.timeout(10):
        while not (
            "conditions" in (await replay.call("GET", f"{PODS}/{name}"))["status"]
            and (await replay.call("GET", path))["items"]
        ):
            await asyncio.sleep(0.02)


class Jobs:
    """What was done to the Jobs between the recorded exchanges."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay

    async def pods(self, name: str) -> list[dict[str, Any]]:
        query = f"?labelSelector=batch.kubernetes.io/job-name={name}"
        return list((await self.replay.call("GET", PODS + query))["items"])

    async def bound(self, name: str) -> None:
        """Until its two pods have a node and the Job says that they are there."""
        async with asyncio.timeout(10):
            while [bool(p["spec"].get("nodeName")) for p in await self.pods(name)] != [True, True]:
                await asyncio.sleep(0.02)
        await self.until(name, active=2)

    async def until(self, name: str, **status: int) -> None:
        async with asyncio.timeout(10):
            while True:
                now = (await self.replay.call("GET", f"{JOBS}/{name}"))["status"]
                if all(now.get(k) == v for k, v in status.items()):
                    return
                await asyncio.sleep(0.02)

    async def end(self, name: str, index: int, phase: str) -> None:
        """What the recording wrote in the place of a kubelet."""
        pod = (await self.pods(name))[index]
        recorded = next(e for e in EXCHANGES if e["id"] == "job-success-policy-pods")
        status = dict(recorded["response"]["body"]["items"][0]["status"])
        status = {k: status[k] for k in ("containerStatuses",)}
        status |= {"phase": phase, "startTime": "2026-11-23T07:30:33Z"}
        path = f"{PODS}/{pod['metadata']['name']}/status"
        await self.replay.patch(path, {"status": status}, "strategic")

    async def like_the_first(self, name: str, **spec: Any) -> None:
        recorded = next(e for e in EXCHANGES if e["id"] == "job-create-indexed")
        text = json.dumps(recorded["request"]["body"]).replace('"j1"', f'"{name}"')
        body = json.loads(text)
        body["spec"] |= spec
        await self.replay.call("POST", JOBS, body)
        await self.bound(name)

    async def before_job_pods(self) -> None:
        await self.bound("j1")

    async def before_job_complete(self) -> None:
        for index in (0, 1):
            await self.end("j1", index, "Succeeded")
        await self.until("j1", terminating=0, succeeded=2, active=None)  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            while len((await self.replay.call("GET", f"{JOBS}/j1"))["status"]["conditions"]) < 2:
                await asyncio.sleep(0.02)

    async def before_job_success_policy(self) -> None:
        await self.like_the_first("j2", successPolicy={"rules": [{"succeededIndexes": "0"}]})
        await self.end("j2", 0, "Succeeded")
        await self.until("j2", terminating=1)

    async def before_job_success_policy_pods(self) -> None:
        async with asyncio.timeout(10):
            while any("finalizers" in p["metadata"] for p in await self.pods("j2")):
                await asyncio.sleep(0.02)

    async def before_job_failed(self) -> None:
        await self.like_the_first("j3")
        await self.end("j3", 0, "Failed")
        await self.until("j3", failed=2, terminating=1)


async def test_the_recorded_jobs(apiserver: APIServer, http: aiohttp.ClientSession) -> None:
    replay = Replay(apiserver, http)
    by_id = {e["id"]: e for e in EXCHANGES}
    await replay.exchange(by_id["namespace-create"])
    await replay.before_namespace_create()
    jobs, found = Jobs(replay), []
    async with (
        KubeClient.from_kubeconfig(str(apiserver.kubeconfig)) as client,
        Scheduler(client),
        Controllers(client),
    ):
        for name in BY_THE_JOB_CONTROLLER:
            step = getattr(jobs, f"before_{name.replace('-', '_')}", None)
            if step is not None:
                await step()
            found += await replay.exchange(by_id[name])
    assert not found, "\n".join(found)
    assert len(BY_THE_JOB_CONTROLLER) == 10


@pytest.mark.parametrize("name", NOT_YET_IMPLEMENTED)
async def test_what_is_not_implemented_says_so(name: str, http: aiohttp.ClientSession) -> None:
    request = next(e for e in EXCHANGES if e["id"] == name)["request"]
    async with http.request(
        request["method"],
        request["path"],
        params=request.get("query"),
        headers=request.get("headers"),
        data=json.dumps(request.get("body")),
    ) as response:
        status = await response.json()
    assert response.status == NOT_YET_IMPLEMENTED[name]
    if response.status == 404:
        assert status["message"] == "the server could not find the requested resource"
        return
    assert (status["kind"], status["reason"]) == ("Status", "NotImplemented")
    plurals = ("resourcequotas", "deployments", "selfsubjectaccessreviews", "configmaps")
    part = next(p for p in plurals if p in request["path"])
    assert ("server-side apply" if name == "apply-create" else part) in status["message"]
