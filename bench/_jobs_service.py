"""Jobs, the service's side: the reconciler with 1,000 jobs listed, and how soon GPUs are free.

The reconciler runs in a process of its own. Its jobs' pods have no kubelet: they are set to Running
by hand. The release is timed on a whole local cluster, by a rival that waits for the same GPUs.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from kubernetes_asyncio import client, config

from gpucloud_spawner.jobs.controller import ControllerSettings
from gpucloud_spawner.jobs.manifests import INDEX
from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.controllers import Controllers
from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.job_records import JobRecords
from gpucloud_spawner.model.job_record import JobRecord
from tests.jobs.conftest import PERIODS
from tests.jobs.world import NAMESPACE, SERVE, World, script
from tests.localcluster.support import Cluster, api, everything
from tests.localcluster.support import pod as plain_pod
from tests.metering.conftest import make_hub_tables

JOBS = int(os.environ.get("BENCH_JOBS") or 1000)
SECONDS = int(os.environ.get("BENCH_SECONDS") or 60)
ROUNDS = 5
TWO_GPUS = {"resources": {"limits": {"nvidia.com/gpu": "2"}}}


def rows() -> Iterator[dict[str, Any]]:
    """The table's lines."""
    for measure in (_listed, _release):
        with tempfile.TemporaryDirectory() as folder:
            yield from asyncio.run(measure(Path(folder)))


def _records(folder: Path) -> JobRecords:
    url = f"sqlite:///{folder / 'jupyterhub.sqlite'}"
    make_hub_tables(url)
    engine = db.make_engine(url)
    db.upgrade(engine)
    return JobRecords(engine)


async def _world(cluster: Cluster, folder: Path) -> World:
    settings = client.Configuration()
    kubeconfig = str(cluster.server.kubeconfig)
    await config.load_kube_config(kubeconfig, client_configuration=settings)
    return World(cluster, client.ApiClient(settings), _records(folder))


async def _listed(folder: Path) -> list[dict[str, Any]]:
    async with APIServer(folder / "cluster") as server, api(server, folder) as cluster:
        world = await _world(cluster, folder)
        jobs = [world.submit(worker=1, gpus=1) for _ in range(JOBS)]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.jobs.controller_process",
            f"sqlite:///{folder / 'jupyterhub.sqlite'}",
            json.dumps(["true"]),
            "600",
            str(ControllerSettings.poll),
            env={**os.environ, "KUBECONFIG": str(server.kubeconfig)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            assert process.stdout is not None
            await process.stdout.readline()
            began = time.monotonic()
            await _until(world, lambda job: job.launched_at is not None)
            launched = time.monotonic() - began
            for job in jobs:
                await _run_pod(cluster, world, job)
            await _until(world, lambda job: job.state == "running")
            controller = psutil.Process(process.pid)
            before, began = _cpu(controller), time.monotonic()
            await asyncio.sleep(SECONDS)
            share = (_cpu(controller) - before) / (time.monotonic() - began)
            memory = controller.memory_info().rss / 2**20
        finally:
            process.kill()
            await process.wait()
            await world.client.close()
    return [
        {"what": f"launch of {JOBS} jobs, per job", "seconds": launched / JOBS},
        {"what": f"reconciler, {JOBS} running jobs: share of a core", "ratio": share},
        {"what": f"reconciler, {JOBS} running jobs: memory, MiB", "ratio": memory},
    ]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _until(world: World, test: Any) -> None:
    """Wait until all jobs pass."""
    async with asyncio.timeout(600):
        while True:
            page, cursor = await asyncio.to_thread(world.records.page, size=1000)
            if not cursor and all(test(job) for job in page):
                return
            await asyncio.sleep(0.5)


async def _run_pod(cluster: Cluster, world: World, job: JobRecord) -> None:
    """What Job controller, scheduler and kubelet would do."""
    made = await cluster.client.get("jobs", f"{job.id}-worker", NAMESPACE)
    template = made["spec"]["template"]
    name = f"{job.id}-worker-0-abcde"
    meta = template["metadata"]
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": meta["labels"],
            "annotations": {**meta["annotations"], INDEX: "0"},
        },
        "spec": {**template["spec"], "nodeName": "node-0"},
    }
    await cluster.client.create("pods", body, NAMESPACE)
    await cluster.client.patch_status("pods", name, {"status": {"phase": "Running"}}, NAMESPACE)


async def _release(folder: Path) -> list[dict[str, Any]]:
    waits = []
    async with (
        APIServer(folder / "cluster") as server,
        everything(server, folder) as cluster,
        Controllers(cluster.client, PERIODS),
    ):
        world = await _world(cluster, folder)
        for number in range(ROUNDS):
            waits.append(await _released_after(world, number, folder / f"ended-{number}"))
        await world.stop()
        await world.client.close()
    return [
        {
            "what": "release: from the chief's success to a rival on both GPUs, median",
            "seconds": statistics.median(waits),
        },
        {"what": "release, the longest of five (bar: 2 s)", "seconds": max(waits)},
    ]


async def _released_after(world: World, number: int, ended: Path) -> float:
    """A chief with a GPU, and a worker that is a server with the other one, until it is ended."""
    world.command = script(
        chief_0='while [ ! -e "$GPUCLOUD_GO" ]; do sleep 0.02; done; date +%s.%N > "$OUT"; exit 0',
        rest=SERVE,
    )
    await world.stop()
    await world.start()
    go = ended.with_suffix(".go")
    job = world.submit(
        chief=1, worker=1, ps=1, gpus=1, env={"GPUCLOUD_GO": str(go), "OUT": str(ended)}
    )
    await world.running(job)
    name = f"rival-{number}"
    await world.cluster.create(plain_pod(name, "sleep", "1000", container=TWO_GPUS))
    go.touch()
    await world.cluster.until(name, lambda pod: pod["spec"].get("nodeName"), timeout=60)
    at = time.time()
    await world.cluster.delete(name, 0)
    await world.over(job)
    return at - float(ended.read_text())
