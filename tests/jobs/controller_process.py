"""A service that only reconciles jobs, as a process that a test can kill at any moment."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from kubernetes_asyncio.client import CoreV1Api
from prometheus_client import CollectorRegistry

from gpucloud_spawner.jobs.controller import ControllerSettings, JobController
from gpucloud_spawner.jobs.manifests import Site
from gpucloud_spawner.jobs.metrics import JobMetrics
from gpucloud_spawner.kube.connection import connect
from gpucloud_spawner.kube.inventory import InventoryReader
from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.job_records import JobRecords

from .world import NAMESPACE, PROFILES


async def main(url: str, command: list[str], ttl: float, poll: float) -> None:
    records = JobRecords(db.make_engine(url))
    client = await connect()
    controller = JobController(
        records,
        client,
        NAMESPACE,
        Site(records.identity(), command=command),
        PROFILES,
        leads=lambda: True,
        in_thread=asyncio.to_thread,
        inventory=InventoryReader(CoreV1Api(client)).read,
        metrics=JobMetrics(CollectorRegistry()),
        settings=ControllerSettings(ttl=ttl, poll=poll, settle=0.2, retry=0.05, retry_max=0.5),
    )
    controller.start()
    print("started", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    arguments: list[Any] = [sys.argv[1], json.loads(sys.argv[2])]
    asyncio.run(main(*arguments, *map(float, sys.argv[3:])))
