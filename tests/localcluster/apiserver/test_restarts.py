"""What outlives the process: objects, versions, tokens, certificates and the port."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import time
from pathlib import Path

import pytest
import yaml

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import KubeClient
from tests.localcluster.apiserver.conftest import PODS, Api, pod
from tests.localcluster.conftest import admin_session


async def test_state_survives_a_restart(tmp_path: Path) -> None:
    async with APIServer(tmp_path) as server, admin_session(server) as session:
        api = Api(session)
        before = await api.create_pod("a")
        await api.create_pod("b")
        await api.ok("DELETE", f"{PODS}/b")
        last = await api.version()
        kubeconfig = server.kubeconfig.read_text()
    async with APIServer(tmp_path) as server, admin_session(server) as session:
        api = Api(session)
        assert server.kubeconfig.read_text() == kubeconfig
        assert await api.names() == ["a"]
        assert await api.ok("GET", f"{PODS}/a") == before
        assert int(await api.version()) >= int(last)
        made = await api.create_pod("c")
        assert int(made["metadata"]["resourceVersion"]) > int(last)
        async with api.watch(resourceVersion=before["metadata"]["resourceVersion"]) as watch:
            event = await watch.next()
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        async with api.watch(resourceVersion=await api.version()) as watch:
            await api.create_pod("d")
            assert await watch.brief() == ("ADDED", "d")


async def test_the_kubeconfig_is_for_its_owner_only(apiserver: APIServer) -> None:
    assert stat.S_IMODE(apiserver.kubeconfig.stat().st_mode) == 0o600
    assert stat.S_IMODE(apiserver.data_dir.stat().st_mode) == 0o700
    key = apiserver.data_dir / "server.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    config = yaml.safe_load(apiserver.kubeconfig.read_text())
    assert config["clusters"][0]["cluster"]["certificate-authority-data"]
    async with KubeClient.from_kubeconfig(str(apiserver.kubeconfig)) as client:
        names = [n["metadata"]["name"] for n in (await client.list("namespaces"))["items"]]
    assert names == ["default", "kube-node-lease", "kube-public", "kube-system"]


async def _started(data: Path) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gpucloud_spawner.localcluster.apiserver",
        "--data",
        str(data),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 20)
    return process, line.decode()


async def test_an_acknowledged_write_survives_sigkill(tmp_path: Path) -> None:
    process, line = await _started(tmp_path)
    acknowledged: list[tuple[str, int]] = []
    try:
        assert line.startswith("the API server is ready at https://127.0.0.1:")
        async with KubeClient.from_kubeconfig(str(tmp_path / "kubeconfig")) as client:

            async def create(worker: int) -> None:
                for i in range(1000):
                    made = await client.create("pods", pod(f"p{worker}-{i}"), "default")
                    meta = made["metadata"]
                    acknowledged.append((meta["name"], int(meta["resourceVersion"])))

            work = [asyncio.create_task(create(n)) for n in range(4)]
            while len(acknowledged) < 100:
                await asyncio.sleep(0.005)
            process.kill()
            await process.wait()
            await asyncio.gather(*work, return_exceptions=True)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    async with APIServer(tmp_path) as server, admin_session(server) as session:
        api = Api(session)
        assert {name for name, _ in acknowledged} <= set(await api.names())
        made = await api.create_pod("after")
        assert int(made["metadata"]["resourceVersion"]) > max(v for _, v in acknowledged)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_although_watches_are_open(
    tmp_path: Path, number: signal.Signals
) -> None:
    process, _ = await _started(tmp_path)
    try:
        async with KubeClient.from_kubeconfig(str(tmp_path / "kubeconfig")) as client:
            path = "/api/v1/pods"
            async with client.open("GET", path, params={"watch": "1"}, timeout=60) as response:
                start = time.monotonic()
                os.kill(process.pid, number)
                assert await asyncio.wait_for(response.content.read(), 30) == b""
                assert await asyncio.wait_for(process.wait(), 30) == 0
                assert time.monotonic() - start < 15
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
