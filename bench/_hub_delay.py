"""Delay of the hub's event loop: alone, and beside a service that is asked for big statements.

As the hub itself measures it (event_loop_interval_seconds of its /hub/metrics). In both cases
somebody asks the hub's API without a pause, and both use one SQLite file.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from sqlalchemy import Engine

from gpucloud_spawner.metering import db
from tests.e2e.cloud import Cloud, wait_for

CONFIG = Path(__file__).parent.parent / "hub_config" / "jupyterhub_config.py"
SECONDS = 20
BUCKET = "event_loop_interval_seconds_bucket{le="


def measure(fill: Callable[[Engine], None]) -> dict[str, float]:
    """Milliseconds; ``fill`` puts lines into a ledger."""
    found: dict[str, float] = {}
    for name, environment in (
        # one that is declared, but that nobody runs
        (
            "alone",
            {"GPUCLOUD_SERVICE_URL": "http://127.0.0.1:9", "GPUCLOUD_SERVICE_TOKEN": "of-nobody"},
        ),
        ("beside the service", {}),
    ):
        with tempfile.TemporaryDirectory() as directory:
            cloud = Cloud(Path(directory), CONFIG, **environment)
            try:
                cloud.start()
                if not environment:
                    _fill(cloud, fill)
                found |= _delays(cloud, name, statements=not environment)
            finally:
                cloud.stop()
    return found


def _fill(cloud: Cloud, fill: Callable[[Engine], None]) -> None:
    engine = db.make_engine(f"sqlite:///{cloud.data / 'jupyterhub.sqlite'}")
    wait_for(lambda: db.current(engine) == db.head(), "the ledger is open")
    fill(engine)
    engine.dispose()


def _delays(cloud: Cloud, name: str, *, statements: bool) -> dict[str, float]:
    admin = cloud.user("admin")
    headers = {"Authorization": f"token {admin.token}"}
    ended = threading.Event()
    asked = 0

    def ask_for_statements() -> None:
        nonlocal asked
        with httpx.Client(base_url=cloud.url, headers=headers, timeout=60) as client:
            while not ended.is_set():
                answer = client.get("/services/gpucloud/api/usage?group_by=user&month=2026-10")
                assert answer.status_code == 200, answer.text
                asked += 1

    asking = threading.Thread(target=ask_for_statements)
    if statements:
        asking.start()
    before = _histogram(cloud, headers)
    until = time.monotonic() + SECONDS
    calls = 0
    with httpx.Client(base_url=cloud.url, headers=headers, timeout=60) as client:
        while time.monotonic() < until:
            assert client.get("/hub/api/users").status_code == 200
            calls += 1
    after = _histogram(cloud, headers)
    ended.set()
    if statements:
        asking.join()
    counts = {le: after[le] - before.get(le, 0) for le in after}
    result = {
        f"hub loop delay {name}, {share:.0%} at most (ms)": _quantile(counts, share) * 1000
        for share in (0.5, 0.99, 1.0)
    }
    result[f"hub API calls/s {name}"] = calls / SECONDS
    if statements:
        result["statements asked for meanwhile"] = asked
    return result


def _histogram(cloud: Cloud, headers: dict[str, str]) -> dict[float, float]:
    text = httpx.get(f"{cloud.url}/hub/metrics", headers=headers, timeout=30).text
    lines = [line.split(BUCKET, 1)[1] for line in text.splitlines() if BUCKET in line]
    pairs = [line.replace('"', "").split("} ") for line in lines]
    return {float(le): float(count) for le, count in pairs}


def _quantile(counts: dict[float, float], share: float) -> float:
    """The bound of the bucket in which ``share`` of the intervals lie."""
    total = max(counts.values())
    return min(le for le, count in counts.items() if count >= share * total)
