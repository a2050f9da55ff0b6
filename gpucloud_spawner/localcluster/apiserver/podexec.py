"""The exec subresource: joins a client's WebSocket to that of the kubelet of the pod's node.

The messages are passed on as they are; what they mean is in `kubelet.exec`.
"""

from __future__ import annotations

import asyncio
import logging

import aiohttp
import orjson
from aiohttp import web

from .errors import APIError, bad_request, internal, not_implemented
from .kubelets import Kubelets, choose_container, status_of
from .requests import boolean
from .resources import served
from .store import Object, Store

log = logging.getLogger(__name__)
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_ERROR_CHANNEL = b"\x03"
_DEFAULTS = {"stdin": "false", "stdout": "true", "stderr": "true"}
_CLOSE_SECONDS = 2.0
Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


class PodExec:
    def __init__(self, store: Store, kubelets: Kubelets) -> None:
        self._store = store
        self._kubelets = kubelets

    async def serve(self, request: web.Request, namespace: str, name: str) -> web.StreamResponse:
        pod = self._store.get(served("pods"), namespace, name).load()
        container = choose_container(pod, request.query.get("container", ""))
        query = _options(request)
        _check_running(pod, container)
        # Last: kubectl tells only the answer to the SPDY request that follows a refusal.
        protocol = _protocol(request)
        url = self._kubelets.url(pod, "exec", container).with_query(query)
        client = web.WebSocketResponse(protocols=[protocol], compress=False)
        await client.prepare(request)
        try:
            async with self._kubelets.session.ws_connect(
                url,
                headers=self._kubelets.headers,
                protocols=[protocol],
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS),
            ) as kubelet:
                await _join(client, kubelet)
        except (aiohttp.ClientError, OSError) as error:
            problem = internal(f"the kubelet of the pod: {error}")
            await _pass(client, _ERROR_CHANNEL + orjson.dumps(problem.status()))
        await client.close()
        return client


def _options(request: web.Request) -> list[tuple[str, str]]:
    command = request.query.getall("command", [])
    if not any(command):
        raise bad_request("you must specify at least 1 command for the container")
    if boolean(request, "tty"):
        raise not_implemented("a terminal for pods/exec (tty=true, kubectl exec -t)")
    given = {**_DEFAULTS, **{key: request.query[key] for key in _DEFAULTS if key in request.query}}
    for key in given:
        if key in request.query:
            given[key] = "true" if boolean(request, key) else "false"
    if "true" not in given.values():
        raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
    return [*(("command", part) for part in command), *given.items()]


def _check_running(pod: Object, container: str) -> None:
    name, phase = pod["metadata"]["name"], pod.get("status", {}).get("phase", "Pending")
    if not pod["spec"].get("nodeName"):
        raise bad_request(f"pod {name} does not have a host assigned")
    if phase in ("Succeeded", "Failed"):
        raise bad_request(
            f"cannot exec into a container in a completed pod; current phase is {phase}"
        )
    if "running" not in status_of(pod, container).get("state", {}):
        raise bad_request(f'container "{container}" in pod "{name}" is not running')


def _protocol(request: web.Request) -> str:
    if request.headers.get("Upgrade", "").lower() != "websocket":
        asked = request.headers.get("Upgrade", "none")
        raise APIError(
            400,
            "BadRequest",
            f"exec needs an upgrade to a WebSocket ({' or '.join(PROTOCOLS)}), not {asked}",
        )
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    wanted = [part.strip() for part in offered.split(",")]
    for protocol in PROTOCOLS:
        if protocol in wanted:
            return protocol
    raise bad_request(f"exec speaks {' and '.join(PROTOCOLS)}, not {offered!r}")


async def _join(client: web.WebSocketResponse, kubelet: aiohttp.ClientWebSocketResponse) -> None:
    """Until one of the two ends."""
    ways = [
        asyncio.create_task(_pump(client, kubelet)),
        asyncio.create_task(_pump(kubelet, client)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _pump(source: Socket, sink: Socket) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.BINARY:
            data = message.data
        elif message.type is aiohttp.WSMsgType.TEXT:
            data = message.data.encode()
        else:
            continue
        if not await _pass(sink, data):
            return


async def _pass(sink: Socket, data: bytes) -> bool:
    try:
        await sink.send_bytes(data)
    except (aiohttp.ClientError, ConnectionError):
        log.debug("an exec's connection is gone")
        return False
    return True
