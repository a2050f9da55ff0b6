"""A short way for these tests to talk to the API server: `api`."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from tests.localcluster.conftest import admin_session

PODS = "/api/v1/namespaces/default/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def pod(name: str, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "busybox:1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"containers": [container], **spec},
    }


class Watch:
    """An open watch; `next()` gives its events one by one."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, Any]:
        line = await self.response.content.readline()
        assert line, "the watch has ended"
        event: dict[str, Any] = json.loads(line)
        return event

    async def brief(self) -> tuple[str, str]:
        event = await self.next()
        return event["type"], event["object"]["metadata"]["name"]

    async def ended(self) -> bool:
        return await self.response.content.readline() == b""


class Api:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.headers: Any = {}

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        kind: str = "application/json",
        accept: str = "",
        **query: str,
    ) -> tuple[int, Any]:
        headers = {"Accept": accept} if accept else {}
        data = None
        if body is not None:
            headers["Content-Type"] = kind
            data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self.session.request(
            method, path, params=query, data=data, headers=headers
        ) as response:
            self.headers = response.headers
            return response.status, json.loads(await response.read())

    async def ok(self, method: str, path: str, body: Any = None, **options: str) -> Any:
        status, answer = await self.call(method, path, body, **options)
        assert status < 300, answer
        return answer

    async def patch(self, path: str, body: Any, kind: str = "merge", **query: str) -> Any:
        media = {"merge": "merge-patch", "strategic": "strategic-merge-patch", "json": "json-patch"}
        return await self.ok("PATCH", path, body, kind=f"application/{media[kind]}+json", **query)

    async def create_pod(self, name: str, **more: Any) -> Any:
        return await self.ok("POST", PODS, pod(name, **more))

    async def bind(self, name: str, node: str = "n0") -> None:
        body = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
        await self.ok("POST", f"{PODS}/{name}/binding", body)

    async def status(self, name: str, **status: Any) -> Any:
        return await self.patch(f"{PODS}/{name}/status", {"status": status})

    async def names(self, path: str = PODS, **query: str) -> list[str]:
        answer = await self.ok("GET", path, **query)
        return [item["metadata"]["name"] for item in answer["items"]]

    async def version(self) -> str:
        return str((await self.ok("GET", PODS))["metadata"]["resourceVersion"])

    @asynccontextmanager
    async def watch(self, path: str = PODS, **query: str) -> AsyncIterator[Watch]:
        async with self.session.get(path, params={"watch": "1", **query}) as response:
            assert response.status == 200, await response.text()
            yield Watch(response)


@pytest.fixture
async def api(apiserver: APIServer) -> AsyncIterator[Api]:
    async with admin_session(apiserver) as session:
        yield Api(session)
