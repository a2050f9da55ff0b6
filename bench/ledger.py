"""The ledger: events per second, a month's statement over a million lines, memory of the service,
and what it costs the hub.

The statement is timed beside the same question in SQL written by hand, on SQLite and, where its
server is installed, on PostgreSQL. BENCH_LINES and BENCH_PODS make it smaller.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine, delete, func, insert, select, text

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.observe import GPUResources, read_pod
from gpucloud_spawner.metering.query import Query
from gpucloud_spawner.metering.recorder import record_pods
from gpucloud_spawner.metering.statements import usage
from gpucloud_spawner.metering.tables import INTERVAL, POSITION
from gpucloud_spawner.model.usage import DAY, month_window
from tests.metering.cluster import Cluster
from tests.metering.conftest import make_hub_tables
from tests.metering.objects import T0, a_pod, deleted, ended, running
from tests.metering.postgres import PostgresServer, find_binaries

from . import _hub_delay
from .report import report

LINES = int(os.environ.get("BENCH_LINES") or 1_000_000)
PODS = int(os.environ.get("BENCH_PODS") or 5_000)
USERS = 5_000
ROUNDS = 7
ENOUGH_SECONDS = 10.0  # for one comparison: fewer rounds on a slow machine
MONTH = month_window("2026-10")

# Pseudo-random by multiplication, so that both databases make the same lines by themselves.
FILL = """
INSERT INTO gpucloud_interval (uid, namespace, pod, node, component, owner, team, app, job, profile,
  product, resource, gpus, price_nano, start_at, start_source, end_at, end_source, finished_at,
  ended_alone, gone, last_seen, recorded_by)
WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < :lines),
m AS (SELECT i, (i * 7919) % 1000003 AS a, (i * 104729) % 1000033 AS b FROM n)
SELECT 'uid-' || i, 'default', 'pod-' || i, 'node-' || (a % 100), 'notebook',
  'user-' || (b % :users),
  'team-' || (b % 50), 'app-' || (a % 3), '', 'profile-' || (a % 4), 'product-' || (a % 3),
  'nvidia.com/gpu', a % 5, 500000000 * (1 + a % 3), :start + (a * 2593) % (30 * 86400), 'scheduled',
  :start + (a * 2593) % (30 * 86400) + b % 21600, 'containers', 0, :yes, :yes, 0, 'watch'
FROM m
"""
BY_HAND = """
SELECT owner, SUM(seconds), SUM(seconds * price_nano) FROM (
  SELECT owner, price_nano, gpus * ({least}(COALESCE(end_at, :now), :end)
    - {greatest}(start_at, :start)) AS seconds
  FROM gpucloud_interval WHERE start_at < :end AND (end_at > :start OR end_at IS NULL)) AS clipped
GROUP BY owner ORDER BY owner
"""


@contextmanager
def databases() -> Iterator[list[tuple[str, Engine]]]:
    """Databases with empty ledgers."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        urls = [("SQLite", f"sqlite:///{directory}/jupyterhub.sqlite")]
        binaries = find_binaries()
        if binaries is not None:
            # the table in memory, as on a server that was set up for it
            server = PostgresServer(binaries, shared_buffers="512MB")
            stack.callback(server.remove)
            server.start()
            urls.append(("PostgreSQL", server.new_database()))
        engines = []
        for name, url in urls:
            make_hub_tables(url)
            engine = db.make_engine(url)
            stack.callback(engine.dispose)
            db.upgrade(engine)
            engines.append((name, engine))
        yield engines


def median_seconds(work: Callable[[], Any]) -> float:
    times: list[float] = []
    while len(times) < 2 or (len(times) <= ROUNDS and sum(times) < ENOUGH_SECONDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])  # the first one warms the caches


def side_by_side(one: Callable[[], Any], other: Callable[[], Any]) -> list[tuple[float, float]]:
    """Seconds of two things, in turns: what else the machine does meets both."""
    times: list[tuple[float, float]] = []
    until = time.perf_counter() + ENOUGH_SECONDS
    while len(times) < 4 or (len(times) <= ROUNDS and time.perf_counter() < until):
        began = time.perf_counter()
        one()
        between = time.perf_counter()
        other()
        times.append((between - began, time.perf_counter() - between))
    return times[1:]


def ingest(engine: Engine, batch: int) -> float:
    """Events per second: bound, running, ended, gone of each pod, read and stored."""
    gpus = GPUResources()
    pods = min(PODS, 2000 if batch > 1 else 200)
    events = []
    for index in range(pods):
        pod = a_pod(f"uid-{index}")
        over = deleted(ended(pod, T0 + 60), T0 + 60, 0)
        events += [(pod, False), (running(pod, T0 + 2), False), (over, False), (over, True)]
    events.sort(key=lambda e: (e[1], str(e[0]["status"].get("phase"))))
    began = time.perf_counter()
    for at in range(0, len(events), batch):
        with db.writing(engine).begin() as connection:
            facts = [read_pod(pod, gpus, gone=gone) for pod, gone in events[at : at + batch]]
            record_pods(connection, facts, heartbeat=0, source="watch")
    spent = time.perf_counter() - began
    with db.writing(engine).begin() as connection:
        connection.execute(delete(INTERVAL))
    return len(events) / spent


def fill(engine: Engine, lines: int = LINES) -> None:
    """So many closed lines of one month, instead of what there is."""
    values = {"lines": lines, "users": USERS, "start": MONTH.start, "yes": True}
    with db.writing(engine).begin() as connection:
        connection.execute(delete(INTERVAL))
        for index in INTERVAL.indexes:  # much quicker made at once
            index.drop(connection)
        connection.execute(text(FILL), values)
        for index in INTERVAL.indexes:
            index.create(connection)
        connection.execute(delete(POSITION))
        connection.execute(insert(POSITION).values(stream="pods", heartbeat_at=MONTH.end))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        vacuum = "VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE"
        connection.exec_driver_sql(vacuum)
        assert connection.scalar(select(func.count()).select_from(INTERVAL)) == lines


def statements(engine: Engine) -> dict[str, float]:
    """Seconds of statements, and of the same by hand."""
    sqlite = engine.dialect.name == "sqlite"
    names = {"least": "min", "greatest": "max"} if sqlite else {}
    by_hand = text(BY_HAND.format(**(names or {"least": "LEAST", "greatest": "GREATEST"})))
    values = {"start": MONTH.start, "end": MONTH.end, "now": MONTH.end}

    def hand() -> list[Any]:
        with engine.connect() as connection:
            return list(connection.execute(by_hand, values))

    def ours(*groups: str, **filters: tuple[str, ...]) -> Any:
        return usage(engine, Query(MONTH, groups, filters))

    told = {row.group["user"]: row for row in ours("user").rows}
    for owner, seconds, amount in hand():  # the same question has the same answer
        assert (told[owner].gpu_seconds, told[owner].amount) == (seconds, amount)
    times = side_by_side(hand, lambda: ours("user"))
    result = {
        "by hand": statistics.median(theirs for theirs, _ in times),
        "by user": statistics.median(own for _, own in times),
        # of each pair, as the two were measured one after the other
        "ratio": statistics.median(own / theirs for theirs, own in times),
    }
    result["by team and day"] = median_seconds(lambda: ours("team", "day"))
    result["one user"] = median_seconds(lambda: ours("day", user=("user-77",)))
    return result


async def memory() -> dict[str, float]:
    """MiB of a meter process that follows so many pods, and how long it takes to know them."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/jupyterhub.sqlite"
        make_hub_tables(url)
        engine = db.make_engine(url)
        db.upgrade(engine)
        async with APIServer(Path(directory) / "cluster") as server:
            cluster = Cluster(server)
            await cluster.add_node("w", 8 * PODS)
            before = await _meter(server, url, engine, 0)
            for at in range(0, PODS, 50):
                names = [f"pod-{i}" for i in range(at, min(at + 50, PODS))]
                await asyncio.gather(*(cluster.create(name) for name in names))
                await asyncio.gather(*(cluster.bind(name, "w") for name in names))
            after = await _meter(server, url, engine, PODS)
            await cluster.close()
        engine.dispose()
    return {
        "MiB, no pods": before[0],
        f"MiB, {PODS} pods": after[0],
        f"seconds to list {PODS} pods": after[1],
    }


async def _meter(server: APIServer, url: str, engine: Engine, pods: int) -> tuple[float, float]:
    with db.writing(engine).begin() as connection:
        connection.execute(delete(POSITION))
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.metering.meter_process", str(server.kubeconfig), url,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    known = select(func.count()).select_from(INTERVAL)
    beats = select(func.count()).select_from(POSITION).where(POSITION.c.heartbeat_at > 0)

    def ready() -> bool:
        with engine.connect() as connection:
            return connection.scalar(known) == pods and connection.scalar(beats) == 3

    try:
        while not await asyncio.to_thread(ready):
            await asyncio.sleep(0.05)
        spent = time.perf_counter() - began
        await asyncio.sleep(5)  # at least one audit more
        return psutil.Process(process.pid).memory_info().rss / 2**20, spent
    finally:
        process.terminate()
        await process.wait()


def main() -> None:
    """Measure and report."""
    rows = []
    with databases() as engines:
        for name, engine in engines:
            row: dict[str, Any] = {"database": name}
            row["events/s"] = round(ingest(engine, 500))
            row["events/s, one by one"] = round(ingest(engine, 1))
            fill(engine)
            rows.append({**row, **statements(engine)})
            print({key: round(value, 3) for key, value in rows[-1].items() if key != "database"})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    report(
        "ledger",
        rows,
        lines=LINES,
        users=USERS,
        days=MONTH.seconds // DAY,
        peak_mib_of_this_process=peak,
        **asyncio.run(memory()),
        **_hub_delay.measure(lambda engine: fill(engine, LINES // 10)),
    )


if __name__ == "__main__":
    main()
