"""Fixtures that start an API server of the local cluster in the test's own event loop."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer

from .support import Cluster, everything, processes_with


@pytest.fixture
async def apiserver(tmp_path: Path) -> AsyncIterator[APIServer]:
    """A fresh API server: `.kubeconfig`, `.url`, `.token`, `.ca`."""
    async with APIServer(tmp_path / "apiserver") as server:
        yield server


@pytest.fixture
async def cluster(apiserver: APIServer, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with everything(apiserver, tmp_path) as cluster:
        yield cluster
    assert processes_with(str(tmp_path)) == []


@pytest.fixture
async def http(apiserver: APIServer) -> AsyncIterator[aiohttp.ClientSession]:
    """An administrator's plain HTTP session with paths relative to the API server."""
    async with admin_session(apiserver) as session:
        yield session


def admin_session(server: APIServer) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=str(server.ca))
    return aiohttp.ClientSession(
        server.url,
        headers={"Authorization": f"Bearer {server.token}"},
        connector=aiohttp.TCPConnector(ssl=context, limit=0),
    )
