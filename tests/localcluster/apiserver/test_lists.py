"""Lists: selectors, pages that stay consistent under writes, versions, Tables."""

from __future__ import annotations

from typing import Any

import pytest

from gpucloud_spawner.localcluster.apiserver import store
from tests.localcluster.apiserver.conftest import PODS, TABLE, Api

EVENTS = "/api/v1/namespaces/default/events"


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        ("", ["a", "b", "c"]),
        ("tier=x", ["a"]),
        ("tier==x", ["a"]),
        ("tier!=x", ["b", "c"]),
        ("tier in (x, y)", ["a", "b"]),
        ("tier notin (x)", ["b", "c"]),
        ("tier", ["a", "b"]),
        ("!tier", ["c"]),
        ("tier,app=web", ["b"]),
        ("app=web,tier in (y)", ["b"]),
        ("size>5", ["b"]),
        ("size<5", ["a"]),
        ("tier=", []),
    ],
)
async def test_label_selectors(api: Api, selector: str, wanted: list[str]) -> None:
    await api.create_pod("a", labels={"tier": "x", "size": "3"})
    await api.create_pod("b", labels={"tier": "y", "app": "web", "size": "7"})
    await api.create_pod("c", labels={"app": "db"})
    assert await api.names(labelSelector=selector) == wanted


@pytest.mark.parametrize(
    "selector", ["a in x", "a in (x", "=x", "a=b c", "a=b,", "!", "a=-b", "-a", "a>x", "(a)"]
)
async def test_bad_label_selectors(api: Api, selector: str) -> None:
    status, answer = await api.call("GET", PODS, labelSelector=selector)
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert "unable to parse requirement" in answer["message"]


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        ("metadata.name=a", ["a"]),
        ("metadata.name!=a", ["b"]),
        ("spec.nodeName=n0", ["a"]),
        ("spec.nodeName=", ["b"]),
        ("status.phase=Running,spec.nodeName==n0", ["a"]),
        ("status.phase!=Running", ["b"]),
        ("spec.restartPolicy=Always,metadata.namespace=default", ["a", "b"]),
        ("status.podIP=127.64.0.2", ["a"]),
    ],
)
async def test_field_selectors_of_pods(api: Api, selector: str, wanted: list[str]) -> None:
    await api.create_pod("a")
    await api.create_pod("b")
    await api.bind("a", "n0")
    await api.status("a", phase="Running", podIP="127.64.0.2")
    assert await api.names(fieldSelector=selector) == wanted


async def test_field_selectors_of_events(api: Api) -> None:
    for name, kind, reason in (("e1", "Pod", "Failed"), ("e2", "Node", "Ready")):
        body = {
            "metadata": {"name": name},
            "involvedObject": {"kind": kind, "name": "x", "namespace": "default", "uid": "u1"},
            "reason": reason,
            "type": "Warning",
            "source": {"component": "kubelet"},
        }
        await api.ok("POST", EVENTS, body)
    for selector, wanted in (
        ("involvedObject.kind=Pod", ["e1"]),
        ("involvedObject.uid=u1,reason=Ready", ["e2"]),
        ("source=kubelet,type!=Normal", ["e1", "e2"]),
    ):
        assert await api.names(EVENTS, fieldSelector=selector) == wanted
    status, answer = await api.call("GET", EVENTS, fieldSelector="spec.nodeName=x")
    assert (status, answer["message"]) == (400, "field label not supported: spec.nodeName")


async def test_pages_are_of_one_moment_whatever_is_written_between_them(api: Api) -> None:
    for name in "bdfh":
        await api.create_pod(name)
    first = await api.ok("GET", PODS, limit="2")
    assert first["metadata"]["remainingItemCount"] == 2
    await api.create_pod("a")
    await api.create_pod("e")
    await api.ok("DELETE", f"{PODS}/f")
    await api.patch(f"{PODS}/h", {"metadata": {"labels": {"new": "1"}}})
    rest = await api.ok("GET", PODS, limit="2", **{"continue": first["metadata"]["continue"]})
    assert [p["metadata"]["name"] for p in first["items"] + rest["items"]] == list("bdfh")
    assert rest["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}
    assert "labels" not in rest["items"][1]["metadata"]
    assert await api.names() == list("abdeh")


async def test_pages_over_all_namespaces_with_a_selector(api: Api) -> None:
    for i in range(3):
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": f"n{i}"}})
        for j in range(4):
            body = {"metadata": {"name": f"c{j}", "labels": {"even": str(j % 2 == 0)}}}
            await api.ok("POST", f"/api/v1/namespaces/n{i}/configmaps", body)
    found, token, pages = [], "", 0
    while True:
        more: dict[str, str] = {"continue": token} if token else {}
        query = {"labelSelector": "even=True", "limit": "4", **more}
        page = await api.ok("GET", "/api/v1/configmaps", **query)
        found += [(i["metadata"]["namespace"], i["metadata"]["name"]) for i in page["items"]]
        assert "remainingItemCount" not in page["metadata"]
        pages += 1
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert found == [(f"n{i}", f"c{j}") for i in range(3) for j in (0, 2)]
    assert pages == 2


async def test_an_expired_page_is_410_with_a_way_to_go_on(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        await api.create_pod(name)
    first = await api.ok("GET", PODS, limit="1")
    monkeypatch.setattr(store, "HISTORY", 1)
    for name in "def":
        await api.create_pod(name)
    token = first["metadata"]["continue"]
    status, answer = await api.call("GET", PODS, **{"continue": token})
    assert (status, answer["reason"], answer["code"]) == (410, "Expired", 410)
    fresh = answer["metadata"]["continue"]
    assert await api.names(**{"continue": fresh}) == list("bcdef")


async def test_a_bad_continue_token_is_refused(api: Api) -> None:
    status, answer = await api.call("GET", PODS, **{"continue": "nonsense"})
    assert (status, answer["reason"]) == (400, "BadRequest")


async def test_versions_of_lists(api: Api) -> None:
    await api.create_pod("a")
    then = await api.version()
    await api.create_pod("b")
    exact = {"resourceVersion": then, "resourceVersionMatch": "Exact"}
    assert await api.names(**exact) == ["a"]
    assert await api.names(resourceVersion=then, resourceVersionMatch="NotOlderThan") == ["a", "b"]
    assert await api.names(resourceVersion="0") == ["a", "b"]
    future = str(int(await api.version()) + 100)
    status, answer = await api.call("GET", PODS, resourceVersion=future)
    assert (status, answer["reason"]) == (504, "Timeout")
    assert answer["message"].startswith(f"Too large resource version: {future}, current: ")
    for query in (
        {"resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
        {"resourceVersionMatch": "Best", "resourceVersion": then},
        {"resourceVersion": "x"},
    ):
        assert (await api.call("GET", PODS, **query))[0] == 400


async def test_a_table_is_paged_like_a_list(api: Api) -> None:
    for name in "abc":
        await api.create_pod(name)
    table = await api.ok("GET", PODS, accept=TABLE, limit="2", includeObject="None")
    assert (table["kind"], len(table["rows"])) == ("Table", 2)
    assert table["metadata"]["remainingItemCount"] == 1
    assert "object" not in table["rows"][0]
    rest = await api.ok("GET", PODS, accept=TABLE, **{"continue": table["metadata"]["continue"]})
    assert [row["cells"][0] for row in rest["rows"]] == ["c"]
    assert rest["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


async def test_a_table_of_one_object_and_of_every_kind(api: Api) -> None:
    await api.create_pod("a")
    one = await api.ok("GET", f"{PODS}/a", accept=TABLE, includeObject="Object")
    assert one["rows"][0]["object"]["spec"]["containers"][0]["name"] == "c"
    for path in (
        "/api/v1/namespaces",
        "/api/v1/nodes",
        "/api/v1/persistentvolumes",
        "/api/v1/persistentvolumeclaims",
        "/api/v1/secrets",
        "/api/v1/services",
        "/api/v1/serviceaccounts",
        "/api/v1/events",
        "/apis/storage.k8s.io/v1/storageclasses",
        "/apis/coordination.k8s.io/v1/leases",
    ):
        table = await api.ok("GET", path, accept=TABLE)
        width = len(table["columnDefinitions"])
        assert width >= 3
        assert all(len(row["cells"]) == width for row in table["rows"])


async def test_only_what_the_client_accepts(api: Api) -> None:
    status, answer = await api.call("GET", PODS, accept="application/vnd.kubernetes.protobuf")
    assert (status, answer["reason"]) == (406, "NotAcceptable")
    preferring: Any = "application/vnd.kubernetes.protobuf,application/json"
    assert (await api.call("GET", PODS, accept=preferring))[0] == 200
