"""The API server as a service: data directory, HTTPS, tokens, health, start and stop."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import orjson
from aiohttp import web

from ..kubeconfig import write_kubeconfig
from . import discovery, requests
from .api import API, answer, json_response
from .bootstrap import ensure_defaults
from .errors import APIError, forbidden, unauthorized, unknown_resource
from .kubelets import Kubelets
from .nodeproxy import NodeProxy
from .operations import Operations
from .persistence import Database
from .pki import Certificates
from .podexec import PodExec
from .podlogs import PodLogs
from .resources import served
from .store import Store

log = logging.getLogger(__name__)
CHECKPOINT_EVERY = 5.0
EVENT_SECONDS = 3600.0  # Kubernetes keeps events for an hour
EXPIRE_EVERY = 60.0
_EXPIRE_AT_ONCE = 100  # so that no sweep holds the loop for long
_OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class APIServer:
    """Serves one data directory. Use as an async context manager, or `start()` and `stop()`."""

    def __init__(self, data_dir: Path | str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.data_dir = Path(data_dir)
        self.host = host
        self.port = port
        self.kubeconfig = self.data_dir / "kubeconfig"
        self.ca = self.data_dir / "ca.crt"
        self.token = ""
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        async with AsyncExitStack() as stack:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            # The database holds every Secret, and the tokens of whoever may do anything here.
            self.data_dir.chmod(0o700)
            certificates = Certificates(self.data_dir)
            certificates.ensure(self.host)
            self._database = Database(self.data_dir / "cluster.sqlite")
            stack.push_async_callback(self._close_database)
            self._store = Store(self._database)
            self.token = self._kept("admin_token")
            kubelet_token = self._kept("kubelet_token")
            operations = Operations(self._store)
            ensure_defaults(operations, kubelet_token)
            kubelets = Kubelets(self._store, kubelet_token)
            await kubelets.start()
            stack.push_async_callback(kubelets.stop)
            logs, execs = PodLogs(self._store, kubelets), PodExec(self._store, kubelets)
            self._api = API(operations, logs, execs, NodeProxy(kubelets))
            await self._listen(certificates, stack)
            write_kubeconfig(self.kubeconfig, self.url, certificates.ca, self.token)
            for work in (self._checkpoint_for_ever(), self._expire_events_for_ever()):
                stack.push_async_callback(_end, asyncio.create_task(work))
            self._stack = stack.pop_all()
        log.info("the API server is ready at %s", self.url)

    async def stop(self) -> None:
        await self._stack.aclose()

    def _kept(self, name: str) -> str:
        """A random token that stays the same over restarts."""
        value = self._database.setting(name)
        if value is None:
            value = secrets.token_urlsafe(32)
            self._database.set(name, value)
        return value

    async def _listen(self, certificates: Certificates, stack: AsyncExitStack) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.certificate, certificates.key)
        app = web.Application(client_max_size=requests.BODY_LIMIT)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(self._api.end_watches)
        port = self.port or int(self._database.setting("port") or 0)
        site = web.TCPSite(runner, self.host, port, ssl_context=context, backlog=1024)
        await site.start()
        self.port = runner.addresses[0][1]
        self._database.set("port", str(self.port))

    async def _close_database(self) -> None:
        await asyncio.to_thread(self._database.checkpoint)
        self._database.close()

    async def _checkpoint_for_ever(self) -> None:
        checkpointed = -1
        while True:
            await asyncio.sleep(CHECKPOINT_EVERY)
            version = self._store.version
            if version != checkpointed:
                await asyncio.to_thread(self._database.checkpoint)
                checkpointed = version

    async def _expire_events_for_ever(self) -> None:
        events = served("events")
        while True:
            await asyncio.sleep(EXPIRE_EVERY)
            while self._store.expire(events, EVENT_SECONDS, _EXPIRE_AT_ONCE):
                await asyncio.sleep(0)

    # -- requests

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        return await answer(self._dispatch, request)

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self._authenticate(request)
        if path.startswith(("/api/v1/", "/apis/")) and path.rstrip("/").count("/") > (
            2 if path.startswith("/api/") else 3
        ):
            return await self._api.handle(request)
        return self._document(path.rstrip("/"))

    def _document(self, path: str) -> web.Response:
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        if path == "/version":
            return json_response(orjson.dumps(discovery.VERSION))
        if path == "/openapi/v3":
            return json_response(discovery.openapi_index())
        if path.startswith("/openapi/v3/"):
            return json_response(discovery.openapi(path.removeprefix("/openapi/v3/")))
        if path.startswith(("/api", "/apis")):
            return json_response(discovery.document(path, f"{self.host}:{self.port}"))
        raise unknown_resource()

    def _authenticate(self, request: web.Request) -> None:
        header = request.headers.get("Authorization", "")
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode(), self.token.encode()
        ):
            return
        if header:
            raise unauthorized()
        if request.path not in _OPEN_PATHS:
            raise _anonymous(request)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _anonymous(request: web.Request) -> APIError:
    """What Kubernetes tells somebody who shows no credentials."""
    who = 'User "system:anonymous" cannot'
    try:
        target = requests.parse_path(request.path)
    except APIError:
        verb = request.method.lower()
        text = f'forbidden: {who} {verb} path "{request.path}"'
        return APIError(403, "Forbidden", text, {})
    verb = _VERBS.get(request.method, "get" if target.name else "list")
    scope = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
    plural = target.resource.plural
    if target.subresource:
        plural += f"/{target.subresource}"
    why = f'{who} {verb} resource "{plural}" in API group "{target.resource.group}" {scope}'
    return forbidden(target.resource, target.name, why)
