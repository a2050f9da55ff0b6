"""A real Kubernetes API (the local cluster's server) and a kubernetes_asyncio client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from kubernetes_asyncio import client, config

from gpucloud_spawner.localcluster.apiserver import APIServer

# how long an example takes is this machine's business
settings.register_profile("gpucloud", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gpucloud")


@pytest.fixture
async def apiserver(tmp_path: Path) -> AsyncIterator[APIServer]:
    async with APIServer(tmp_path / "cluster") as server:
        yield server


@pytest.fixture
async def api(apiserver: APIServer) -> AsyncIterator[client.CoreV1Api]:
    access = client.Configuration()
    await config.load_kube_config(str(apiserver.kubeconfig), client_configuration=access)
    async with client.ApiClient(access) as connection:
        yield client.CoreV1Api(connection)
