"""A whole gpucloud whose service runs on its own, as a Deployment would, and people with rights."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import Engine, insert

from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.tables import INTERVAL
from gpucloud_spawner.model.usage import epoch, month_of
from tests.e2e.cloud import Cloud, User, wait_for
from tests.ports import free_ports

SITE = Path(__file__).parent / "site.py"
HERE = Path(__file__).parent
WITH_A_HUB = tuple(f"test_{name}.py" for name in ("roles", "api", "page", "budgets", "s3"))
OCTOBER = epoch("2025-10-07T10:00:00Z")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE and item.path.name in WITH_A_HUB:
            item.add_marker(pytest.mark.e2e)


class Service:
    """The service as a process of its own beside ``cloud``'s hub."""

    def __init__(self, cloud: Cloud, port: int, token: str) -> None:
        self.cloud = cloud
        self.url = f"http://127.0.0.1:{port}/services/gpucloud/"
        self.token = token
        self.environment = {
            **cloud.environment,
            "GPUCLOUD_RUN": "1",  # the same configuration as that hub's, S3 included
            "GPUCLOUD_S3": "rclone",
            "KUBECONFIG": str(cloud.kubeconfig),
            "JUPYTERHUB_API_URL": f"http://127.0.0.1:{cloud.port + 1}/hub/api",
            "JUPYTERHUB_API_TOKEN": token,
            "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
        }
        self.log = cloud.data / "service.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gpucloud_spawner.portal", "--config", str(SITE)],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        wait_for(self.answers, "the service answers")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        with suppress(httpx.TransportError):
            return httpx.get(self.url + "health").status_code == 200
        return False

    def stop(self) -> int:
        """As a cluster ends a pod; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        # its threads go on until one of them has seen the signal
        own = psutil.Process(self.process.pid)
        wait_for(lambda: own.status() == psutil.STATUS_STOPPED, "the service hangs")

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


Ask = Callable[..., httpx.Response]


class Site:
    """The cloud, its service, its ledger, and tokens by role."""

    def __init__(self, cloud: Cloud, service: Service) -> None:
        self.cloud = cloud
        self.service = service
        self.engine: Engine = db.make_engine(f"sqlite:///{cloud.data / 'jupyterhub.sqlite'}")
        self.people: dict[str, User] = {}
        self.tokens: dict[str, str] = {"nobody": ""}

    def user(self, name: str) -> User:
        if name not in self.people:
            self.people[name] = self.cloud.user(name)
            self.tokens[name] = self.people[name].token
        return self.people[name]

    def ask(self, who: str, path: str, method: str = "GET", **arguments: Any) -> httpx.Response:
        """A request to the service through the proxy, with the token of ``who``."""
        token = self.tokens[who]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{self.cloud.url}/services/gpucloud/{path}"
        return httpx.request(method, url, headers=headers, timeout=30, **arguments)


def interval(**values: Any) -> dict[str, Any]:
    """A closed line of the ledger."""
    row: dict[str, Any] = dict.fromkeys(
        ("namespace", "pod", "node", "team", "app", "job", "product", "resource"), ""
    )
    row |= {"uid": secrets.token_hex(8), "component": "notebook", "profile": "tensorflow"}
    row |= {"gpus": 1, "price_nano": 2 * 10**9, "start_source": "scheduled"}
    row |= {"end_source": "containers", "ended_alone": True, "gone": True}
    row |= {"failed_at": None, "deleted_at": None, "last_seen": None, "recorded_by": "test"}
    row |= values
    return {**row, "finished_at": row["end_at"]}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    token = secrets.token_hex(16)
    cloud = Cloud(tmp_path_factory.mktemp("gpucloud"), config=SITE, TEST_TOKEN=token)
    port = free_ports()
    cloud.environment |= {
        "GPUCLOUD_SERVICE_URL": f"http://127.0.0.1:{port}",
        "GPUCLOUD_SERVICE_TOKEN": token,
    }
    service = Service(cloud, port, token)
    try:
        # before the hub: it serves, and waits for the hub's tables and for the cluster
        service.start()
        cloud.start()
        found = Site(cloud, service)
        for name in ("ada", "bob", "vera", "dora", "admin"):
            found.user(name)
        found.tokens |= {name: f"{token}-{name}" for name in ("auditor", "namesake", "prometheus")}
        made = found.user("ada").api("POST", "/tokens", json={"scopes": ["read:users:name!user"]})
        found.tokens["without-access"] = made.json()["token"]
        wait_for(lambda: found.ask("admin", "api/prices").status_code == 200, "the ledger is open")
        _fill(found)
        yield found
        found.engine.dispose()
    finally:
        try:
            cloud.stop()
        finally:
            code = service.stop()
    assert code == 0


def _fill(site: Site) -> None:
    hour = 3600
    now = int(time.time()) - 5
    since = max(month_of(now).start, now - 60)
    rows = [
        interval(
            owner="ada", team="vision", app="train", start_at=OCTOBER, end_at=OCTOBER + 2 * hour
        ),
        interval(
            owner="ada", app="=cmd()", gpus=2, start_at=OCTOBER + 86400, end_at=OCTOBER + 90000
        ),
        interval(owner="vera", team="vision", start_at=OCTOBER, end_at=OCTOBER + hour),
        interval(owner="bob", app="<script>", start_at=OCTOBER, end_at=OCTOBER + 100),
        # this month: more than 80 % of ada's 100 hours, whatever the length of the interval
        interval(owner="ada", start_at=since, end_at=now, gpus=90 * hour // (now - since)),
    ]
    with db.writing(site.engine).begin() as connection:
        connection.execute(insert(INTERVAL), rows)


@pytest.fixture
def ask(site: Site) -> Ask:
    return site.ask


@pytest.fixture(autouse=True, scope="session")
def _no_proxy_of_the_machine() -> None:
    os.environ.setdefault("NO_PROXY", "127.0.0.1")
