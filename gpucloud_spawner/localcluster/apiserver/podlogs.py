"""The log subresource: streams a container's log from the kubelet of the pod's node."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from .errors import APIError, bad_request, internal
from .kubelets import Kubelets, choose_container, status_of
from .requests import boolean
from .resources import served
from .store import Object, Store

log = logging.getLogger(__name__)
_OPTIONS = (
    "follow",
    "tailLines",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
)


class PodLogs:
    def __init__(self, store: Store, kubelets: Kubelets) -> None:
        self._store = store
        self._kubelets = kubelets

    async def stream(self, request: web.Request, namespace: str, name: str) -> web.StreamResponse:
        if request.method != "GET":
            raise bad_request("logs can only be read with GET")
        pod = self._store.get(served("pods"), namespace, name).load()
        container = choose_container(pod, request.query.get("container", ""))
        url = self._kubelet(pod, container, boolean(request, "previous"))
        query = {k: request.query[k] for k in _OPTIONS if k in request.query}
        for flag in ("follow", "previous", "timestamps"):
            if flag in query:
                query[flag] = "true" if boolean(request, flag) else "false"
        session, headers = self._kubelets.session, self._kubelets.headers
        try:
            async with session.get(url.with_query(query), headers=headers) as answer:
                return await _relay(request, answer)
        except aiohttp.ClientError as error:
            raise internal(f"Get {str(url)!r}: {error}") from error

    def _kubelet(self, pod: Object, container: str, previous: bool) -> URL:
        if not pod["spec"].get("nodeName"):
            raise bad_request(_waiting(container, pod["metadata"]["name"], "PodScheduled"))
        self._check_started(pod, container, previous)
        return self._kubelets.url(pod, "containerLogs", container)

    def _check_started(self, pod: Object, container: str, previous: bool) -> None:
        status = status_of(pod, container)
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
