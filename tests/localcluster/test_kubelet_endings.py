"""Pods as real processes on a real API server: probes, hooks, endings, and the node they are on."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path

import psutil
import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import ApiError

from .support import (
    NAMESPACE,
    Cluster,
    condition,
    everything,
    first_line,
    gpus,
    is_ready,
    mount,
    nodes,
    pod,
    processes_with,
    shell,
    state_of,
    terminated,
)

# Probes and hooks


async def test_readiness_follows_the_probe(cluster: Cluster) -> None:
    probe = {
        "exec": {"command": ["test", "-e", "/v/up"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    container = {
        "readinessProbe": probe,
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    }
    volumes = [{"name": "v", "emptyDir": {}}]
    await cluster.started(pod("a", "sleep", "60", container=container, volumes=volumes))
    event = await cluster.event("a", "Unhealthy")
    assert event["message"].startswith("Readiness probe failed:")
    obj = await cluster.until("a", lambda p: state_of(p).get("started"))
    assert not state_of(obj)["ready"]
    assert condition(obj, "Ready")["reason"] == "ContainersNotReady"
    up = cluster.data / "kubelet/pods" / obj["metadata"]["uid"] / "volumes/v/up"
    up.touch()
    await cluster.until("a", is_ready)
    up.unlink()
    await cluster.until("a", lambda p: not is_ready(p))


async def test_a_failed_liveness_probe_restarts(cluster: Cluster) -> None:
    probe = {"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1}
    a_pod = shell("a", "trap '' TERM; sleep 60", container={"livenessProbe": probe})
    a_pod["spec"] |= {"restartPolicy": "Always", "terminationGracePeriodSeconds": 0}
    await cluster.create(a_pod)
    obj = await cluster.until("a", lambda p: state_of(p).get("restartCount", 0) >= 1)
    assert state_of(obj)["lastState"]["terminated"]["exitCode"] == 137
    events = (await cluster.informer("events")).store.values()
    messages = {e["message"] for e in events if e["involvedObject"]["name"] == "a"}
    assert "Container c failed liveness probe, will be restarted" in messages
    assert any("connect: connection refused" in m for m in messages)


async def test_a_startup_probe_holds_the_others_back(cluster: Cluster) -> None:
    container = {
        "startupProbe": {"exec": {"command": ["test", "-e", "up"]}, "periodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1},
    }
    await cluster.create(shell("a", "sleep 0.3; touch up; exec sleep 60", container=container))
    obj = await cluster.phase("a", "Running")
    assert (state_of(obj)["started"], state_of(obj)["ready"]) == (False, False)
    obj = await cluster.until("a", is_ready)
    assert state_of(obj)["started"]


# Ending


async def test_delete_gives_the_grace_period_and_no_more(cluster: Cluster) -> None:
    script = "trap 'echo saving > /v/saved; exit 0' TERM; while :; do sleep 0.02; done"
    await cluster.claim("v")
    volume = mount("/v", {"persistentVolumeClaim": {"claimName": "v"}})
    await cluster.started(shell("polite", script, **volume))
    await cluster.started(shell("stubborn", "trap '' TERM; echo up; while :; do sleep 0.02; done"))
    await first_line(cluster, "stubborn")
    await cluster.delete("polite")
    await cluster.gone("polite")
    assert await cluster.output(shell("after", "cat /v/saved", **volume)) == "saving\n"
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await cluster.delete("stubborn", grace=1)
    obj = await cluster.until("stubborn", lambda p: p["metadata"].get("deletionTimestamp"))
    assert obj["status"]["phase"] == "Running"
    await cluster.gone("stubborn")
    assert 1 <= loop.time() - begun < 10  # without it, a pod has 30
    message = (await cluster.event("stubborn", "Killing"))["message"]
    assert message == "Stopping container c"


async def test_the_last_status_tells_how_it_ended(cluster: Cluster) -> None:
    body = shell("a", "trap 'exit 9' TERM; echo up; while :; do sleep 0.02; done")
    body["metadata"]["finalizers"] = ["example.org/keep"]
    await cluster.started(body)
    await first_line(cluster, "a")
    await cluster.delete("a")
    obj = await cluster.phase("a", "Failed")
    assert terminated(obj)["exitCode"] == 9
    patch = {"metadata": {"finalizers": None}}
    # The kubelet's own delete may still be on its way; the name goes once both have happened.
    await cluster.client.patch("pods", "a", patch, NAMESPACE)
    await cluster.gone("a")


async def test_a_shorter_grace_period_overrules(cluster: Cluster) -> None:
    await cluster.started(shell("a", "trap '' TERM; echo up; while :; do sleep 0.02; done"))
    await first_line(cluster, "a")
    await cluster.delete("a", grace=60)
    await cluster.event("a", "Killing")
    await cluster.delete("a", grace=1)
    await cluster.gone("a")


async def test_a_pre_stop_hook_runs_first(cluster: Cluster) -> None:
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /v/order"]}}}
    container = {"lifecycle": hook, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    await cluster.claim("v")
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "v"}}]
    script = "trap 'echo term >> /v/order; exit' TERM; echo up; while :; do sleep 0.02; done"
    await cluster.started(shell("a", script, container=container, volumes=volumes))
    await first_line(cluster, "a")
    await cluster.delete("a")
    await cluster.gone("a")
    reader = {"volumeMounts": container["volumeMounts"]}
    after = shell("b", "cat /v/order", container=reader, volumes=volumes)
    assert await cluster.output(after) == "hook\nterm\n"


async def test_nothing_stays_of_a_deleted_pod(cluster: Cluster) -> None:
    body = shell("a", "(setsid sleep 61 &); sleep 61 & exec sleep 61")
    obj = await cluster.started(body)
    uid = obj["metadata"]["uid"]
    async with asyncio.timeout(5):
        while len(processes_with(uid)) < 4:  # three sleeps and the shim
            await asyncio.sleep(0.02)
    await cluster.delete("a", grace=0)
    await cluster.gone("a")
    async with asyncio.timeout(5):
        while processes_with(uid) or (cluster.data / "kubelet/pods" / uid).exists():
            await asyncio.sleep(0.02)


async def test_logs_are_followed_through_the_api(cluster: Cluster) -> None:
    script = "echo one; while [ ! -e go ]; do sleep 0.02; done; echo two; exit 0"
    obj = await cluster.started(shell("a", script))
    home = cluster.data / "kubelet/pods" / obj["metadata"]["uid"] / "home/c"
    text = b""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/a/log"
    async with asyncio.timeout(10):
        async with cluster.client.open("GET", path, params={"follow": "true"}) as response:
            async for chunk in response.content.iter_any():
                text += chunk
                if text == b"one\n":
                    (home / "go").touch()
    assert text == b"one\ntwo\n"
    assert await cluster.logs("a", tailLines="1") == "two\n"
    with pytest.raises(ApiError, match="not valid for pod"):
        await cluster.logs("a", container="zzz")


# Nodes


async def test_the_node_object(apiserver: APIServer, tmp_path: Path) -> None:
    async with everything(apiserver, tmp_path, 2) as cluster:
        obj = await cluster.until(
            "node-1",
            lambda n: n["status"]["conditions"][-1]["status"] == "True",
            resource="nodes",
        )
        assert obj["status"]["allocatable"]["nvidia.com/gpu"] == "2"
        labels = obj["metadata"]["labels"]
        assert labels["nvidia.com/gpu.product"] == "NVIDIA-FAKE-GPU"
        assert labels["nvidia.com/gpu.count"] == "2"
        assert labels["kubernetes.io/hostname"] == "node-1"
        address = obj["status"]["addresses"][0]
        assert address["type"] == "InternalIP"
        network = ipaddress.ip_network(obj["spec"]["podCIDR"])
        assert network.is_loopback
        assert address["address"] == str(network[1])
        other = await cluster.client.get("nodes", "node-0")
        assert not network.overlaps(ipaddress.ip_network(other["spec"]["podCIDR"]))
        # An administrator's label and cordon survive a restart of the kubelet.
        patch = {"metadata": {"labels": {"mine": "1"}}, "spec": {"unschedulable": True}}
        await cluster.client.patch("nodes", "node-1", patch)
        lease = await cluster.informer("leases")
        async with asyncio.timeout(5):
            while "kube-node-lease/node-1" not in lease.store:
                await asyncio.sleep(0.01)
    async with everything(apiserver, tmp_path, 2) as cluster:
        obj = await cluster.client.get("nodes", "node-1")
        assert obj["metadata"]["labels"]["mine"] == "1"
        assert obj["spec"]["unschedulable"]


async def test_the_data_of_another_cluster_is_refused(apiserver: APIServer, tmp_path: Path) -> None:
    async with everything(apiserver, tmp_path):
        pass
    async with APIServer(tmp_path / "other") as other:
        with pytest.raises(RuntimeError, match="belongs to another cluster"):
            async with everything(other, tmp_path):
                pass


async def test_a_shutdown_is_like_a_reboot(apiserver: APIServer, tmp_path: Path) -> None:
    long = "trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done"
    async with everything(apiserver, tmp_path) as cluster:
        for name, policy in (("never", "Never"), ("failure", "OnFailure")):
            await cluster.started(shell(name, long, restartPolicy=policy, container=gpus(1)))
            await first_line(cluster, name)
        before = await cluster.client.get("pods", "failure", NAMESPACE)
    assert processes_with(str(tmp_path)) == []
    async with everything(apiserver, tmp_path) as cluster:
        assert (await cluster.phase("never", "Failed"))["status"]["phase"] == "Failed"
        after = await cluster.until("failure", lambda p: state_of(p).get("restartCount") == 1)
        after = await cluster.until("failure", is_ready)
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        last = state_of(after)["lastState"]["terminated"]
        assert (last["reason"], last["exitCode"]) == ("Unknown", 255)
        assert after["status"]["podIP"] == before["status"]["podIP"]


async def test_pods_deleted_while_the_kubelet_was_away(
    apiserver: APIServer, tmp_path: Path
) -> None:
    async with everything(apiserver, tmp_path) as cluster:
        obj = await cluster.started(pod("a", "sleep", "60", restartPolicy="Always"))
        client, uid = cluster.client, obj["metadata"]["uid"]
        async with nodes(cluster, first=1):
            pass  # a second node's kubelet leaves the first one's pods alone
        assert psutil.pid_exists(processes_with(uid)[0].pid)
        await client.get("pods", "a", NAMESPACE)
    directory = tmp_path / "kubelet/pods" / uid
    assert directory.exists()
    async with everything(apiserver, tmp_path, first=1) as cluster:
        await cluster.delete("a", grace=0)
        await cluster.gone("a")
    async with everything(apiserver, tmp_path):
        assert not directory.exists()
