"""The scheduler against a real API server: binding, waiting, retrying, in which order, in which
words. The nodes here are only objects; nothing runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.apiserver.resources import served
from gpucloud_spawner.localcluster.scheduler import Scheduler

from .support import NAMESPACE, Cluster, Obj, api, bound_claim, condition, gpus, pod

RECORDING = Path(__file__).parent / "data" / "kubernetes-1.36.json"


def node(name: str, gpu: int = 2, **spec: Any) -> Obj:
    room = {"cpu": "16", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": str(gpu)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {"capacity": room, "allocatable": room},
    }


@pytest.fixture
async def cluster(apiserver: APIServer, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with api(apiserver, tmp_path) as cluster, Scheduler(cluster.client):
        yield cluster


async def add_node(cluster: Cluster, name: str, gpu: int = 2, **spec: Any) -> None:
    """As a kubelet does: the object, then its status; and no not-ready taint once it is ready."""
    body = node(name, gpu, **spec)
    await cluster.client.create("nodes", body)
    await cluster.client.patch_status("nodes", name, {"status": body["status"]})
    await cluster.client.patch("nodes", name, {"spec": {"taints": spec.get("taints")}})


def bound(obj: Obj) -> bool:
    return bool(obj["spec"].get("nodeName"))


def told(obj: Obj) -> str:
    found = condition(obj, "PodScheduled")
    return str(found.get("message", "")) if found.get("status") == "False" else ""


async def full_node(cluster: Cluster, *waiting: str) -> None:
    """A node whose GPU is held by `holder`, and who waits for it, in this order."""
    await add_node(cluster, "n", gpu=1)
    await cluster.create(pod("holder", "true", container=gpus(1)))
    await cluster.until("holder", bound)
    for name in waiting:
        await cluster.create(pod(name, "true", container=gpus(1)))
        await cluster.until(name, told)


async def end(cluster: Cluster, name: str) -> None:
    """What a kubelet reports of a pod that has ended."""
    await cluster.client.patch_status("pods", name, {"status": {"phase": "Succeeded"}}, NAMESPACE)


def recorded(exchange: str) -> Obj:
    exchanges = json.loads(RECORDING.read_text())["exchanges"]
    return next(e for e in exchanges if e["id"] == exchange)["response"]["body"]


async def test_binds_and_says_so(cluster: Cluster) -> None:
    await add_node(cluster, "gpu-node-0")
    await cluster.create(pod("a", "true", container=gpus(1)))
    obj = await cluster.until("a", bound)
    assert obj["spec"]["nodeName"] == "gpu-node-0"
    assert condition(obj, "PodScheduled")["status"] == "True"
    event = await cluster.event("a", "Scheduled")
    expected = recorded("gpu-pod-running-events")["items"][0]
    assert event["message"] == f"Successfully assigned {NAMESPACE}/a to gpu-node-0"
    for name in ("source", "firstTimestamp", "lastTimestamp", "type", "action"):
        assert event[name] == expected[name], name
    assert event["reportingComponent"] == "default-scheduler"
    assert event["eventTime"]
    base, _, suffix = event["metadata"]["name"].rpartition(".")
    assert base == "a"
    assert len(suffix) == len(expected["metadata"]["name"].rpartition(".")[2])
    int(suffix, 16)


async def test_a_full_cluster_in_the_recorded_words(cluster: Cluster) -> None:
    for number in range(2):
        await add_node(cluster, f"n{number}")
        await cluster.create(pod(f"p{number}", "true", container=gpus(2)))
        await cluster.until(f"p{number}", bound)
    await cluster.create(pod("g-wait", "true", container=gpus(1)))
    obj = await cluster.until("g-wait", told)
    expected = recorded("gpu-pod-pending")["status"]["conditions"][0]
    actual = condition(obj, "PodScheduled")
    for name in expected.keys() - {"lastTransitionTime"}:
        assert actual[name] == expected[name], name
    assert obj["status"]["phase"] == "Pending"
    event = await cluster.event("g-wait", "FailedScheduling")
    recorded_event = recorded("gpu-pod-pending-events")["items"][0]
    for name in ("message", "type", "action", "source", "firstTimestamp", "reportingComponent"):
        assert event[name] == recorded_event[name], name


async def test_no_such_node_in_the_recorded_words(cluster: Cluster) -> None:
    for number in range(2):
        await add_node(cluster, f"n{number}")
    await cluster.create(pod("selector", "true", nodeSelector={"no": "such"}))
    event = await cluster.event("selector", "FailedScheduling")
    message = recorded("pod-no-such-node-events")["items"][0]["message"]
    obj = await cluster.until("selector", lambda p: told(p) == message)
    assert condition(obj, "PodScheduled")["reason"] == "Unschedulable"
    assert event["reason"] == "FailedScheduling"


async def test_waiting_pods_go_in_order_of_priority_then_age(cluster: Cluster) -> None:
    await full_node(cluster, "first", "second")
    await cluster.create(pod("urgent", "true", container=gpus(1), priority=1000))
    await cluster.until("urgent", told)
    previous = "holder"
    for name in ("urgent", "first", "second"):
        await end(cluster, previous)
        await cluster.until(name, bound)
        later = [n for n in ("first", "second") if n != name and n != previous]
        store = (await cluster.informer("pods")).store
        if name == "urgent":
            assert not any(bound(store[f"{NAMESPACE}/{n}"]) for n in later)
        previous = name


async def test_a_big_request_does_not_block_a_small_one(cluster: Cluster) -> None:
    await add_node(cluster, "n")
    await cluster.create(pod("one", "true", container=gpus(1)))
    await cluster.until("one", bound)
    await cluster.create(pod("two", "true", container=gpus(2)))
    await cluster.until("two", told)
    await cluster.create(pod("small", "true", container=gpus(1)))
    await cluster.until("small", bound)


async def test_a_terminating_pod_holds_its_gpus_until_it_is_gone(cluster: Cluster) -> None:
    await add_node(cluster, "n", gpu=1)
    await cluster.create(pod("old", "true", container=gpus(1)))
    await cluster.until("old", bound)
    await cluster.create(pod("new", "true", container=gpus(1)))
    await cluster.until("new", told)
    await cluster.delete("old", grace=30)
    await cluster.until("old", lambda p: p["metadata"].get("deletionTimestamp"))
    # A pod that can be placed is placed before anything else would happen to the waiting one.
    await cluster.create(pod("probe", "true"))
    await cluster.until("probe", bound)
    assert not bound(await cluster.client.get("pods", "new", NAMESPACE))
    await cluster.delete("old", grace=0)
    await cluster.until("new", bound)


async def test_a_new_node_or_an_untainted_one_takes_waiting_pods(cluster: Cluster) -> None:
    await cluster.create(pod("a", "true"))
    obj = await cluster.until("a", told)
    assert told(obj) == "no nodes available to schedule pods"
    taint = {"key": "maintenance", "effect": "NoSchedule"}
    await add_node(cluster, "n", taints=[taint])
    await cluster.until("a", lambda p: "untolerated taint(s)" in told(p))
    await cluster.client.patch("nodes", "n", {"spec": {"taints": None}})
    await cluster.until("a", bound)


async def test_a_cordoned_node_is_left_alone(cluster: Cluster) -> None:
    await add_node(cluster, "n", unschedulable=True)
    await cluster.create(pod("a", "true"))
    await cluster.until("a", lambda p: "were unschedulable" in told(p))
    await cluster.client.patch("nodes", "n", {"spec": {"unschedulable": None}})
    await cluster.until("a", bound)


async def test_a_missing_claim_is_waited_for(cluster: Cluster) -> None:
    await add_node(cluster, "n")
    volumes = [{"name": "home", "persistentVolumeClaim": {"claimName": "home-a"}}]
    await cluster.create(pod("a", "true", volumes=volumes))
    obj = await cluster.until("a", told)
    assert told(obj).startswith(
        '0/1 nodes are available: persistentvolumeclaim "home-a" not found. '
    )
    await cluster.create(bound_claim("home-a")[0])
    await cluster.until("a", bound)
    claim = await cluster.client.get("persistentvolumeclaims", "home-a", NAMESPACE)
    assert claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] == "n"


async def test_gates_other_schedulers_and_preset_nodes(cluster: Cluster) -> None:
    await add_node(cluster, "n", gpu=1)
    gated = pod("gated", "true", schedulingGates=[{"name": "example.org/quota"}])
    await cluster.create(gated)
    await cluster.create(pod("other", "true", schedulerName="mine"))
    # A pod that names its node needs no scheduler, but holds what it asks for.
    await cluster.create(pod("preset", "true", container=gpus(1), nodeName="n"))
    await cluster.until("preset", bound)
    await cluster.create(pod("waits", "true", container=gpus(1)))
    await cluster.until("waits", told)
    other = await cluster.client.get("pods", "other", NAMESPACE)
    assert not bound(other)
    assert not condition(other, "PodScheduled")
    waiting = await cluster.client.get("pods", "gated", NAMESPACE)
    assert condition(waiting, "PodScheduled")["reason"] == "SchedulingGated"
    patch = {"spec": {"schedulingGates": None}}
    await cluster.client.patch("pods", "gated", patch, NAMESPACE)
    await cluster.until("gated", bound)


async def test_one_pod_that_cannot_be_understood_does_not_stop_the_others(
    cluster: Cluster, apiserver: APIServer, caplog: pytest.LogCaptureFixture
) -> None:
    await add_node(cluster, "n")
    required = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "x"}]}]}
    rule = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    broken = await cluster.client.create("pods", pod("broken", "true"), NAMESPACE)
    await cluster.until("broken", bound)
    await end(cluster, "broken")
    # Our API server refuses this one: it stands for what another one lets pass.
    broken["metadata"] |= {"name": "worse", "uid": "worse"}
    broken["spec"] = {**broken["spec"], "affinity": rule}
    broken.pop("kind")
    broken.pop("apiVersion")
    apiserver._store.create(served("pods"), broken)
    obj = await cluster.until("worse", told)
    assert condition(obj, "PodScheduled")["reason"] == "SchedulerError"
    await cluster.create(pod("fine", "true"))
    await cluster.until("fine", bound)
    assert "pod worse cannot be scheduled" in caplog.text


async def test_it_goes_on_after_an_outage_of_the_api(
    cluster: Cluster, apiserver: APIServer
) -> None:
    await add_node(cluster, "n")
    await cluster.create(pod("before", "true", container=gpus(1)))
    await cluster.until("before", bound)
    await apiserver.stop()
    await apiserver.start()
    await cluster.create(pod("after", "true", container=gpus(1)))
    await cluster.until("after", bound)
    await cluster.create(pod("waits", "true", container=gpus(1)))
    await cluster.until("waits", told)


async def test_a_waiting_pod_that_is_deleted_is_forgotten(cluster: Cluster) -> None:
    await full_node(cluster, "first", "second")
    await cluster.delete("first")
    await cluster.gone("first")
    await end(cluster, "holder")
    await cluster.until("second", bound)
