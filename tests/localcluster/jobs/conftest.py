"""The whole cluster for tests of Jobs, with quick retries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.controllers import Controllers, Periods
from tests.localcluster.support import Cluster, everything

QUICK = Periods(job_backoff=0.2, job_backoff_max=1.0)


@pytest.fixture
async def cluster(apiserver: APIServer, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with everything(apiserver, tmp_path) as cluster, Controllers(cluster.client, QUICK):
        yield cluster
