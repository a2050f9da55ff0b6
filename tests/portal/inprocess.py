"""The service without a hub: a thread with the real service, a real cluster, real S3, and a server
that answers what the service asks a hub. Much quicker than a hub with its proxy.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from kubernetes_asyncio.client import CoreV1Api
from sqlalchemy import Engine
from traitlets.config import Config

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.controllers import Controllers, Periods
from gpucloud_spawner.metering import db
from gpucloud_spawner.portal.app import Portal
from gpucloud_spawner.portal.settings import HubAccess, load_settings
from tests.localcluster.support import everything
from tests.metering.conftest import make_hub_tables
from tests.ports import free_ports
from tests.storage import servers

ACCESS = "access:services!service=gpucloud"
ADMIN = "custom:gpucloud:admin"
PREFIX = "/services/gpucloud/"
OWN_TOKEN = "service"


def person(name: str, *groups: str, scopes: tuple[str, ...] = (ACCESS,)) -> dict[str, Any]:
    return {"kind": "user", "name": name, "groups": list(groups), "scopes": list(scopes)}


def robot(name: str, *scopes: str) -> dict[str, Any]:
    return {"kind": "service", "name": name, "scopes": [ACCESS, *scopes]}


class Hub:
    """What the service asks a hub: whose token it is, and who is in which group."""

    def __init__(self, people: dict[str, dict[str, Any]], groups: list[dict[str, Any]]) -> None:
        self.people = people  # by token
        # what the hub gives the service itself
        people[OWN_TOKEN] = robot("gpucloud", "read:users:name")
        self.groups = groups
        self.questions = 0  # of the service about itself

    async def user(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").rpartition(" ")[2]
        self.questions += token == OWN_TOKEN
        model = self.people.get(token)
        if model is None:
            return web.json_response({"status": 403}, status=403)
        return web.json_response(model)

    async def list_groups(self, request: web.Request) -> web.Response:
        return web.json_response({"items": self.groups, "_pagination": {"next": None}})

    async def named(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if not any(m["kind"] == "user" and m["name"] == name for m in self.people.values()):
            return web.json_response({"status": 404}, status=404)
        return web.json_response({"kind": "user", "name": name})

    async def start(self, stack: AsyncExitStack) -> str:
        application = web.Application()
        application.router.add_get("/hub/api/users/{name}", self.named)
        application.router.add_get("/hub/api/user", self.user)
        application.router.add_get("/hub/api/groups", self.list_groups)
        runner = web.AppRunner(application)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}/hub/api"


class Service:
    """The service and its cluster in a thread; `ask` speaks HTTP to it."""

    def __init__(self, folder: Path, hub: Hub, config: Config) -> None:
        self.folder = folder
        self.hub = hub
        self.config = config
        self.url = ""
        self.engine: Engine = db.make_engine(f"sqlite:///{folder / 'jupyterhub.sqlite'}")
        self.kube: CoreV1Api | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        make_hub_tables(str(self.engine.url))
        self._thread.start()
        self._ready.wait(120)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        self.engine.dispose()
        assert not self._thread.is_alive()
        assert self._failure is None

    def ask(self, who: str, path: str, method: str = "GET", **arguments: Any) -> httpx.Response:
        """A request with the token of ``who``; "nobody" has none."""
        headers = {} if who == "nobody" else {"Authorization": f"Bearer {who}"}
        url = f"{self.url}{PREFIX}{path}"
        return httpx.request(method, url, headers=headers, timeout=60, **arguments)

    def left(self, selector: str, *, active: bool = False) -> list[str]:
        """Names of the cluster's services, jobs and pods with a label; or of pods not yet ended."""
        assert self._loop is not None
        work = asyncio.run_coroutine_threadsafe(self._left(selector, active), self._loop)
        return work.result(30)

    async def _left(self, selector: str, active: bool) -> list[str]:
        found = []
        for kind in ("pods",) if active else ("services", "jobs", "pods"):
            listed = await self.cluster.client.list(kind, "default", label_selector=selector)
            for item in listed["items"]:
                ended = item.get("status", {}).get("phase") in ("Succeeded", "Failed")
                if not (active and ended):
                    found.append(f"{kind}/{item['metadata']['name']}")
        return found

    def tasks(self, words: str) -> int:
        """How many of the service's tasks have these words in their description."""
        assert self._loop is not None

        async def count() -> int:
            return sum(words in repr(task) for task in asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self._loop).result(30)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        periods = Periods(job_backoff=0.2, job_backoff_max=1.0)
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(APIServer(self.folder / "apiserver"))
            self.cluster = await stack.enter_async_context(everything(server, self.folder, count=2))
            await stack.enter_async_context(Controllers(self.cluster.client, periods))
            access = HubAccess(api_url=await self.hub.start(stack), api_token=OWN_TOKEN)
            os.environ["KUBECONFIG"] = str(server.kubeconfig)
            port = free_ports()
            settings = load_settings(self.config, {})
            settings = replace(
                settings,
                listen=("127.0.0.1", port),
                departures_seconds=0.5,
            )
            portal = Portal(settings, access)
            await portal.start()
            stack.push_async_callback(portal.stop)
            self.url = f"http://127.0.0.1:{port}"
            self._ready.set()
            await self._stop.wait()


@contextmanager
def serving(folder: Path, hub: Hub, config: Config) -> Iterator[Service]:
    """A service with an S3 server of its own; ``config`` gets what only is known here."""
    before = os.environ.get("KUBECONFIG")
    with servers.running(folder / "s3") as store:
        config.GPUCloudSpawner.s3_provider = servers.provider(store)
        config.GPUCloudSpawner.namespace = "default"
        config.JupyterHub.db_url = f"sqlite:///{folder / 'jupyterhub.sqlite'}"
        service = Service(folder, hub, config)
        try:
            service.start()
            yield service
        finally:
            service.stop()
            if before is None:
                os.environ.pop("KUBECONFIG", None)
            else:
                os.environ["KUBECONFIG"] = before
