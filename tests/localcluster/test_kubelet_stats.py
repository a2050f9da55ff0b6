"""How full a claim is, asked as gpucloud asks a real cluster: by the API server's node proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes_asyncio.client import CoreV1Api

from gpucloud_spawner.kube.connection import connect
from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import ApiError
from gpucloud_spawner.storage.volumes import used_bytes

from .support import NAMESPACE, Cluster, everything, mount, shell


@pytest.fixture
async def cluster(apiserver: APIServer, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with everything(apiserver, tmp_path) as cluster:
        yield cluster


async def test_a_node_tells_how_full_its_pods_claims_are(
    cluster: Cluster, apiserver: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.claim("home")
    home = mount("/home/jovyan", {"persistentVolumeClaim": {"claimName": "home"}})
    script = "mkdir a; head -c 3000000 /dev/zero | tr '\\0' x > a/b; ln a/b c; touch done; sleep 60"
    pod = await cluster.started(shell("writer", script, **home))
    claim = await cluster.client.get("persistentvolumeclaims", "home", NAMESPACE)
    node = pod["spec"]["nodeName"]
    monkeypatch.setenv("KUBECONFIG", str(apiserver.kubeconfig))
    client = await connect()
    try:
        used = 0
        async with asyncio.timeout(20):
            while used < 3_000_000:  # until it is written
                used = await used_bytes(CoreV1Api(client), node, claim) or 0
                await asyncio.sleep(0.02)
        assert used < 3_100_000, "a file with two names counts once"
        assert await used_bytes(CoreV1Api(client), "no-such-node", claim) is None
        assert await used_bytes(CoreV1Api(client), "", claim) is None
        other = {"metadata": {"name": "other", "namespace": NAMESPACE}}
        assert await used_bytes(CoreV1Api(client), node, other) is None
    finally:
        await client.close()
    [told] = (await _get(cluster, node, "stats/summary"))["pods"]
    assert told["podRef"]["name"] == "writer"
    [volume] = told["volume"]
    assert volume["capacityBytes"] == volume["usedBytes"] + volume["availableBytes"]


async def test_nothing_else_of_a_node_is_proxied(cluster: Cluster) -> None:
    node = (await cluster.client.list("nodes"))["items"][0]["metadata"]["name"]
    for path in ("", "pods", "run/x", "stats/summary/../../pods", "metrics"):
        with pytest.raises(ApiError) as error:
            await _get(cluster, node, path)
        assert error.value.status in (404, 501), path


async def _get(cluster: Cluster, node: str, path: str) -> dict[str, object]:
    found: dict[str, object] = await cluster.client.request(
        "GET", f"/api/v1/nodes/{node}/proxy/{path}"
    )
    return found
