"""A start of the spawner on the local cluster, without a hub around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.objects import Hub
from kubernetes_asyncio.config import kube_config
from kubespawner.clients import load_config

from gpucloud_spawner import GPUCloudSpawner
from gpucloud_spawner.localcluster.apiserver import APIServer

from ..localcluster.support import NAMESPACE, Cluster, everything

SERVER = (
    "import http.server, os\n"
    "address = (os.environ['POD_IP'], 8888)\n"
    "http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()\n"
)


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    async with APIServer(tmp_path / "cluster") as server, everything(server, tmp_path) as cluster:
        # the environment variable is read when the library is imported
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(server.kubeconfig))
        load_config.cache_clear()
        yield cluster
        load_config.cache_clear()


def make_spawner(**traits: Any) -> GPUCloudSpawner:
    user = SimpleNamespace(
        id=1, name="ada", escaped_name="ada", url="/user/ada/", groups=[], settings={}
    )
    return GPUCloudSpawner(
        user=user,
        hub=Hub(),
        namespace=NAMESPACE,
        image="gpucloud/notebook:0.1",
        cmd=["python", "-c", SERVER],
        api_token="unused",
        oauth_client_id="unused",
        **traits,
    )


async def test_a_start_does_not_depend_on_resolving_the_name_of_its_new_service(
    cluster: Cluster,
) -> None:
    # nothing resolves the names of the local cluster's services in this process
    spawner = make_spawner(services_enabled=True, launch_timeout=20)
    try:
        url = await spawner.start()
        assert url == f"http://{spawner.dns_name}:8888"
        await cluster.client.get("services", spawner.pod_name, NAMESPACE)
        await spawner.stop(now=True)
    finally:
        await GPUCloudSpawner._stop_all_reflectors()
        await spawner.api.api_client.close()
