"""One embedded S3 server for most tests; those that kill it start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_asyncio.client import CoreV1Api

from gpucloud_spawner.s3server import ceph
from gpucloud_spawner.storage.keys import S3Keys
from gpucloud_spawner.storage.s3_ceph import CephRGW
from gpucloud_spawner.storage.s3_local import LocalS3

from . import servers


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.running(tmp_path_factory.mktemp("s3 with a space")) as server:
        yield server


@pytest.fixture
def local(s3_server: servers.Server) -> LocalS3:
    return servers.provider(s3_server)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[servers.Server]:
    with servers.running(tmp_path / "s3") as server:
        yield server


@pytest.fixture(scope="session")
def ceph_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    if lacking := ceph.missing():
        pytest.skip(lacking)
    data = tmp_path_factory.mktemp("ceph") / "data"
    with servers.running(data, "--kind", "ceph", "--store", "memstore") as server:
        yield server


@pytest.fixture
def rgw(ceph_server: servers.Server) -> CephRGW:
    return CephRGW(ceph_server.endpoint, admin_file=ceph_server.data / "admin.json")


@pytest.fixture
async def keys(local: LocalS3, api: CoreV1Api) -> S3Keys:
    await api.create_namespace({"metadata": {"name": "gpucloud"}})
    return S3Keys(local, api, "gpucloud")
