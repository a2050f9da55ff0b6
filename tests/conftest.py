"""A real Kubernetes API (the local cluster's server) and a kubernetes_asyncio client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes_asyncio import client, config

from gpucloud_spawner.localcluster.apiserver import APIServer


@pytest.fixture
async def apiserver(tmp_path: Path) -> AsyncIterator[APIServer]:
    async with APIServer(tmp_path / "cluster") as server:
        yield server


@pytest.fixture
async def api(apiserver: APIServer) -> AsyncIterator[client.CoreV1Api]:
    settings = client.Configuration()
    await config.load_kube_config(str(apiserver.kubeconfig), client_configuration=settings)
    async with client.ApiClient(settings) as connection:
        yield client.CoreV1Api(connection)
