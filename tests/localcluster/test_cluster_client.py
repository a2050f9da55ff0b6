"""The client, the informer, the work queue and the event recorder, on a real API server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import ApiError, KubeClient, object_key, split_key
from gpucloud_spawner.localcluster.events import EventRecorder
from gpucloud_spawner.localcluster.informer import Informer, WorkQueue

NAMESPACE = "default"


@pytest.fixture
async def client(apiserver: APIServer) -> AsyncIterator[KubeClient]:
    async with KubeClient.from_kubeconfig(str(apiserver.kubeconfig)) as client:
        yield client


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_verbs_and_errors(client: KubeClient) -> None:
    made = await client.create("configmaps", config_map("a", x="1"), NAMESPACE)
    assert (await client.get("configmaps", "a", NAMESPACE))["data"] == {"x": "1"}
    made["data"]["x"] = "2"
    made = await client.replace("configmaps", made, NAMESPACE)
    patched = await client.patch("configmaps", "a", {"data": {"y": "3"}}, NAMESPACE)
    assert patched["data"] == {"x": "2", "y": "3"}
    operations = [{"op": "remove", "path": "/data/x"}]
    patched = await client.patch("configmaps", "a", operations, NAMESPACE, kind="json")
    assert patched["data"] == {"y": "3"}
    with pytest.raises(ApiError) as conflict:
        await client.replace("configmaps", made, NAMESPACE)  # a stale version
    assert (conflict.value.status, conflict.value.reason) == (409, "Conflict")
    with pytest.raises(ApiError) as other:
        await client.delete("configmaps", "a", NAMESPACE, uid="another-uid")
    assert other.value.status == 409
    await client.delete("configmaps", "a", NAMESPACE, uid=made["metadata"]["uid"])
    with pytest.raises(ApiError) as missing:
        await client.get("configmaps", "a", NAMESPACE)
    assert (missing.value.status, missing.value.reason) == (404, "NotFound")
    assert missing.value.message == 'configmaps "a" not found'


async def test_lists_are_complete_whatever_the_page_size(client: KubeClient) -> None:
    for number in range(7):
        body = config_map(f"m{number}")
        body["metadata"]["labels"] = {"odd": str(number % 2)}
        await client.create("configmaps", body, NAMESPACE)
    path = client.path("configmaps", NAMESPACE)
    page = await client.request("GET", path, params={"limit": "3"})
    assert page["metadata"]["continue"]
    found = await client.list("configmaps", NAMESPACE, label_selector="odd=1")
    assert [item["metadata"]["name"] for item in found["items"]] == ["m1", "m3", "m5"]


async def test_a_wrong_token_and_an_unknown_ca(apiserver: APIServer, tmp_path: Path) -> None:
    config = yaml.safe_load(apiserver.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": "wrong"}
    path = tmp_path / "wrong"
    path.write_text(yaml.safe_dump(config))
    async with KubeClient.from_kubeconfig(str(path)) as client:
        with pytest.raises(ApiError) as caught:
            await client.list("pods")
        assert caught.value.status == 401


async def test_a_fresh_token_is_asked_for_after_a_401(apiserver: APIServer, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!/bin/sh\necho asked >> {tmp_path}/asked\n"
        'printf \'{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",'
        f' "status": {{"token": "%s"}}}}\' "$(cat {tokens})"\n'
    )
    plugin.chmod(0o755)
    config = yaml.safe_load(apiserver.kubeconfig.read_text())
    version = "client.authentication.k8s.io/v1"
    plugin_config = {"apiVersion": version, "command": str(plugin), "interactiveMode": "Never"}
    config["users"][0]["user"] = {"exec": plugin_config}
    path = tmp_path / "exec"
    path.write_text(yaml.safe_dump(config))
    tokens.write_text("expired")
    async with KubeClient.from_kubeconfig(str(path)) as client:
        tokens.write_text(apiserver.token)
        assert (await client.list("namespaces"))["items"]
        await client.list("namespaces")
    assert (tmp_path / "asked").read_text().count("asked") == 2


class Seen:
    """Waits for changes of an informer's store."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self._changed = asyncio.Event()

    def __call__(self, old: Any, new: Any) -> None:
        what = "added" if old is None else "deleted" if new is None else "changed"
        self.log.append((what, (new or old)["metadata"]["name"]))
        self._changed.set()

    async def until(self, *entries: tuple[str, str]) -> None:
        async with asyncio.timeout(15):
            while not set(entries) <= set(self.log):
                self._changed.clear()
                await self._changed.wait()


async def test_an_informer_over_a_restart_of_the_server(
    client: KubeClient, apiserver: APIServer
) -> None:
    await client.create("configmaps", config_map("old"), NAMESPACE)
    seen = Seen()
    async with Informer(client, "configmaps", NAMESPACE, handler=seen) as informer:
        await informer.synced()
        assert object_key(informer.store[f"{NAMESPACE}/old"]) == f"{NAMESPACE}/old"
        await client.create("configmaps", config_map("new"), NAMESPACE)
        await seen.until(("added", "old"), ("added", "new"))
        await apiserver.stop()
        await apiserver.start()
        await client.patch("configmaps", "new", {"data": {"k": "v"}}, NAMESPACE)
        await client.delete("configmaps", "old", NAMESPACE)
        await seen.until(("changed", "new"), ("deleted", "old"))
        assert list(informer.store) == [f"{NAMESPACE}/new"]
    assert len(seen.log) == len(set(seen.log)), "an event was told twice"


async def test_an_informer_lists_again_when_its_watch_is_too_old(
    client: KubeClient, apiserver: APIServer
) -> None:
    await client.create("configmaps", config_map("a"), NAMESPACE)
    # A restarted server has no history of what was before.
    await apiserver.stop()
    await apiserver.start()
    seen = Seen()
    informer = Informer(client, "configmaps", NAMESPACE, handler=seen)
    informer.store[f"{NAMESPACE}/gone"] = {
        "metadata": {"name": "gone", "namespace": NAMESPACE, "uid": "x", "resourceVersion": "1"}
    }
    informer._version = "1"  # of a time that the server has forgotten
    async with informer:
        await seen.until(("added", "a"), ("deleted", "gone"))


async def test_a_handler_that_fails_blinds_nobody(client: KubeClient) -> None:
    def broken(old: Any, new: Any) -> None:
        raise RuntimeError("a bug")

    seen = Seen()
    async with Informer(client, "configmaps", NAMESPACE, handler=broken) as informer:
        informer.handlers.append(seen)
        await client.create("configmaps", config_map("a"), NAMESPACE)
        await client.create("configmaps", config_map("b"), NAMESPACE)
        await seen.until(("added", "a"), ("added", "b"))


async def test_the_queue_works_once_per_key_at_a_time() -> None:
    running: set[str] = set()
    runs: list[str] = []
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        assert key not in running
        running.add(key)
        await asyncio.sleep(0)
        running.discard(key)
        runs.append(key)
        if runs.count("a") == 1:
            queue.add("a")  # what happens while it runs is looked at afterwards
            queue.add("a")
        elif runs.count("a") == 2 and "b" in runs:
            done.set()

    queue = WorkQueue(reconcile, workers=3)
    for key in ("a", "a", "b", "a"):
        queue.add(key)
    async with queue, asyncio.timeout(5):
        await done.wait()
    assert sorted(runs) == ["a", "a", "b"]


async def test_the_queue_tries_again_later_and_later() -> None:
    times: list[float] = []
    done = asyncio.Event()

    async def reconcile(key: str) -> float | None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 4:
            raise ApiError(409, "Conflict", "try again")
        if len(times) == 4:
            return 0.05
        done.set()
        return None

    async with WorkQueue(reconcile) as queue, asyncio.timeout(10):
        queue.add("a")
        await done.wait()
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] < gaps[1] < gaps[2]
    assert gaps[3] < gaps[2]  # forgotten after the success


async def test_a_repeated_event_is_counted(client: KubeClient) -> None:
    pod = {"kind": "Pod", "metadata": {"name": "p", "namespace": NAMESPACE, "uid": "u"}}
    async with EventRecorder(client, "kubelet", "node-0") as recorder:
        for _ in range(3):
            recorder.record(pod, "Warning", "BackOff", "Back-off", field_path="spec.containers{c}")
        recorder.record(pod, "Normal", "Started", "Started container c")
    events = (await client.list("events", NAMESPACE))["items"]
    counts = {event["reason"]: event["count"] for event in events}
    assert counts == {"BackOff": 3, "Started": 1}
    event = next(event for event in events if event["reason"] == "BackOff")
    assert event["source"] == {"component": "kubelet", "host": "node-0"}
    assert event["involvedObject"]["fieldPath"] == "spec.containers{c}"
    assert event["firstTimestamp"] <= event["lastTimestamp"]


async def test_an_event_about_the_longest_name(client: KubeClient) -> None:
    name = "a" * 235 + "." + "b" * 17
    pod = {"kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "uid": "u"}}
    async with EventRecorder(client, "kubelet", "node-0") as recorder:
        recorder.record(pod, "Normal", "Started", "Started container c")
    (event,) = (await client.list("events", NAMESPACE))["items"]
    assert event["involvedObject"]["name"] == name


def test_keys() -> None:
    assert split_key("ns/name") == ("ns", "name")
    assert split_key("node-0") == ("", "node-0")
