"""Every GPU-second exactly once, whatever dies: the ledger against the cluster's own history.

A random workload runs while the meter, the hub, the API connection and the database are killed, one
at a time. The oracle (`cluster.expected_intervals`) reads only the cluster's events.
GPUCLOUD_CRASH_PODS and GPUCLOUD_CRASH_SEED make the run longer, or another one.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DBAPIError

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.stops import record_stop
from gpucloud_spawner.metering.tables import INTERVAL, POSITION, STOP_RECORD

from ..e2e.forwarder import Forwarder
from .cluster import NAMESPACE, Cluster, Expected, History, expected_intervals, live
from .postgres import PostgresServer

PODS = int(os.environ.get("GPUCLOUD_CRASH_PODS", "200"))
SEED = int(os.environ.get("GPUCLOUD_CRASH_SEED", "7"))
NODES = ("n0", "n1")
FAULTS = 8  # at least: every kind twice


class Victim:
    """The meter, or the hub, in a process of its own."""

    def __init__(self, module: str, kubeconfig: Path, url: str) -> None:
        self._arguments = [f"tests.metering.{module}", str(kubeconfig), url]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(sys.executable, "-m", *self._arguments)

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            await self._process.wait()
            self._process = None


class World:
    """A cluster with its history, and the meter behind a connection that can be cut."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self.url = url
        self.engine = db.make_engine(url)
        self.faults = 0

    async def start(self) -> None:
        self.server = APIServer(self._directory / "cluster")
        await self.server.start()
        self.forwarder = Forwarder(self.server.host, self.server.port)
        document = yaml.safe_load(self.server.kubeconfig.read_text())
        for cluster in document["clusters"]:
            cluster["cluster"]["server"] = f"https://127.0.0.1:{self.forwarder.port}"
        kubeconfig = self._directory / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(document))
        self.cluster = Cluster(self.server)
        self.history = History(self.cluster)
        await self.history.start()
        for node in NODES:
            await self.cluster.add_node(node, 8)
        self.meter = Victim("meter_process", kubeconfig, self.url)
        self.hub = Victim("hub_process", kubeconfig, self.url)
        await self.meter.start()
        await _until(self._follows)  # what was over before it first looked is nobody's

    def _follows(self) -> bool:
        query = select(POSITION.c.resource_version).where(POSITION.c.stream == "pods")
        with self.engine.connect() as connection:
            return connection.scalar(query) is not None

    async def stop(self) -> None:
        await self.meter.kill()
        await self.hub.kill()
        await self.history.stop()
        await self.cluster.close()
        await self.server.stop()
        self.forwarder.close()
        self.engine.dispose()

    def ledger(self) -> Expected:
        query = select(INTERVAL.c.uid, INTERVAL.c.start_at, INTERVAL.c.end_at, INTERVAL.c.gpus)
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        assert len({row.uid for row in rows}) == len(rows)
        return {row.uid: (row.start_at, row.end_at, row.gpus) for row in rows}

    def heartbeat(self) -> int:
        """Until when the ledger knows of all pods."""
        query = select(POSITION.c.heartbeat_at).where(POSITION.c.stream == "pods")
        with self.engine.connect() as connection:
            return connection.scalar(query) or 0

    def stop_records(self) -> int:
        with self.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(STOP_RECORD)) or 0

    async def caught_up(self, *, within: float = 120) -> tuple[Expected, Expected]:
        """What is expected and what the ledger has, once they agree or time is up."""
        deadline = time.monotonic() + within
        while True:
            expected = expected_intervals(self.history.events)
            try:
                found = await asyncio.to_thread(self.ledger)
            except DBAPIError:
                found = {}
            if found == expected or time.monotonic() > deadline:
                return expected, found
            await asyncio.sleep(0.1)


@pytest.fixture
async def world(engine: Engine, tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, engine.url.render_as_string(hide_password=False))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def _until(condition: Callable[[], bool], within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.05)


async def _break_things(world: World, chance: random.Random, postgres: PostgresServer | None,
                        pods: asyncio.Future[object]) -> None:  # fmt: skip
    """One fault after the other for as long as there are pods."""
    while not pods.done():
        fault = ("service", "cut", "database", "hub")[world.faults % 4]
        await asyncio.sleep(chance.uniform(0.1, 0.6))
        if fault in ("service", "hub"):
            victim = world.meter if fault == "service" else world.hub
            if fault == "hub":  # in the middle of its records; the service also in its start
                records = await asyncio.to_thread(world.stop_records)
                while not pods.done() and await asyncio.to_thread(world.stop_records) == records:
                    await asyncio.sleep(0.05)
            await victim.kill()
            await asyncio.sleep(chance.uniform(0, 0.5))
            await victim.start()
        elif fault == "cut":
            world.forwarder.cut()
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            world.forwarder.join()
        elif postgres is not None:
            await asyncio.to_thread(postgres.kill)
            await asyncio.to_thread(postgres.start)
        else:
            await asyncio.to_thread(_hold_sqlite, world.engine, chance.uniform(0.2, 1.0))
        world.faults += 1


def _hold_sqlite(engine: Engine, seconds: float) -> None:
    """Another process keeps the database locked for a while."""
    with db.writing(engine).begin():
        time.sleep(seconds)


async def test_no_single_fault_costs_a_second(world: World, request: pytest.FixtureRequest) -> None:
    chance = random.Random(SEED)  # noqa: S311
    postgres: PostgresServer | None = None
    if world.engine.dialect.name == "postgresql":
        postgres = request.getfixturevalue("postgres")
    await world.hub.start()
    indices = itertools.count()

    async def lane() -> None:
        while (index := next(indices)) < PODS or world.faults < FAULTS:
            own = random.Random(SEED * 1_000_003 + index)  # noqa: S311
            await live(world.cluster, f"pod-{index}", own.choice(NODES), own)

    pods = asyncio.gather(*(lane() for _ in range(16)))
    await _break_things(world, chance, postgres, pods)
    await pods
    expected, found = await world.caught_up()
    assert len(expected) > PODS * 0.7
    assert any(end is None for _, end, _ in expected.values()) is False
    assert found == expected
    assert world.stop_records() > 0


async def test_a_lost_node_ends_what_ran_on_it(world: World) -> None:
    """Its pods are deleted by force much later; nobody could use their GPUs since the loss."""
    for name in ("a", "b"):
        await world.cluster.create(name)
        await world.cluster.bind(name, "n0")
        await world.cluster.run(name)
    await world.cluster.create("elsewhere")
    await world.cluster.bind("elsewhere", "n1")
    await asyncio.sleep(1.1)  # so that the loss is in a later second than the start
    lost_at = await world.cluster.lose_node("n0")
    await asyncio.sleep(1.1)
    await world.cluster.delete("a", 0)
    await world.meter.kill()  # b is found to be gone by whoever comes next
    await world.cluster.delete("b", 0)
    await world.meter.start()
    expected, found = await world.caught_up()
    assert found == expected
    assert sorted(str(end) for _, end, _ in found.values()) == [str(lost_at)] * 2 + ["None"]


async def test_a_double_fault_never_bills_too_much(world: World) -> None:
    """The service is down while pods end, and the API server has forgotten how they ended."""
    for index in range(6):
        await world.cluster.create(f"pod-{index}")
        await world.cluster.bind(f"pod-{index}", "n0")
        await world.cluster.run(f"pod-{index}")
    await _until(lambda: len(world.ledger()) == 6)
    started_at = max(start for start, _, _ in world.ledger().values())
    await _until(lambda: world.heartbeat() > started_at + 1)
    beat = world.heartbeat()
    await world.meter.kill()
    down_at = time.time()
    # pods 0 to 2 end unseen; of 3 and 4 the hub kept a record; 5 goes on
    for index in range(5):
        name = f"pod-{index}"
        await world.cluster.delete(name, 30)
        last = await world.cluster.finish(name, int(time.time()) + index)
        if index >= 3:
            record_stop(world.engine, last, gone=False)
            record_stop(world.engine, last, gone=True)
        await world.cluster.delete(name, 0)
    # and one that nobody but the hub ever saw
    await world.cluster.create("unseen")
    await world.cluster.bind("unseen", "n0")
    last = await world.cluster.finish("unseen", int(time.time()) + 77)
    record_stop(world.engine, last, gone=True)
    await world.cluster.delete("unseen", 0)
    await world.history.reach((await world.cluster.get("pod-5"))["metadata"]["resourceVersion"])
    await asyncio.sleep(0.2)
    expected = expected_intervals(world.history.events)
    names = {o["metadata"]["uid"]: o["metadata"]["name"] for _, o in world.history.events}
    await world.history.stop()
    await world.server.stop()  # its history of events is in memory only
    await world.server.start()
    world.forwarder.close()
    world.forwarder = Forwarder(world.server.host, world.server.port)
    document = yaml.safe_load(world.server.kubeconfig.read_text())
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{world.forwarder.port}"
    kubeconfig = world.server.data_dir.parent / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    await world.meter.start()
    await _until(lambda: sum(end is not None for _, end, _ in world.ledger().values()) == 6)
    found = world.ledger()
    for uid, (start, end, gpus) in expected.items():
        there = found[uid]
        assert (there[0], there[2]) == (start, gpus)
        if names[uid] in ("pod-3", "pod-4", "unseen", "pod-5"):
            assert there[1] == end, names[uid]
        else:  # never too much, and no more than the time since the last heartbeat too little
            assert end is not None and there[1] is not None
            assert there[1] <= end
            assert there[1] >= beat >= down_at - 10
    assert NAMESPACE == "default"
