"""The kubelet's HTTPS endpoint: container logs, exec and how full volumes are for the API server,
and its health.

One port for all nodes of the process. Who may ask is decided in `access`.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from ..apiserver.pki import Certificates
from ..client import KubeClient
from .access import Access
from .container import Container
from .exec import serve_exec
from .logs import LogOptions, read_log, truth
from .podworker import PodWorker

Finder = Callable[[str, str], PodWorker | None]
# What /stats/summary tells of the node of an address; None where there is no such node.
Summary = Callable[[str], Awaitable[dict[str, Any] | None]]


class Server:
    """Listens on one port of each node's address."""

    def __init__(
        self,
        client: KubeClient,
        data: Path,
        find: Finder,
        client_ca: Path | None = None,
        summary: Summary | None = None,
    ) -> None:
        self.data = data
        self.port = 0
        self._find = find
        self._summary = summary
        self._access = Access(client, client_ca)
        self._runner: web.AppRunner | None = None

    async def start(self, addresses: Iterable[str], port: int = 0) -> None:
        """Listens on each address at the same port; 0 finds a free one."""
        certificates = Certificates(self.data / "kubelet-tls")
        certificates.certificate.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        certificates.ensure("127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.certificate, certificates.key)
        self._access.prepare(context)
        app = web.Application()
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_get("/exec/{namespace}/{pod}/{container}", self._exec)
        app.router.add_get("/stats/summary", self._stats)
        app.router.add_route("*", "/{path:.*}", self._unknown)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5
        )
        await self._runner.setup()
        self.port = port
        for address in addresses:
            site = web.TCPSite(self._runner, address, self.port, ssl_context=context)
            await site.start()
            self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _unknown(self, request: web.Request) -> web.Response:
        await self._access.check(request)
        name = request.path.strip("/").partition("/")[0] or "/"
        raise web.HTTPNotImplemented(text=f"{name} is not implemented by this kubelet")

    def _container(self, request: web.Request) -> Container:
        namespace, pod, name = (
            request.match_info[key] for key in ("namespace", "pod", "container")
        )
        worker = self._find(namespace, pod)
        if worker is None:
            raise web.HTTPNotFound(text=f'pod "{pod}" not found')
        container = worker.container(name)
        if container is None:
            raise web.HTTPNotFound(text=f'container "{name}" not found in pod "{pod}"')
        return container

    async def _stats(self, request: web.Request) -> web.Response:
        await self._access.check(request)
        address = request.transport.get_extra_info("sockname")[0] if request.transport else ""
        found = await self._summary(address) if self._summary else None
        if found is None:
            raise web.HTTPNotFound(text=f"no node at {address}")
        return web.json_response(found)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        await self._access.check(request)
        return await serve_exec(request, self._container(request))

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        await self._access.check(request)
        container = self._container(request)
        pod, name = request.match_info["pod"], container.name
        try:
            options = LogOptions.from_query(dict(request.query))
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"invalid log options: {error}") from error
        previous = truth(request.query.get("previous"))
        path = container.log_path(previous)
        if path is None or not path.parent.exists():
            which = "previous terminated container" if previous else "container"
            raise web.HTTPBadRequest(text=f'{which} "{name}" in pod "{pod}" not found')
        instance = container.instance
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)

        def running() -> bool:
            return not previous and instance is not None and instance.running

        async for piece in read_log(path, options, running):
            await response.write(piece)
        return response
