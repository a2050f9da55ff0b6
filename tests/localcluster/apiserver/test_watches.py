"""Watches: what a client is told, in which order, and when it is told to start again."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer, store, watching
from tests.localcluster.apiserver.conftest import PODS, TABLE, Api


@pytest.mark.parametrize("flag", ["1", "t", "T", "true", "True", "TRUE"])
async def test_the_watch_flag_is_read_as_go_does(api: Api, flag: str) -> None:
    await api.create_pod("a")
    async with api.session.get(PODS, params={"watch": flag, "timeoutSeconds": "1"}) as response:
        assert json.loads(await response.content.readline())["type"] == "ADDED"


async def test_a_bad_flag_is_refused(api: Api) -> None:
    status, answer = await api.call("GET", PODS, watch="yes")
    assert (status, answer["reason"]) == (400, "BadRequest")


async def test_headers_come_before_any_event(api: Api) -> None:
    async with asyncio.timeout(10), api.watch(resourceVersion=await api.version()) as watch:
        assert watch.response.headers["Transfer-Encoding"] == "chunked"


@pytest.mark.parametrize("version", ["", "0"])
async def test_without_a_version_a_watch_starts_with_what_exists(api: Api, version: str) -> None:
    await api.create_pod("a")
    async with api.watch(resourceVersion=version) as watch:
        assert await watch.brief() == ("ADDED", "a")
        await api.create_pod("b")
        assert await watch.brief() == ("ADDED", "b")


async def test_a_watch_replays_what_happened_after_its_version(api: Api) -> None:
    before = await api.version()
    await api.create_pod("a")
    await api.bind("a")
    await api.ok("DELETE", f"{PODS}/a", gracePeriodSeconds="0")
    async with api.watch(resourceVersion=before) as watch:
        seen = [await watch.brief() for _ in range(4)]
    assert seen == [("ADDED", "a"), ("MODIFIED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_the_deleted_object_carries_the_version_of_its_deletion(api: Api) -> None:
    created = await api.create_pod("a")
    async with api.watch(resourceVersion=created["metadata"]["resourceVersion"]) as watch:
        await api.ok("DELETE", f"{PODS}/a")
        versions = [
            int((await watch.next())["object"]["metadata"]["resourceVersion"]) for _ in "md"
        ]
    assert int(created["metadata"]["resourceVersion"]) < versions[0] < versions[1]


async def test_a_too_old_version_is_an_error_event_with_http_200(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "HISTORY", 3)
    first = await api.create_pod("p0")
    for i in range(1, 6):
        await api.create_pod(f"p{i}")
    async with api.watch(resourceVersion=first["metadata"]["resourceVersion"]) as watch:
        event = await watch.next()
        assert event["type"] == "ERROR"
        assert event["object"]["code"] == 410
        assert event["object"]["reason"] == "Expired"
        assert event["object"]["message"].startswith("too old resource version: ")
        assert await watch.ended()


async def test_a_label_selector_turns_changes_into_comings_and_goings(api: Api) -> None:
    await api.create_pod("a", labels={"team": "red"})
    async with api.watch(resourceVersion=await api.version(), labelSelector="team=blue") as watch:
        await api.patch(f"{PODS}/a", {"metadata": {"labels": {"team": "blue"}}})
        changed = await api.patch(f"{PODS}/a", {"metadata": {"annotations": {"x": "y"}}})
        left = await api.patch(f"{PODS}/a", {"metadata": {"labels": {"team": "red"}}})
        await api.ok("DELETE", f"{PODS}/a")
        await api.create_pod("b", labels={"team": "blue"})
        events = [await watch.next() for _ in range(4)]
    assert [e["type"] for e in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED"]
    gone = events[2]["object"]
    assert gone["metadata"]["labels"] == changed["metadata"]["labels"] == {"team": "blue"}
    assert gone["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    assert events[3]["object"]["metadata"]["name"] == "b"


async def test_a_field_selector_follows_a_pod_to_its_node(api: Api) -> None:
    await api.create_pod("a")
    async with api.watch(fieldSelector="spec.nodeName=n1") as watch:
        await api.bind("a", "n1")
        assert await watch.brief() == ("ADDED", "a")


async def test_a_watch_of_a_namespace_sees_no_other(api: Api) -> None:
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "other"}})
    other = {"metadata": {"name": "x"}}
    async with api.watch("/api/v1/namespaces/other/configmaps") as watch:
        await api.ok("POST", "/api/v1/namespaces/default/configmaps", other)
        await api.ok("POST", "/api/v1/namespaces/other/configmaps", other)
        event = await watch.next()
    assert event["object"]["metadata"]["namespace"] == "other"


async def test_timeout_seconds_ends_a_watch_cleanly(api: Api) -> None:
    start = time.monotonic()
    async with api.watch(timeoutSeconds="1") as watch:
        assert await watch.ended()
    assert 0.8 < time.monotonic() - start < 15


async def test_bookmarks_come_after_the_state_and_then_periodically(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "BOOKMARK_EVERY", 0.1)
    await api.create_pod("a")
    query = {
        "allowWatchBookmarks": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
    }
    async with api.watch(**query) as watch:
        assert await watch.brief() == ("ADDED", "a")
        end = await watch.next()
        assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert end["object"]["metadata"]["resourceVersion"] == await api.version()
        # A bookmark of pods moves on with the whole cluster, so that a quiet watch does not age.
        await api.ok("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "c"}})
        version = await api.version()
        while (event := await watch.next())["object"]["metadata"]["resourceVersion"] != version:
            assert event["type"] == "BOOKMARK"
        assert "annotations" not in event["object"]["metadata"]


async def test_initial_events_need_a_version_match(api: Api) -> None:
    status, answer = await api.call("GET", PODS, watch="1", sendInitialEvents="true")
    assert status == 400
    assert "resourceVersionMatch" in answer["message"]


async def test_a_client_that_does_not_read_is_cut_off(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its backlog must not fill the memory of the server."""
    monkeypatch.setattr(watching, "BACKLOG", 20)
    text = "x" * 200_000
    async with api.watch("/api/v1/namespaces/default/configmaps") as watch:
        for i in range(120):
            body = {"metadata": {"name": f"c{i}"}, "data": {"k": text}}
            await api.ok("POST", "/api/v1/namespaces/default/configmaps", body)
        with pytest.raises(Exception) as cut:
            while True:
                await watch.next()
    assert "ended" in str(cut.value) or type(cut.value).__module__.startswith("aiohttp")
    assert len(await api.names("/api/v1/namespaces/default/configmaps")) == 120


async def test_a_watch_ends_with_its_client(apiserver: APIServer, api: Api) -> None:
    watchers = apiserver._api._watchers
    async with api.watch():
        assert len(watchers) == 1
    async with asyncio.timeout(15):
        while watchers:
            await asyncio.sleep(0.01)


async def test_a_table_watch_names_the_columns_once(api: Api) -> None:
    await api.create_pod("a")
    await api.create_pod("b")
    query = {"watch": "1", "timeoutSeconds": "1"}
    async with api.session.get(PODS, params=query, headers={"Accept": TABLE}) as response:
        events: list[Any] = [json.loads(line) async for line in response.content]
    tables = [event["object"] for event in events]
    assert [table["kind"] for table in tables] == ["Table", "Table"]
    assert tables[0]["columnDefinitions"][0]["name"] == "Name"
    assert tables[1]["columnDefinitions"] is None
    assert tables[1]["rows"][0]["cells"][:3] == ["b", "0/1", "Pending"]
