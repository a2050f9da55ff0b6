"""The meter in this process: leases, resuming, audits that repair what the watch missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes_asyncio import client, config
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, delete, select, text, update

from gpucloud_spawner.kube.watch import cancel_and_wait
from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.idle import capacity
from gpucloud_spawner.metering.lease import Lease, LeaseLost
from gpucloud_spawner.metering.meter import Meter, MeterSettings
from gpucloud_spawner.metering.metrics import LedgerMetrics
from gpucloud_spawner.metering.tables import INTERVAL, LEASE, POSITION, VOLUME
from gpucloud_spawner.model.usage import Window

from .cluster import CLAIMS, PODS, Cluster
from .meter_process import FAST


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[APIServer]:
    async with APIServer(tmp_path / "cluster") as server:
        yield server


@pytest.fixture
async def cluster(server: APIServer) -> AsyncIterator[Cluster]:
    made = Cluster(server)
    await made.add_node("w", 4)
    yield made
    await made.close()


@asynccontextmanager
async def meter(
    server: APIServer, engine: Engine, fast: MeterSettings = FAST
) -> AsyncIterator[Meter]:
    settings = client.Configuration()
    await config.load_kube_config(str(server.kubeconfig), client_configuration=settings)
    async with client.ApiClient(settings) as connection:
        metrics = LedgerMetrics(CollectorRegistry())
        running = Meter(engine, client.CoreV1Api(connection), fast, metrics)
        await running.start()
        try:
            yield running
        finally:
            await running.stop()


async def until(condition: Callable[[], Any], within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.02)


def lines(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        rows = connection.execute(select(INTERVAL)).mappings()
        return {row["pod"]: dict(row) for row in rows}


def follows(engine: Engine) -> bool:
    with engine.connect() as connection:
        query = select(POSITION.c.resource_version).where(POSITION.c.stream == "pods")
        return connection.scalar(query) is not None


def differences(meter: Meter) -> dict[str, float]:
    (family,) = meter.metrics.differences.collect()
    return {
        sample.labels["kind"]: sample.value
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    }


async def start_pod(cluster: Cluster, name: str, gpus: int = 1, **more: Any) -> None:
    await cluster.create(name, gpus, **more)
    await cluster.bind(name, "w")
    await cluster.run(name)


async def test_a_line_is_complete(server: APIServer, cluster: Cluster, engine: Engine) -> None:
    async with meter(server, engine) as running:
        await until(lambda: follows(engine))
        await start_pod(cluster, "a", 2, user="ada@example.com", notes={"gpucloud.io/job": "j"})
        await until(lambda: lines(engine))
        line = lines(engine)["a"]
        assert {k: line[k] for k in ("owner", "team", "app", "job", "profile", "component")} == {
            "owner": "ada@example.com",
            "team": "vision",
            "app": "app",
            "job": "j",
            "profile": "tensorflow",
            "component": "notebook",
        }
        assert (line["product"], line["gpus"], line["price_nano"], line["start_source"]) == (
            "NVIDIA-A100", 2, 1_500_000_000, "scheduled",
        )  # fmt: skip
        await until(lambda: running.metrics.open._value.get() == 1)
        assert not await running.audit()
        assert differences(running) == {}
        assert running.leads


async def test_two_services_double_nothing(
    server: APIServer, cluster: Cluster, engine: Engine
) -> None:
    async with meter(server, engine) as first:
        await until(lambda: first.leads)
        async with meter(server, engine) as second:
            for index in range(20):
                await start_pod(cluster, f"pod-{index}")
            await until(lambda: len(lines(engine)) == 20)
            assert (first.leads, second.leads) == (True, False)
            await first.stop()
            await until(lambda: second.leads)  # at once: the lease was handed back
            await cluster.delete("pod-0", 0)
            await until(lambda: lines(engine)["pod-0"]["end_at"])
            assert len(lines(engine)) == 20


def test_a_writer_that_lost_its_lease_commits_nothing(engine: Engine) -> None:
    """It slept; somebody else took over; then it goes on."""
    old, new = Lease(engine, "old", 2), Lease(engine, "new", 2)
    assert old.acquire()
    assert not new.acquire()
    with db.writing(engine).begin() as connection:
        connection.execute(update(LEASE).values(expires_at=0))
    assert new.acquire()
    with pytest.raises(LeaseLost), old.write() as connection:
        connection.execute(delete(LEASE))
    with new.write() as connection:
        assert connection.scalar(select(LEASE.c.holder)) == "new"
    new.release()
    assert old.acquire()
    with pytest.raises(LeaseLost), new.write():
        pass


async def test_it_resumes_and_sees_what_no_list_shows(
    server: APIServer, cluster: Cluster, engine: Engine
) -> None:
    async with meter(server, engine):
        await until(lambda: follows(engine))
    # began and ended while no service ran; the API server still knows how
    await start_pod(cluster, "short")
    await cluster.finish("short", int(time.time()) + 1)
    await cluster.delete("short", 0)
    async with meter(server, engine) as running:
        await until(lambda: lines(engine) and lines(engine)["short"]["end_at"])
        assert lines(engine)["short"]["end_source"] == "containers"
        assert differences(running) == {}


async def test_a_forgotten_position_is_answered_by_a_list(
    server: APIServer, cluster: Cluster, engine: Engine
) -> None:
    """410 Gone: what still exists is found, what is gone ends at the last heartbeat."""
    async with meter(server, engine):
        await until(lambda: follows(engine))
        await start_pod(cluster, "gone")
        await start_pod(cluster, "stays")
        await until(lambda: len(lines(engine)) == 2)
    await cluster.delete("gone", 0)
    await server.stop()  # its history of events is in memory only
    await server.start()
    async with meter(server, engine):
        await until(lambda: lines(engine)["gone"]["end_at"])
        found = lines(engine)
        assert found["gone"]["end_source"] == "heartbeat"
        assert found["gone"]["end_at"] <= int(time.time())
        assert found["stays"]["end_at"] is None


async def test_the_audit_repairs_what_is_missing_and_counts_it(
    server: APIServer, cluster: Cluster, engine: Engine
) -> None:
    by_hand = replace(FAST, audit_seconds=3600)  # none of its own comes first
    async with meter(server, engine, by_hand) as running:
        await until(lambda: follows(engine))
        for name in ("lost", "open", "ghost"):
            await start_pod(cluster, name)
        await until(lambda: len(lines(engine)) == 3)
        await cluster.finish("open", int(time.time()) + 5)
        await until(lambda: lines(engine)["open"]["end_at"])
        # as if the watch had never told
        with db.writing(engine).begin() as connection:
            connection.execute(delete(INTERVAL).where(INTERVAL.c.pod == "lost"))
            connection.execute(
                update(INTERVAL)
                .where(INTERVAL.c.pod == "open")
                .values(end_at=None, finished_at=None, ended_alone=False)
            )
            connection.execute(
                update(INTERVAL)
                .where(INTERVAL.c.pod == "ghost")
                .values(uid="another", last_seen=INTERVAL.c.start_at + 1)
            )
        found = await running.audit()
        assert (len(found.missing), len(found.ended), len(found.vanished)) == (2, 1, 1)
        assert differences(running) == {"missing": 2, "ended": 1, "vanished": 1}
        after = lines(engine)
        assert after["lost"]["recorded_by"] == "audit"
        assert after["open"]["end_source"] == "containers"
        with engine.connect() as connection:
            query = select(INTERVAL).where(INTERVAL.c.uid == "another")
            ghost = connection.execute(query).mappings().one()
        assert (ghost["end_at"], ghost["end_source"]) == (ghost["start_at"] + 1, "heartbeat")
        assert not await running.audit()


async def test_an_object_nobody_understands_stops_nothing(
    server: APIServer, cluster: Cluster, engine: Engine
) -> None:
    async with meter(server, engine) as running:
        await until(lambda: follows(engine))
        await start_pod(cluster, "odd", notes={"gpucloud.io/price-per-gpu-hour": "a lot"})
        await start_pod(cluster, "good")
        await until(lambda: len(lines(engine)) == 2)
        assert lines(engine)["odd"]["price_nano"] is None
        stream = running._streams[2]  # type: ignore[index]
        broken = {"metadata": {"uid": "x", "resourceVersion": stream.position}}
        stream._on_event("MODIFIED", broken)
        await cluster.delete("good", 0)
        await until(lambda: lines(engine)["good"]["end_at"])


async def test_volumes_are_followed(server: APIServer, cluster: Cluster, engine: Engine) -> None:
    def sizes() -> list[Any]:
        with engine.connect() as connection:
            query = select(VOLUME.c.gib, VOLUME.c.end_source, VOLUME.c.owner)
            return list(connection.execute(query.order_by(VOLUME.c.gib)))

    async with meter(server, engine):
        await until(lambda: follows(engine))
        await cluster.create_claim("home", "10Gi")
        await cluster.provision_claim("home", "10Gi")
        await until(lambda: sizes() == [(10, "", "ada")])
        await cluster.provision_claim("home", "20Gi")
        await until(lambda: sizes() == [(10, "grown", "ada"), (20, "", "ada")])
        await cluster.call("DELETE", f"{CLAIMS}/home")
        await until(lambda: sizes() == [(10, "grown", "ada"), (20, "deletion", "ada")])


async def test_capacity_is_followed(server: APIServer, cluster: Cluster, engine: Engine) -> None:
    await start_pod(cluster, "a", 3)
    began = int(time.time()) - 100
    async with meter(server, engine):
        await until(lambda: lines(engine))
        await cluster.add_node("v", 2, "NVIDIA-H100")

        def rows() -> dict[str, Any]:
            window = Window(began, int(time.time()) + 100)
            found = capacity(engine, window).rows
            return {row.group["product"]: row for row in found if row.capacity_gpu_seconds}

        await until(lambda: len(rows()) == 2)
        row = rows()["NVIDIA-A100"]
        assert row.used_gpu_seconds * 4 <= row.capacity_gpu_seconds * 3
        assert row.idle_gpu_seconds >= 0


async def test_a_database_that_is_away_loses_nothing(
    server: APIServer, cluster: Cluster, engine: Engine
) -> None:
    async with meter(server, engine) as running:
        await until(lambda: follows(engine))
        with db.writing(engine).begin() as connection:
            connection.execute(text("ALTER TABLE gpucloud_interval RENAME TO gpucloud_away"))
        await start_pod(cluster, "a")
        await cluster.finish("a", int(time.time()) + 3)
        await cluster.delete("a", 0)
        await until(lambda: running.metrics.database_errors._value.get() >= 1)
        with db.writing(engine).begin() as connection:
            connection.execute(text("ALTER TABLE gpucloud_away RENAME TO gpucloud_interval"))
        await until(lambda: lines(engine) and lines(engine)["a"]["end_at"])
        assert lines(engine)["a"]["end_source"] == "containers"


async def test_stopping_stores_what_has_arrived(
    server: APIServer, cluster: Cluster, engine: Engine
) -> None:
    async with meter(server, engine) as running:
        await until(lambda: follows(engine))
        await start_pod(cluster, "a")
        stream = running._streams[2]  # type: ignore[index]
        await until(lambda: stream.waiting or lines(engine))
    pods = (await cluster.call("GET", PODS))["items"]
    assert {pod["metadata"]["name"] for pod in pods} == set(lines(engine))
    tasks = [task for task in asyncio.all_tasks() if "metering" in repr(task.get_coro())]
    assert tasks == []


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_it_stops_also_in_the_moment_in_which_something_arrives(
    server: APIServer, engine: Engine
) -> None:
    async with meter(server, engine) as running:
        await until(lambda: follows(engine))
        for ticks in range(4):  # the cancellation meets every step of the waking-up
            await running.start()
            await until(lambda: running.leads)
            running._wake.set()
            for _ in range(ticks):
                await asyncio.sleep(0)
            async with asyncio.timeout(10):
                assert running._main is not None
                await cancel_and_wait(running._main)
                running._main = None
