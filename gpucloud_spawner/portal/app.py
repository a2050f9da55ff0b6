"""The service put together: its parts, its background tasks, and their orderly end.

The one place that knows all rooms. It serves from its first second: what needs the database or the
cluster says so while they are away.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from kubernetes_asyncio.client import ApiClient, ApiException, CoreV1Api
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from sqlalchemy.exc import DBAPIError
from tornado.httpserver import HTTPServer
from tornado.web import Application

from ..jobs.logs import JobLogs
from ..jobs.metrics import JobMetrics
from ..kube.connection import NoCluster, connect
from ..kube.inventory import InventoryReader
from ..kube.watch import cancel_and_wait
from ..metering import db
from ..metering.job_records import JobRecords
from ..metering.meter import Meter, MeterSettings
from ..metering.metrics import LedgerMetrics
from ..metering.prices import sync_site_prices
from ..storage.keys import S3Keys
from ..storage.s3 import S3Error
from .accounts import Accounts
from .auth import Teams, make_hub_auth
from .contract import MAX_BODY_BYTES
from .departures import Departures
from .errors import PortalError
from .handler import NotFound
from .job_service import JobService
from .routes import NOT_FOUND, ROUTES, mount
from .settings import HubAccess, Settings, SettingsError

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")
Objects = list[dict[str, Any]]

TEMPLATES = Path(__file__).parent / "templates"
RETRY_SECONDS = 3.0
BIND_RETRY_SECONDS = 0.2
OPENING_SECONDS = 10.0  # for the database, before we serve without it: the hub waits 30 s for us
QUERY_THREADS = 4


class Portal:
    """One service process. `start()`, then `stop()`; both once."""

    def __init__(self, settings: Settings, hub: HubAccess) -> None:
        self.settings = settings
        self.hub = hub
        self.routes = ROUTES
        self.hub_auth = make_hub_auth(hub)
        self.teams = Teams(hub)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.metrics = LedgerMetrics(self.registry)
        self.job_metrics = JobMetrics(self.registry)
        self.engine = db.make_engine(settings.db_url)
        self.job_records = JobRecords(self.engine)
        self.is_ready = False
        self._threads = ThreadPoolExecutor(QUERY_THREADS, thread_name_prefix="gpucloud-query")
        self._server: HTTPServer | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._client: ApiClient | None = None
        self._inventory: InventoryReader | None = None
        self._meter: Meter | None = None
        self._s3_keys: S3Keys | None = None
        self._jobs: JobService | None = None
        self.departures = Departures(
            Accounts(hub),
            self.job_records,
            self._in_thread,
            leads=lambda: self._meter is not None and self._meter.leads,
            wake=self.wake_job,
            revoke=self._revoke_key,
            seconds=settings.departures_seconds,
        )

    async def start(self) -> None:
        """Open the ledger, serve, and meter.

        A hub whose service ends at the first start ends with it: so only mistakes that no waiting
        mends are raised, SchemaError (the ledger is of a newer version) and SettingsError (there
        is no such address).
        """
        opening = asyncio.create_task(self._open_first())
        self._tasks.append(opening)
        await asyncio.wait([opening], timeout=OPENING_SECONDS)
        if opening.done() and (mistake := opening.result()):
            raise mistake
        await self._listen()
        self._tasks.append(asyncio.create_task(self._keep_trying(opening)))

    async def stop(self) -> None:
        """Stop serving, store what has arrived, and let go of everything."""
        for task in self._tasks:
            await cancel_and_wait(task)
        if self._server is not None:
            self._server.stop()
            await self._server.close_all_connections()
        if self._jobs is not None:
            await self._jobs.stop()
        if self._meter is not None:
            await self._meter.stop()
        if self._client is not None:
            await self._client.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.engine.dispose()

    # -- what handlers ask for

    async def ask_ledger(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a blocking question in a thread. Raises PortalError while there is no ledger."""
        if not self.is_ready:
            raise PortalError(
                503, "ledger_starting", "The ledger waits for its database. Try again in a moment."
            )
        return await self._in_thread(call, *args, **kwargs)

    async def look_at_cluster(self) -> tuple[Objects, Objects] | None:
        """Nodes and pods as they are now; None where the cluster does not tell."""
        return None if self._inventory is None else await self._inventory.snapshot()

    @property
    def kube(self) -> CoreV1Api:
        """The cluster. Raises PortalError while there is no way to it."""
        if self._client is None:
            raise PortalError(
                503, "cluster_unavailable", "The cluster does not answer at the moment. Try again."
            )
        return CoreV1Api(self._client)

    @property
    def s3_keys(self) -> S3Keys:
        """Users' S3 keys. Raises PortalError where the site has none, or while nobody can tell."""
        provider, namespace = self.settings.s3_provider, self.settings.pod_namespace
        if provider is None:
            raise PortalError(404, "s3_off", "This site has no S3 storage.")
        if namespace is None:
            raise PortalError(
                404, "s3_off", "S3 keys are not served where every user has a namespace."
            )
        if self._s3_keys is None:  # one for all requests: it lets one rotation follow the other
            self._s3_keys = S3Keys(provider, self.kube, namespace)
        return self._s3_keys

    @property
    def job_logs(self) -> JobLogs:
        """The logs of jobs. Raises PortalError while there is no way to the cluster."""
        if self._jobs is None:
            raise PortalError(
                503, "cluster_unavailable", "The cluster does not answer at the moment. Try again."
            )
        return self._jobs.logs

    def wake_job(self, job: str) -> None:
        """A job was stored or is to be stopped: see to it now."""
        if self._jobs is not None:
            self._jobs.controller.wake(job)

    async def _revoke_key(self, user: str) -> bool:
        """End the key of a user who was deleted; False: not now."""
        try:
            await self.s3_keys.revoke(user)
        except PortalError as error:
            return error.status == 404  # this site has no keys
        except (S3Error, ApiException, OSError, TimeoutError) as error:
            log.warning("The S3 key of %s, who was deleted, lives on: %s", user, _first_line(error))
            return getattr(error, "code", "") == "s3_unsupported"  # by hand, then
        return True

    async def _in_thread(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: call(*args, **kwargs))

    # -- coming up

    async def _open_first(self) -> db.SchemaError | None:
        """Open the ledger where it can be had at once; returns what no waiting mends."""
        try:
            if await self._in_thread(db.hub_is_ready, self.engine):
                await self._in_thread(self._open_ledger)
        except db.SchemaError as error:
            return error
        except DBAPIError as error:
            log.error("The database does not answer yet: %s", _first_line(error))
        except Exception:
            log.exception("The ledger cannot be opened yet")  # tried again for as long as we run
        return None

    def _open_ledger(self) -> None:
        revision = db.upgrade(self.engine)
        prices = sync_site_prices(
            self.engine, self.settings.gpu_prices, self.settings.storage_price
        )
        log.info("The ledger is open, schema %s, %d new prices", revision, prices)
        self.is_ready = True

    async def _listen(self) -> None:
        application = Application(
            mount(self),
            cookie_secret=secrets.token_bytes(32),
            hub_host=self.hub.public_host,
            default_handler_class=NotFound,
            default_handler_args={"portal": self, "route": NOT_FOUND},
        )
        address, port = self.settings.listen
        # no xheaders: the client's address is nothing that we decide by
        self._server = HTTPServer(application, max_body_size=MAX_BODY_BYTES)
        self._server.add_socket(await _bound(address, port))
        log.info("Serving %s on %s:%d", self.hub.prefix, address, port)

    async def _keep_trying(self, opening: asyncio.Task[Any]) -> None:
        """Ledger, cluster, meter: each as soon as it can be had."""
        await asyncio.wait([opening])
        said = ""
        while self._meter is None:
            try:
                if not self.is_ready:
                    await self._in_thread(self._open_ledger)
                if self._client is None:
                    self._client = await connect()
                    self._inventory = InventoryReader(CoreV1Api(self._client))
                await self._start_meter(self._client)
                return
            except (DBAPIError, db.SchemaError, NoCluster) as error:
                if said != (said := _first_line(error)):
                    log.warning("Not metering yet: %s", said)
            except Exception:
                # the border of the loop: it must go on, or nothing would be metered until a restart
                log.exception("Not metering yet")
            await asyncio.sleep(RETRY_SECONDS)

    async def _start_meter(self, client: ApiClient) -> None:
        settings = MeterSettings(
            namespace=self.settings.namespace,
            gpus=self.settings.gpus,
            audit_seconds=self.settings.audit_seconds,
        )
        meter = Meter(self.engine, CoreV1Api(client), settings, self.metrics)
        if self.settings.pod_namespace is not None:
            assert self._inventory is not None
            self._jobs = await JobService.make(
                client,
                self.job_records,
                self.settings.pod_namespace,
                self.settings.jobs,
                leads=lambda: meter.leads,  # of several services, the one that meters
                inventory=self._inventory,
                metrics=self.job_metrics,
            )
            self._jobs.start()
        self._meter = meter
        await self._meter.start()
        self._tasks.append(asyncio.create_task(self.departures.run()))


async def _bound(address: str, port: int) -> socket.socket:
    """A socket that listens. A taken port is waited for; raises SettingsError on no address."""
    said = False
    while True:
        try:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            # not HTTPServer.listen, which leaves a socket unclosed for every failure
            listening = socket.create_server((address, port), family=family)
        except OSError as error:
            # taken, perhaps by the service of a hub that was just killed: it passes
            if error.errno != errno.EADDRINUSE:
                where = f"{address}:{port}"
                raise SettingsError(f"{where} is no address to serve on: {error}") from error
        else:
            listening.setblocking(False)
            return listening
        if not said:
            log.warning("Port %d of %s is taken: waiting until it is free", port, address)
            said = True
        await asyncio.sleep(BIND_RETRY_SECONDS)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
