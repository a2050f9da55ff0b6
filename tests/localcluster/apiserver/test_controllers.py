"""The controllers against the API server: namespaces, claims, owners, lost nodes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import KubeClient
from gpucloud_spawner.localcluster.controllers import Controllers, Periods
from tests.localcluster.apiserver.conftest import PODS, Api, pod

MAPS = "/api/v1/namespaces/default/configmaps"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
VOLUMES = "/api/v1/persistentvolumes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
GRACE = 3.0  # seconds of silence until a node counts as lost


@pytest.fixture
async def controllers(apiserver: APIServer) -> AsyncIterator[Controllers]:
    periods = Periods(node_grace=GRACE, node_quarantine=0.2)
    async with (
        KubeClient.from_kubeconfig(str(apiserver.kubeconfig)) as client,
        Controllers(client, periods) as controllers,
    ):
        yield controllers


async def eventually(condition: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    """The first true value of a condition."""
    async with asyncio.timeout(seconds):
        while not (value := await condition()):
            await asyncio.sleep(0.02)
    return value


async def gone(api: Api, path: str) -> bool:
    return (await api.call("GET", path))[0] == 404


async def owned(api: Api, name: str, *owners: dict[str, Any], **metadata: Any) -> Any:
    references = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": True,
        }
        for owner in owners
    ]
    meta = {"name": name, "ownerReferences": references, **metadata}
    return await api.ok("POST", MAPS, {"metadata": meta})


async def claim(api: Api, name: str = "c", **spec: Any) -> Any:
    size = {"requests": {"storage": "1Gi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": size, **spec}
    return await api.ok("POST", CLAIMS, {"metadata": {"name": name}, "spec": spec})


async def bound(api: Api, name: str = "c", size: str = "1Gi") -> Any:
    async def check() -> Any:
        found = await api.ok("GET", f"{CLAIMS}/{name}")
        ready = found["status"].get("capacity") == {"storage": size}
        return found if ready and found["status"]["phase"] == "Bound" else None

    return await eventually(check)


async def test_a_namespace_ends_with_its_content(api: Api, controllers: Controllers) -> None:
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "x"}})
    await eventually(lambda: api.names("/api/v1/namespaces/x/serviceaccounts"))
    held = {"metadata": {"name": "m", "finalizers": ["example.org/hold"]}}
    await api.ok("POST", "/api/v1/namespaces/x/configmaps", held)
    await api.ok("POST", "/api/v1/namespaces/x/pods", pod("p"))
    await api.ok("DELETE", "/api/v1/namespaces/x")
    await eventually(lambda: gone(api, "/api/v1/namespaces/x/pods/p"))
    assert (await api.ok("GET", "/api/v1/namespaces/x"))["status"]["phase"] == "Terminating"
    await api.patch("/api/v1/namespaces/x/configmaps/m", {"metadata": {"finalizers": []}})
    await eventually(lambda: gone(api, "/api/v1/namespaces/x"))
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "x"}})


async def test_a_claim_gets_a_volume_grows_and_takes_it_along(
    api: Api, controllers: Controllers
) -> None:
    await claim(api)
    found = await bound(api)
    path = f"{VOLUMES}/{found['spec']['volumeName']}"
    volume = await api.ok("GET", path)
    assert volume["spec"]["claimRef"]["uid"] == found["metadata"]["uid"]
    assert volume["spec"]["capacity"] == {"storage": "1Gi"}
    await api.patch(f"{CLAIMS}/c", {"spec": {"resources": {"requests": {"storage": "3Gi"}}}})
    await bound(api, size="3Gi")
    volume = await api.ok("GET", path)
    assert (volume["spec"]["capacity"], volume["status"]["phase"]) == ({"storage": "3Gi"}, "Bound")
    await api.ok("DELETE", f"{CLAIMS}/c")
    await eventually(lambda: gone(api, path))
    assert await gone(api, f"{CLAIMS}/c")


async def test_a_retained_volume_is_released(api: Api, controllers: Controllers) -> None:
    body = {"metadata": {"name": "keep"}, "provisioner": "x.example.org", "reclaimPolicy": "Retain"}
    await api.ok("POST", CLASSES, body)
    await claim(api, storageClassName="keep")
    path = f"{VOLUMES}/{(await bound(api))['spec']['volumeName']}"
    await api.ok("DELETE", f"{CLAIMS}/c")

    async def released() -> bool:
        return bool((await api.ok("GET", path))["status"]["phase"] == "Released")

    await eventually(released)


async def test_a_claim_waits_for_its_class(api: Api, controllers: Controllers) -> None:
    await claim(api, storageClassName="later")

    async def told() -> Any:
        query = {"fieldSelector": "involvedObject.name=c,reason=ProvisioningFailed"}
        return (await api.ok("GET", "/api/v1/namespaces/default/events", **query))["items"]

    message = (await eventually(told))[0]["message"]
    assert message == 'storageclass.storage.k8s.io "later" not found'
    await api.ok("POST", CLASSES, {"metadata": {"name": "later"}, "provisioner": "x.example.org"})
    await bound(api)


async def test_a_claim_waits_for_its_first_consumer(api: Api, controllers: Controllers) -> None:
    body = {
        "metadata": {"name": "slow"},
        "provisioner": "x.example.org",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    await api.ok("POST", CLASSES, body)
    await claim(api, storageClassName="slow")
    await claim(api, "other")
    await bound(api, "other")
    assert (await api.ok("GET", f"{CLAIMS}/c"))["status"]["phase"] == "Pending"
    chosen = {"volume.kubernetes.io/selected-node": "n0"}
    await api.patch(f"{CLAIMS}/c", {"metadata": {"annotations": chosen}})
    await bound(api)


async def test_a_claim_in_use_is_protected(api: Api, controllers: Controllers) -> None:
    await node(api)
    await claim(api)
    await bound(api)
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
    await api.create_pod("a", volumes=[volume])
    await api.bind("a")
    await api.ok("DELETE", f"{CLAIMS}/c")
    await claim(api, "other")
    await bound(api, "other")  # the controller has been through its queue
    assert (await api.ok("GET", f"{CLAIMS}/c"))["metadata"]["deletionTimestamp"]
    await api.ok("DELETE", f"{PODS}/a", gracePeriodSeconds="0")
    await eventually(lambda: gone(api, f"{CLAIMS}/c"))


async def test_dependents_go_in_the_background(api: Api, controllers: Controllers) -> None:
    first = await owned(api, "first")
    second = await owned(api, "second")
    middle = await owned(api, "middle", first)
    await owned(api, "leaf", middle)
    await owned(api, "shared", first, second)
    await api.ok("DELETE", f"{MAPS}/first")
    await eventually(lambda: gone(api, f"{MAPS}/leaf"))
    assert await gone(api, f"{MAPS}/middle")

    async def one_owner_left() -> bool:
        shared = await api.ok("GET", f"{MAPS}/shared")
        return [o["name"] for o in shared["metadata"]["ownerReferences"]] == ["second"]

    await eventually(one_owner_left)


async def test_an_owner_in_the_foreground_goes_last(api: Api, controllers: Controllers) -> None:
    owner = await owned(api, "owner")
    await owned(api, "held", owner, finalizers=["example.org/hold"])
    answer = await api.ok("DELETE", f"{MAPS}/owner", {"propagationPolicy": "Foreground"})
    assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]

    async def ending() -> bool:
        held = await api.ok("GET", f"{MAPS}/held")
        return "deletionTimestamp" in held["metadata"]

    await eventually(ending)
    assert not await gone(api, f"{MAPS}/owner")
    await api.patch(f"{MAPS}/held", {"metadata": {"finalizers": []}})
    await eventually(lambda: gone(api, f"{MAPS}/owner"))


async def test_orphans_stay(api: Api, controllers: Controllers) -> None:
    owner = await owned(api, "owner")
    await owned(api, "orphan", owner)
    await api.ok("DELETE", f"{MAPS}/owner", {"propagationPolicy": "Orphan"})
    await eventually(lambda: gone(api, f"{MAPS}/owner"))
    orphan = await api.ok("GET", f"{MAPS}/orphan")
    assert "ownerReferences" not in orphan["metadata"]


async def test_an_owner_of_the_same_name_is_not_the_owner(
    api: Api, controllers: Controllers
) -> None:
    stranger = {"metadata": {"name": "owner", "uid": "of-an-earlier-one"}}
    await owned(api, "owner")
    await owned(api, "late", stranger)
    await eventually(lambda: gone(api, f"{MAPS}/late"))
    assert not await gone(api, f"{MAPS}/owner")


async def test_an_owner_of_a_kind_not_served_is_left_alone(
    api: Api, controllers: Controllers
) -> None:
    other = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u"}
    await api.ok("POST", MAPS, {"metadata": {"name": "m", "ownerReferences": [other]}})
    gone_owner = {"metadata": {"name": "none", "uid": "none"}}
    await owned(api, "probe", gone_owner)
    await eventually(lambda: gone(api, f"{MAPS}/probe"))  # judged after m
    assert not await gone(api, f"{MAPS}/m")


async def node(api: Api, name: str = "n0") -> None:
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    body = {"metadata": {"name": name}, "status": {"conditions": [ready]}}
    await api.ok("POST", "/api/v1/nodes", body)


async def renew(api: Api, name: str = "n0") -> None:
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    await api.patch(f"{LEASES}/{name}", {"spec": {"renewTime": time}})


async def test_a_silent_node_is_tainted_its_pods_evicted_and_it_may_come_back(
    api: Api, controllers: Controllers
) -> None:
    await node(api)
    await api.ok("POST", LEASES, {"metadata": {"name": "n0"}, "spec": {"holderIdentity": "n0"}})
    taint = {"operator": "Exists", "effect": "NoExecute"}
    short = {"key": "node.kubernetes.io/unreachable", "tolerationSeconds": 0, **taint}
    await api.create_pod("leaves", tolerations=[short])
    await api.create_pod("stays")
    for name in ("leaves", "stays"):
        await api.bind(name)
        await api.status(name, phase="Running", conditions=[{"type": "Ready", "status": "True"}])

    async def ready() -> dict[str, Any]:
        found = await api.ok("GET", "/api/v1/nodes/n0")
        return {c["type"]: c for c in found["status"]["conditions"]}["Ready"]

    began = time.monotonic()
    async with asyncio.timeout(30):
        # while it is heard it is well, however long that is
        while time.monotonic() < began + 1.2 * GRACE:
            await renew(api)
            await asyncio.sleep(0.2)
    assert (await ready())["status"] == "True"

    async def lost() -> bool:
        return (await ready())["status"] == "Unknown"

    await eventually(lost)
    assert (await ready())["reason"] == "NodeStatusUnknown"
    assert (await ready())["message"] == "Kubelet stopped posting node status."

    async def evicted() -> bool:
        found = await api.ok("GET", f"{PODS}/leaves")
        return "deletionTimestamp" in found["metadata"]

    await eventually(evicted)
    taints = (await api.ok("GET", "/api/v1/nodes/n0"))["spec"]["taints"]
    assert [(t["key"], t["effect"]) for t in taints] == [
        ("node.kubernetes.io/unreachable", "NoSchedule"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
    ]
    stays = await api.ok("GET", f"{PODS}/stays")
    assert "deletionTimestamp" not in stays["metadata"]
    assert stays["status"]["conditions"][0]["status"] == "False"
    await renew(api)
    back = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    await api.patch("/api/v1/nodes/n0/status", {"status": {"conditions": [back]}}, "strategic")

    async def untainted() -> bool:
        return "taints" not in (await api.ok("GET", "/api/v1/nodes/n0"))["spec"]

    await eventually(untainted)


async def test_pods_of_a_node_that_is_gone_are_ended(api: Api, controllers: Controllers) -> None:
    await node(api)
    await api.create_pod("a", terminationGracePeriodSeconds=600)
    await api.bind("a")
    await api.ok("DELETE", "/api/v1/nodes/n0")
    await eventually(lambda: gone(api, f"{PODS}/a"))
