"""The follower against a real API server: changes, outages, a history that is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes_asyncio.client import ApiException, CoreV1Api

from gpucloud_spawner.kube.watch import Follower, cancel_and_wait
from gpucloud_spawner.localcluster.apiserver import APIServer

log = logging.getLogger("test")


def configmap(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"t": "1"}}, "data": data}


class Followed:
    """A running follower and a way to wait for what it sees."""

    def __init__(self, api: CoreV1Api, **settings: float) -> None:
        self._changed = asyncio.Event()
        self.follower = Follower(
            api.list_namespaced_config_map,
            {"namespace": "default", "label_selector": "t=1"},
            what="config maps",
            on_change=self._changed.set,
            log=log,
            **settings,
        )
        self.task = asyncio.create_task(self.follower.run())

    @property
    def names(self) -> set[str]:
        return {key.partition("/")[2] for key in self.follower.objects}

    async def until(self, condition: Callable[[], bool], timeout: float = 15) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def followed(api: CoreV1Api) -> AsyncIterator[Followed]:
    made = Followed(api)
    yield made
    assert not made.task.done(), "a follower never ends by itself"
    await cancel_and_wait(made.task)


async def test_it_sees_what_is_added_changed_and_deleted(api: Any, followed: Followed) -> None:
    await api.create_namespaced_config_map("default", configmap("a", k="1"))
    await followed.until(lambda: followed.names == {"a"})
    await api.replace_namespaced_config_map("a", "default", configmap("a", k="2"))
    await followed.until(lambda: followed.follower.objects["default/a"]["data"] == {"k": "2"})
    await api.delete_namespaced_config_map("a", "default")
    await followed.until(lambda: not followed.names)


async def test_it_is_right_again_soon_after_an_outage(
    api: Any, followed: Followed, apiserver: APIServer, tmp_path: Path
) -> None:
    await api.create_namespaced_config_map("default", configmap("before"))
    await api.create_namespaced_config_map("default", configmap("stays"))
    await followed.until(lambda: followed.names == {"before", "stays"})
    port = apiserver.port
    await apiserver.stop()
    # what happens while it cannot see: the same state under another server on another port
    async with APIServer(tmp_path / "cluster", port=0) as elsewhere:
        api.api_client.configuration.host = elsewhere.url
        await api.delete_namespaced_config_map("before", "default")
        await api.create_namespaced_config_map("default", configmap("meanwhile"))
    async with APIServer(tmp_path / "cluster", port=port) as back:
        api.api_client.configuration.host = back.url
        await followed.until(lambda: followed.names == {"stays", "meanwhile"})


async def test_a_history_that_is_gone_is_listed_again(api: Any, followed: Followed) -> None:
    await api.create_namespaced_config_map("default", configmap("a"))
    await followed.until(lambda: followed.names == {"a"})
    # a resourceVersion from long before: the server answers the watch with 410
    followed.follower._resource_version = "1"
    followed.follower.objects.clear()
    await api.create_namespaced_config_map("default", configmap("b"))
    await followed.until(lambda: followed.names >= {"b"})


async def test_listing_what_may_not_be_seen_raises(api: CoreV1Api) -> None:
    api.api_client.configuration.api_key = {}
    follower = Follower(
        api.list_namespaced_config_map,
        {"namespace": "default"},
        what="config maps",
        on_change=lambda: None,
        log=log,
    )
    with pytest.raises(ApiException) as refused:
        await follower.list_once()
    assert refused.value.status in (401, 403)


async def test_being_blind_is_said_once_and_its_end_too(
    api: Any, apiserver: APIServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    followed = Followed(api, blind_after_seconds=0.3)
    await followed.until(lambda: followed.follower.listed)
    port = apiserver.port
    await apiserver.stop()
    await eventually(lambda: "BLIND" in caplog.text)
    assert followed.follower.blind_seconds >= 0.3
    async with APIServer(tmp_path / "cluster", port=port):
        await eventually(lambda: "is back" in caplog.text)
        assert followed.follower.blind_seconds == 0
    assert caplog.text.count("BLIND") == 1
    await cancel_and_wait(followed.task)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.02)


async def test_it_tells_which_object_changed_also_after_a_list(api: CoreV1Api) -> None:
    told: list[tuple[str, bool]] = []
    follower = Follower(
        api.list_namespaced_config_map,
        {"namespace": "default", "label_selector": "t=1"},
        what="config maps",
        on_change=lambda: None,
        on_object=lambda key, item: told.append((key, item is not None)),
        log=log,
    )
    for name in ("a", "b", "c"):
        await api.create_namespaced_config_map("default", configmap(name))
    await follower.list_once()
    assert sorted(told) == [(f"default/{name}", True) for name in ("a", "b", "c")]
    told.clear()
    # missed while nobody watched
    await api.delete_namespaced_config_map("a", "default")
    await api.patch_namespaced_config_map("b", "default", {"data": {"k": "2"}})
    await follower.list_once()
    assert sorted(told) == [("default/a", False), ("default/b", True)]
