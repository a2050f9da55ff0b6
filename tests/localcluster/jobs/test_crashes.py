"""Jobs whose controllers or whose whole cluster die in the middle: nothing twice, nothing lost."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import KubeClient
from gpucloud_spawner.localcluster.controllers import Controllers
from gpucloud_spawner.localcluster.kubelet.runtime import BOOT_ID
from tests.localcluster.support import (
    NAMESPACE,
    Cluster,
    api,
    everything,
    indexed,
    nodes,
    processes_with,
    shell,
    state_of,
)
from tests.localcluster.test_cluster_restart import START_SECONDS, client_of, up

from .conftest import QUICK
from .support import Obj, conditions, ended, pods_of, until

NAME = re.compile("/(?:pods|jobs)/(j[0-9]+)")


class Dying(KubeClient):
    """A client of controllers that die with the Nth write about the Job jN or its pods: the server
    does it, the answer is lost. To every other Job they go on, so that one cluster sees all these
    deaths."""

    def __init__(self, kubeconfig: str) -> None:
        super().__init__(kubeconfig)
        self.writes: Counter[str] = Counter()

    def dead(self, name: str) -> bool:
        return self.writes[name] >= int(name[1:])

    async def request(self, method: str, path: str, **kwargs: Any) -> Obj:
        found = None if method == "GET" else NAME.search(path)
        made = (kwargs.get("body") or {}).get("metadata", {}).get("generateName", "")
        name = found[1] if found else made.partition("-")[0]
        if not name:
            return await super().request(method, path, **kwargs)
        self.writes[name] += 1
        if self.writes[name] == int(name[1:]):
            await super().request(method, path, **kwargs)
        if self.dead(name):
            raise ConnectionResetError("the controllers have died")
        return await super().request(method, path, **kwargs)


@pytest.fixture
async def bare(apiserver: APIServer, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster without controllers."""
    async with everything(apiserver, tmp_path) as cluster:
        yield cluster


DEATHS = 24  # a Job of three pods is done after fewer writes


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["Indexed", "NonIndexed"])
async def test_controllers_that_die_at_any_write_neither_lose_nor_double_a_pod(
    bare: Cluster, tmp_path: Path, mode: str
) -> None:
    """Two pods, one of which fails once: three pods, whatever happens."""
    names = [f"j{number}" for number in range(1, DEATHS + 1)]
    jobs = await bare.informer("jobs")

    def over(name: str) -> bool:
        return ended(jobs.store.get(f"{NAMESPACE}/{name}", {}))

    async with Dying(str(bare.server.kubeconfig)) as dying, Controllers(dying, QUICK):
        for name in names:
            body = indexed(name, f"mkdir {tmp_path}/{name} && exit 1; exit 0", 2, backoffLimit=1)
            body["spec"]["completionMode"] = mode
            await bare.create(body)
        await until(lambda: all(dying.dead(name) or over(name) for name in names), 240)
        died = {name for name in names if dying.dead(name)}
    assert {"j1", "j9"} <= died < set(names)
    async with Controllers(bare.client, QUICK):
        await until(lambda: all(over(name) for name in names), 240)
    for name in names:
        status, pods = jobs.store[f"{NAMESPACE}/{name}"]["status"], await pods_of(bare, name)
        assert (status["succeeded"], status["failed"], len(pods)) == (2, 1, 3), name
        assert not any("finalizers" in p["metadata"] for p in pods)


async def test_a_killed_cluster_goes_on_with_the_job_where_it_was(tmp_path: Path) -> None:
    data, go = tmp_path / "data", tmp_path / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.02; done; echo $JOB_COMPLETION_INDEX"
    async with up(data) as first:
        await first.line("is ready")
        async with client_of(data) as client:
            await client.create("jobs", indexed("j", script, 2), NAMESPACE)
            before = await running_pods(client)
        await first.end(signal.SIGKILL)
    go.touch()  # they end while nobody looks
    async with up(data) as again:
        await again.line("is ready")
        async with client_of(data) as client, asyncio.timeout(START_SECONDS):
            while not ended(found := await client.get("jobs", "j", NAMESPACE)):
                await asyncio.sleep(0.02)
            assert "Complete" in conditions(found)
            assert found["status"].get("failed") is None
            assert found["status"]["completedIndexes"] == "0,1"
            pods = (await client.list("pods", NAMESPACE))["items"]
            assert {p["metadata"]["uid"] for p in pods} == before
        await again.end()
    assert processes_with(str(data)) == []


async def running_pods(client: KubeClient) -> set[str]:
    async with asyncio.timeout(START_SECONDS):
        while True:
            pods = (await client.list("pods", NAMESPACE))["items"]
            if [p["status"]["phase"] for p in pods] == ["Running", "Running"]:
                return {p["metadata"]["uid"] for p in pods}
            await asyncio.sleep(0.02)


class Late(KubeClient):
    """A client whose news of pods are old."""

    async def watch(self, resource: str, *args: Any, **kwargs: Any) -> AsyncIterator[Obj]:
        async for event in super().watch(resource, *args, **kwargs):
            if resource.endswith("/pods"):
                await asyncio.sleep(0.1)
            yield event


async def test_late_news_of_pods_double_none(bare: Cluster) -> None:
    async with Late(str(bare.server.kubeconfig)) as late, Controllers(late, QUICK):
        await bare.create(indexed("j", "true", 3, parallelism=1))
        found = await bare.until("j", ended, resource="jobs")
    assert (found["status"]["succeeded"], len(await pods_of(bare, "j"))) == (3, 3)


async def test_a_pod_whose_start_was_cut_short_is_started_and_not_given_up(
    apiserver: APIServer, tmp_path: Path
) -> None:
    """The kubelet died when it had made the container's directory, and its shim was on the way."""
    async with api(apiserver, tmp_path) as cluster:
        made = await cluster.create(shell("a", "echo runs"))
        target = {"kind": "Node", "name": "node-0"}
        body = {"metadata": {"name": "a"}, "target": target}
        await cluster.client.create("pods", body, NAMESPACE, subresource="binding")
        home = cluster.data / "kubelet/pods" / made["metadata"]["uid"]
        instance = home / "containers/c/0"
        instance.mkdir(parents=True)
        saved = {"node": "node-0", "ip": "127.250.0.9", "startTime": "2026-11-23T07:30:00Z"}
        (home / "pod.json").write_text(json.dumps({**saved, "grant": {}}))
        # A process of this number lives, but it did not start when the shim did.
        (instance / "shim").write_text(f"1 never {BOOT_ID.read_text().strip()}")
        async with nodes(cluster):
            pod = await cluster.phase("a", "Succeeded", "Failed")
            assert pod["status"]["phase"] == "Succeeded"
            assert await cluster.logs("a") == "runs\n"
    assert pod["status"]["podIP"] == saved["ip"]
    assert state_of(pod)["restartCount"] == 0
