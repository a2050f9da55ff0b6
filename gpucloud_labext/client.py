"""HTTP to the two servers that know things: the gpucloud service, and this pod's own server.

Both by the server's own token, which the pod has in its environment and which no browser sees.
Used by the handlers (async) and, in kernels, by the magics (sync).
"""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from .errors import LabError

# Seconds. The service answers in milliseconds; a statement over a long time may take longer.
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# A followed log is silent for as long as the training says nothing.
STREAM_TIMEOUT = httpx.Timeout(None, connect=5.0)
Params = Mapping[str, Any]


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Read once: it takes a tenth of a second, for which an event loop stands still."""
    return httpx.create_ssl_context()


class Client:
    """Requests below one address. Raises LabError for whatever is no success."""

    def __init__(self, url: str, token: str, name: str) -> None:
        self.url = url if url.endswith("/") else url + "/"
        self._name = name
        self._headers = {"Authorization": f"token {token}"} if token else {}

    def _options(self, timeout: httpx.Timeout) -> dict[str, Any]:
        """Of a connection. Not through a proxy that the environment names for the Internet: it
        would get the token, and does not reach this pod; JupyterHub's own requests use none."""
        return {
            "headers": self._headers,
            "timeout": timeout,
            "verify": _certificates(),
            "trust_env": False,
        }

    def request(
        self, method: str, path: str, *, params: Params | None = None, json: Any = None
    ) -> Any:
        """The JSON of the answer; None where it has none."""
        try:
            with httpx.Client(**self._options(TIMEOUT)) as client:
                answer = client.request(method, self.url + path, params=params, json=json)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return self._read(answer)

    async def request_async(
        self, method: str, path: str, *, params: Params | None = None, json: Any = None
    ) -> Any:
        """As `request`, from an event loop."""
        try:
            async with httpx.AsyncClient(**self._options(TIMEOUT)) as client:
                answer = await client.request(method, self.url + path, params=params, json=json)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return self._read(answer)

    @contextmanager
    def stream(self, path: str, params: Params | None = None) -> Iterator[httpx.Response]:
        """An answer that is read as it comes, e.g. with `iter_lines()`."""
        try:
            with (
                httpx.Client(**self._options(STREAM_TIMEOUT)) as client,
                client.stream("GET", self.url + path, params=params) as answer,
            ):
                if not answer.is_success:
                    answer.read()
                    self._read(answer)
                yield answer
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    @asynccontextmanager
    async def stream_async(
        self, path: str, params: Params | None = None
    ) -> AsyncIterator[httpx.Response]:
        """As `stream`, from an event loop."""
        try:
            async with (
                httpx.AsyncClient(**self._options(STREAM_TIMEOUT)) as client,
                client.stream("GET", self.url + path, params=params) as answer,
            ):
                if not answer.is_success:
                    await answer.aread()
                    self._read(answer)
                yield answer
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> LabError:
        what = "does not answer in time" if isinstance(error, httpx.TimeoutException) else ""
        what = what or "cannot be reached"
        return LabError(
            503,
            "service_unavailable",
            f"{self._name} {what}. Your notebook goes on; try again in a moment.",
            reason=str(error)[:200],
        )

    def _read(self, answer: httpx.Response) -> Any:
        try:
            body = answer.json() if answer.content else None
        except ValueError:
            body = None
        if answer.is_success:
            if body is None and answer.content:
                raise LabError(502, "bad_answer", f"{self._name} answered with something else.")
            return body
        if not isinstance(body, dict) or "message" not in body:
            body = {}
        if answer.status_code == 401:
            # not passed on: a browser would take it for its own login
            raise LabError(502, "token_refused", f"{self._name} does not know this server's token.")
        message = body.get("message") or f"{self._name} answered with {answer.status_code}."
        details = body.get("details")
        raise LabError(
            answer.status_code,
            str(body.get("code") or "refused"),
            str(message),
            **(details if isinstance(details, dict) else {}),
        )


def service() -> Client:
    """The gpucloud service beside the hub. Raises LabError outside of gpucloud."""
    url, token = os.environ.get("GPUCLOUD_API_URL"), os.environ.get("JUPYTERHUB_API_TOKEN")
    if not url or not token:
        raise LabError(
            503,
            "no_service",
            "This server was not started by gpucloud: there is no service to ask. Usage and jobs "
            "need GPUCLOUD_API_URL and JUPYTERHUB_API_TOKEN.",
        )
    return Client(url, token, "The gpucloud service")


def own_server() -> tuple[Client, str]:
    """This kernel's Jupyter server, and its base URL as a browser's path. Raises LabError."""
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if prefix:
        # JUPYTERHUB_SERVICE_URL is where the server listens: maybe on every address of the pod
        address = urlsplit(os.environ.get("JUPYTERHUB_SERVICE_URL") or "http://127.0.0.1:8888")
        host = address.hostname or "127.0.0.1"
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
        url = urljoin(f"{address.scheme}://{host}:{address.port or 8888}", prefix)
        return Client(url, os.environ.get("JUPYTERHUB_API_TOKEN", ""), "Your server"), prefix
    return _plain_server()


def _plain_server() -> tuple[Client, str]:
    """A Jupyter server without a hub: the one that started this kernel."""
    from jupyter_server.serverapp import list_running_servers

    servers = {int(server["pid"]): server for server in list_running_servers()}
    parent = int(os.environ.get("JPY_PARENT_PID") or os.getppid())
    found = servers.get(parent)
    if found is None:
        raise LabError(
            503,
            "no_server",
            "No Jupyter server of this kernel was found. Run this in a notebook on gpucloud.",
        )
    return Client(found["url"], found.get("token", ""), "Your server"), found["base_url"]
