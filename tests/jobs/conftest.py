"""A whole local cluster with quick retries, and the jobs' table in a database of its own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kubernetes_asyncio import client
from sqlalchemy import Engine

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.controllers import Controllers, Periods
from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.job_records import JobRecords
from tests.localcluster.support import everything
from tests.metering.conftest import make_hub_tables

from .world import World

PERIODS = Periods(job_backoff=0.2, job_backoff_max=1.0)


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "jupyterhub.sqlite"
    make_hub_tables(f"sqlite:///{file}")
    engine = db.make_engine(f"sqlite:///{file}")
    db.upgrade(engine)
    engine.dispose()
    return file


@pytest.fixture
def jobs_engine(empty_ledger: Path, tmp_path: Path) -> Iterator[Engine]:
    engine = db.make_engine(f"sqlite:///{shutil.copy(empty_ledger, tmp_path)}")
    yield engine
    engine.dispose()


@pytest.fixture
async def world(
    apiserver: APIServer, api: client.CoreV1Api, jobs_engine: Engine, tmp_path: Path
) -> AsyncIterator[World]:
    """One node with two GPUs."""
    async with everything(apiserver, tmp_path) as cluster, Controllers(cluster.client, PERIODS):
        made = World(cluster, api.api_client, JobRecords(jobs_engine))
        yield made
        await made.stop()
