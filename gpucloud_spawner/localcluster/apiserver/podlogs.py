"""The log subresource: streams a container's log from the kubelet of the pod's node."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from .errors import APIError, bad_request, internal
from .requests import boolean
from .resources import served
from .store import Object, Store

log = logging.getLogger(__name__)
# The kubelets of this cluster read the same Secret and serve only who knows the token.
TOKEN_SECRET = ("kube-system", "kubelet-api")
_OPTIONS = (
    "follow",
    "tailLines",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
)
_CONNECT_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5)


class PodLogs:
    def __init__(self, store: Store, token: str) -> None:
        self._store = store
        self._headers = {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        # A kubelet's certificate is its own; the connection does not leave the machine.
        connector = aiohttp.TCPConnector(ssl=False, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=_CONNECT_TIMEOUT)

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def stream(self, request: web.Request, namespace: str, name: str) -> web.StreamResponse:
        if request.method != "GET":
            raise bad_request("logs can only be read with GET")
        pod = self._store.get(served("pods"), namespace, name).load()
        container = _container(pod, request.query.get("container", ""))
        url = self._kubelet(pod, container, boolean(request, "previous"))
        query = {k: request.query[k] for k in _OPTIONS if k in request.query}
        for flag in ("follow", "previous", "timestamps"):
            if flag in query:
                query[flag] = "true" if boolean(request, flag) else "false"
        assert self._session is not None
        try:
            async with self._session.get(url.with_query(query), headers=self._headers) as answer:
                return await _relay(request, answer)
        except aiohttp.ClientError as error:
            raise internal(f"Get {str(url)!r}: {error}") from error

    def _kubelet(self, pod: Object, container: str, previous: bool) -> URL:
        meta, node_name = pod["metadata"], pod["spec"].get("nodeName", "")
        if not node_name:
            raise bad_request(_waiting(container, meta["name"], "PodScheduled"))
        self._check_started(pod, container, previous)
        node = self._store.get(served("nodes"), "", node_name).load()
        port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        address = _address(node)
        if not address or not port:
            raise bad_request(f"the kubelet of node {node_name} serves no logs")
        path = f"/containerLogs/{meta['namespace']}/{meta['name']}/{container}"
        return URL.build(scheme="https", host=address, port=port, path=path)

    def _check_started(self, pod: Object, container: str, previous: bool) -> None:
        status = _status_of(pod, container)
        if previous:
            if not status.get("lastState", {}).get("terminated"):
                raise bad_request(
                    f'previous terminated container "{container}" in pod '
                    f'"{pod["metadata"]["name"]}" not found'
                )
            return
        waiting = status.get("state", {}).get("waiting")
        if waiting is None and status.get("state"):
            return
        if status.get("lastState", {}).get("terminated"):
            return  # between two runs: the log of the one before is still there
        reason = (waiting or {}).get("reason", "ContainerCreating")
        raise bad_request(_waiting(container, pod["metadata"]["name"], reason))


def _waiting(container: str, pod: str, reason: str) -> str:
    if reason in ("ErrImagePull", "ImagePullBackOff"):
        problem = {"ErrImagePull": "image can't be pulled"}.get(
            reason, "trying and failing to pull image"
        )
        return f'container "{container}" in pod "{pod}" is waiting to start: {problem}'
    return f'container "{container}" in pod "{pod}" is waiting to start: {reason}'


def _container(pod: Object, asked: str) -> str:
    spec = pod["spec"]
    names = [c["name"] for c in spec["containers"]]
    initial = [c["name"] for c in spec.get("initContainers", [])]
    name = pod["metadata"]["name"]
    if asked:
        if asked not in names + initial:
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    if len(names) == 1 and not initial:
        return str(names[0])
    choices = (
        f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
    )
    if initial:
        choices += f" or one of the init containers: [{' '.join(initial)}]"
    raise bad_request(choices)


def _status_of(pod: Object, container: str) -> dict[str, Any]:
    status = pod.get("status", {})
    for kind in ("containerStatuses", "initContainerStatuses"):
        for entry in status.get(kind, []):
            if entry["name"] == container:
                return entry
    return {}


def _address(node: Object) -> str:
    for entry in node["status"].get("addresses", []):
        if entry["type"] == "InternalIP":
            return str(entry["address"])
    return ""


async def _relay(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    if answer.status != 200:
        text = (await answer.text()).strip()
        raise _as_error(answer.status, text)
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError):
        log.debug("a log stream ended early")
    return response


def _as_error(code: int, text: str) -> APIError:
    try:
        status = orjson.loads(text)
        return APIError(code, status["reason"], status["message"], status.get("details"))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        reasons = {400: "BadRequest", 404: "NotFound", 401: "Unauthorized", 403: "Forbidden"}
        return APIError(code, reasons.get(code, "InternalError"), text or "the kubelet refused")
