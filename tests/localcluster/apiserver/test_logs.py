"""pods/log: the way to the kubelet, what is passed on and what is refused on the way."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gpucloud_spawner.localcluster.apiserver.pki import Certificates
from tests.localcluster.apiserver.conftest import PODS, Api, pod


class FakeKubelet:
    """A kubelet's log endpoint over HTTPS with a certificate that nobody signed."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[web.Request] = []
        self.more = asyncio.Event()
        self.closed = asyncio.Event()

    async def logs(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if request.match_info["container"] == "missing":
            raise web.HTTPNotFound(text="no such log")
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first line\n")
        try:
            if request.query.get("follow") == "true":
                await self.more.wait()
                await response.write(b"second line\n")
                await asyncio.sleep(60)
        finally:
            self.closed.set()
        return response


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[FakeKubelet]:
    fake = FakeKubelet()
    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", fake.logs)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    certificates = Certificates(tmp_path)
    certificates.ensure("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    fake.port = runner.addresses[0][1]
    yield fake
    await runner.cleanup()


async def running_pod(api: Api, kubelet: FakeKubelet, *names: str) -> None:
    body = pod("a")
    body["spec"]["containers"] = [{"name": n, "image": "busybox:1"} for n in names]
    await api.ok("POST", PODS, body)
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}},
    }
    await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n0"}, "status": status})
    await api.bind("a")
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    statuses = [{"name": n, "state": running, "image": "", "imageID": ""} for n in names]
    await api.status("a", phase="Running", containerStatuses=statuses)


async def refused(api: Api, **query: str) -> tuple[int, str]:
    status, answer = await api.call("GET", f"{PODS}/a/log", **query)
    assert answer["kind"] == "Status"
    return status, answer["message"]


async def test_a_log_comes_from_the_kubelet(api: Api, kubelet: FakeKubelet) -> None:
    await running_pod(api, kubelet, "c")
    query = {"tailLines": "5", "timestamps": "True", "unknown": "1"}
    async with api.session.get(f"{PODS}/a/log", params=query) as response:
        assert (response.status, response.content_type) == (200, "text/plain")
        assert await response.text() == "first line\n"
    request = kubelet.requests[0]
    assert request.path == "/containerLogs/default/a/c"
    assert dict(request.query) == {"tailLines": "5", "timestamps": "true"}
    secret = await api.ok("GET", "/api/v1/namespaces/kube-system/secrets/kubelet-api")
    token = base64.b64decode(secret["data"]["token"]).decode()
    assert request.headers["Authorization"] == f"Bearer {token}"
    admin: Any = api.session.headers["Authorization"]
    assert token not in admin


async def test_a_followed_log_is_passed_on_as_it_comes(api: Api, kubelet: FakeKubelet) -> None:
    await running_pod(api, kubelet, "c")
    async with asyncio.timeout(10):
        async with api.session.get(f"{PODS}/a/log", params={"follow": "1"}) as response:
            assert await response.content.readline() == b"first line\n"
            kubelet.more.set()
            assert await response.content.readline() == b"second line\n"
        await kubelet.closed.wait()  # the client has gone, so the kubelet's stream ends as well


async def test_which_container(api: Api, kubelet: FakeKubelet) -> None:
    await running_pod(api, kubelet, "c", "d")
    assert await refused(api) == (
        400,
        "a container name must be specified for pod a, choose one of: [c d]",
    )
    assert await refused(api, container="x") == (400, "container x is not valid for pod a")
    async with api.session.get(f"{PODS}/a/log", params={"container": "d"}) as response:
        assert response.status == 200
    assert await refused(api, container="c", previous="true") == (
        400,
        'previous terminated container "c" in pod "a" not found',
    )


async def test_a_pod_that_has_not_started(api: Api, kubelet: FakeKubelet) -> None:
    assert (await api.call("GET", f"{PODS}/a/log"))[0] == 404
    await api.create_pod("a")
    assert (await refused(api))[0] == 400
    await api.bind("a")
    text = 'container "c" in pod "a" is waiting to start: '
    assert await refused(api) == (400, text + "ContainerCreating")
    for reason, words in (
        ("ErrImagePull", "image can't be pulled"),
        ("ImagePullBackOff", "trying and failing to pull image"),
        ("CreateContainerConfigError", "CreateContainerConfigError"),
    ):
        state = {"name": "c", "state": {"waiting": {"reason": reason}}, "image": "", "imageID": ""}
        await api.status("a", containerStatuses=[state])
        assert await refused(api) == (400, text + words)


async def test_a_kubelet_that_refuses_or_is_gone(api: Api, kubelet: FakeKubelet) -> None:
    await running_pod(api, kubelet, "c", "missing")
    assert await refused(api, container="missing") == (404, "no such log")
    endpoint = {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}
    await api.patch("/api/v1/nodes/n0/status", {"status": endpoint})
    status, message = await refused(api, container="c")
    assert status == 500
    assert "127.0.0.1:1" in message
