"""Writes that every kind shares: versions, preconditions, patches, dry runs, deletion, errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from gpucloud_spawner.localcluster.apiserver import APIServer
from tests.localcluster.apiserver.conftest import PODS, Api, pod

MAPS = "/api/v1/namespaces/default/configmaps"


async def config_map(api: Api, name: str = "m", **fields: Any) -> Any:
    metadata = {"name": name, **fields.pop("metadata", {})}
    return await api.ok("POST", MAPS, {"metadata": metadata, **fields})


async def test_a_stale_put_is_a_conflict(api: Api) -> None:
    old = await config_map(api, data={"a": "1"})
    await api.ok("PUT", f"{MAPS}/m", {**old, "data": {"a": "2"}})
    status, answer = await api.call("PUT", f"{MAPS}/m", {**old, "data": {"a": "3"}})
    assert (status, answer["reason"]) == (409, "Conflict")
    assert answer["message"] == (
        'Operation cannot be fulfilled on configmaps "m": the object has been modified; please '
        "apply your changes to the latest version and try again"
    )
    assert answer["details"] == {"name": "m", "kind": "configmaps"}
    status, answer = await api.call(
        "PATCH",
        f"{MAPS}/m",
        {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}},
        kind="application/merge-patch+json",
    )
    assert (status, answer["reason"]) == (409, "Conflict")
    assert (await api.ok("GET", f"{MAPS}/m"))["data"] == {"a": "2"}


async def test_a_put_without_a_version_is_unconditional(api: Api) -> None:
    await config_map(api, data={"a": "1"})
    body = {"metadata": {"name": "m"}, "data": {"a": "2"}}
    assert (await api.ok("PUT", f"{MAPS}/m", body))["data"] == {"a": "2"}


async def test_a_put_for_another_uid_is_a_conflict(api: Api) -> None:
    await config_map(api)
    body = {"metadata": {"name": "m", "uid": "other"}}
    status, answer = await api.call("PUT", f"{MAPS}/m", body)
    assert status == 409
    assert "Precondition failed: UID in precondition: other" in answer["message"]


async def test_a_write_that_changes_nothing_keeps_the_version(api: Api) -> None:
    old = await config_map(api, data={"a": "1"})
    same = await api.ok("PUT", f"{MAPS}/m", old)
    again = await api.patch(f"{MAPS}/m", {"data": {"a": "1"}})
    assert same["metadata"] == again["metadata"] == old["metadata"]


async def test_system_fields_cannot_be_written(api: Api) -> None:
    old = await config_map(api)
    forged = {"creationTimestamp": "2001-01-01T00:00:00Z", "deletionTimestamp": None}
    new = await api.patch(f"{MAPS}/m", {"metadata": {**forged, "labels": {"x": "y"}}})
    assert new["metadata"]["creationTimestamp"] == old["metadata"]["creationTimestamp"]
    assert new["metadata"]["uid"] == old["metadata"]["uid"]
    created = await config_map(api, "n", metadata={"uid": "mine", "deletionTimestamp": None})
    assert created["metadata"]["uid"] != "mine"


async def test_name_and_namespace_must_be_those_of_the_path(api: Api) -> None:
    await config_map(api)
    for metadata in ({"name": "other"}, {"name": "m", "namespace": "kube-system"}):
        status, answer = await api.call("PUT", f"{MAPS}/m", {"metadata": metadata})
        assert (status, answer["reason"]) == (400, "BadRequest")
    body = {"metadata": {"name": "x", "namespace": "kube-system"}}
    assert (await api.call("POST", MAPS, body))[0] == 400
    body = {"metadata": {"name": "x", "resourceVersion": "5"}}
    assert (await api.call("POST", MAPS, body))[0] == 400


async def test_neither_name_nor_generate_name(api: Api) -> None:
    status, answer = await api.call("POST", MAPS, {"metadata": {}})
    assert status == 422
    assert answer["details"]["causes"][0]["message"] == (
        "Required value: name or generateName is required"
    )


async def test_dry_runs_change_nothing(api: Api) -> None:
    body = {"metadata": {"name": "m"}, "data": {"a": "1"}}
    made = await api.ok("POST", MAPS, body, dryRun="All")
    assert made["metadata"]["uid"]
    assert await api.names(MAPS) == []
    await config_map(api, data={"a": "1"})
    assert (await api.call("POST", MAPS, body, dryRun="All"))[0] == 409
    assert (await api.patch(f"{MAPS}/m", {"data": {"a": "2"}}, dryRun="All"))["data"]["a"] == "2"
    await api.ok("DELETE", f"{MAPS}/m", {"dryRun": ["All"]})
    assert (await api.ok("GET", f"{MAPS}/m"))["data"] == {"a": "1"}
    assert (await api.call("DELETE", f"{MAPS}/m", dryRun="Some"))[0] == 400


async def test_a_strategic_patch_merges_lists_by_their_keys(api: Api) -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    body = pod("a", tolerations=[{"key": "x", "operator": "Exists"}])
    body["spec"]["containers"][0]["env"] = env
    await api.ok("POST", PODS, body)
    ready = {"type": "Ready", "status": "True"}
    await api.patch(f"{PODS}/a/status", {"status": {"conditions": [ready]}}, "strategic")
    other = {"type": "Initialized", "status": "True"}
    patched = await api.patch(
        f"{PODS}/a/status",
        {"status": {"conditions": [{**ready, "status": "False"}, other]}},
        "strategic",
    )
    found = {c["type"]: c["status"] for c in patched["status"]["conditions"]}
    assert found == {"Ready": "False", "Initialized": "True"}
    image = {"spec": {"containers": [{"name": "c", "image": "busybox:2"}]}}
    patched = await api.patch(f"{PODS}/a", image, "strategic")
    assert patched["spec"]["containers"][0]["image"] == "busybox:2"
    assert patched["spec"]["containers"][0]["env"] == env
    removal = {"status": {"conditions": [{"type": "Ready", "$patch": "delete"}]}}
    patched = await api.patch(f"{PODS}/a/status", removal, "strategic")
    assert [c["type"] for c in patched["status"]["conditions"]] == ["Initialized"]


async def test_a_merge_patch_replaces_lists(api: Api) -> None:
    await api.create_pod("a")
    await api.status("a", conditions=[{"type": "A", "status": "True"}])
    patched = await api.status("a", conditions=[{"type": "B", "status": "True"}])
    assert [c["type"] for c in patched["status"]["conditions"]] == ["B"]


async def test_json_patches(api: Api) -> None:
    await config_map(api, data={"a": "1"})
    operations = [
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "move", "from": "/data/a", "path": "/data/b"},
    ]
    assert (await api.patch(f"{MAPS}/m", operations, "json"))["data"] == {"b": "1"}
    for patch, wanted in (
        ([{"op": "test", "path": "/data/b", "value": "2"}], 422),
        ([{"op": "remove", "path": "/data/zzz"}], 422),
        ([{"op": "jump", "path": "/data"}], 400),
        ({"data": {}}, 400),
    ):
        status, _ = await api.call("PATCH", f"{MAPS}/m", patch, kind="application/json-patch+json")
        assert status == wanted, patch


async def test_a_patch_cannot_bring_in_a_wrong_type(api: Api) -> None:
    await config_map(api)
    status, answer = await api.call(
        "PATCH", f"{MAPS}/m", {"data": {"a": 1}}, kind="application/merge-patch+json"
    )
    assert status == 400
    assert "cannot unmarshal number into Go struct field ConfigMap.data" in answer["message"]


async def test_delete_preconditions(api: Api) -> None:
    made = await config_map(api)
    for name, value in (("uid", "other"), ("resourceVersion", "1")):
        body = {"preconditions": {name: value}}
        status, answer = await api.call("DELETE", f"{MAPS}/m", body)
        assert (status, answer["reason"]) == (409, "Conflict")
        assert f'"m": Precondition failed: {"UID" if name == "uid" else "Res"}' in answer["message"]
    meta = made["metadata"]
    right = {k: meta[k] for k in ("uid", "resourceVersion")}
    answer = await api.ok("DELETE", f"{MAPS}/m", {"preconditions": right})
    assert answer["status"] == "Success"
    assert answer["details"] == {"name": "m", "kind": "configmaps", "uid": meta["uid"]}


async def test_delete_a_collection(api: Api) -> None:
    for i in range(5):
        await config_map(api, f"c{i}", metadata={"labels": {"odd": str(i % 2)}})
    answer = await api.ok("DELETE", MAPS, labelSelector="odd=1")
    assert [item["metadata"]["name"] for item in answer["items"]] == ["c1", "c3"]
    assert await api.names(MAPS) == ["c0", "c2", "c4"]
    await api.ok("DELETE", MAPS)
    assert await api.names(MAPS) == []
    assert (await api.call("DELETE", "/api/v1/configmaps"))[0] == 405


async def test_finalizers_hold_any_object(api: Api) -> None:
    await config_map(api, metadata={"finalizers": ["example.org/a", "example.org/b"]})
    await api.ok("DELETE", f"{MAPS}/m")
    held = await api.patch(f"{MAPS}/m", {"metadata": {"finalizers": ["example.org/b"]}})
    assert held["metadata"]["deletionTimestamp"]
    status, answer = await api.call(
        "PATCH",
        f"{MAPS}/m",
        {"metadata": {"finalizers": ["example.org/b", "example.org/new"]}},
        kind="application/merge-patch+json",
    )
    assert status == 422
    assert "no new finalizers can be added if the object is being deleted" in answer["message"]
    assert (await api.call("POST", MAPS, {"metadata": {"name": "m"}}))[0] == 409
    await api.patch(f"{MAPS}/m", {"metadata": {"finalizers": []}})
    assert (await api.call("GET", f"{MAPS}/m"))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "wanted"),
    [
        ("POST", MAPS, b"{", (400, "BadRequest")),
        ("POST", MAPS, b"[]", (400, "BadRequest")),
        ("POST", MAPS, {"kind": "Pod", "apiVersion": "v1"}, (400, "BadRequest")),
        ("POST", MAPS, {"kind": "ConfigMap", "apiVersion": "v2"}, (400, "BadRequest")),
        ("PUT", MAPS, {}, (405, "MethodNotAllowed")),
        ("POST", f"{MAPS}/m", {}, (405, "MethodNotAllowed")),
        ("POST", "/api/v1/configmaps", {}, (405, "MethodNotAllowed")),
        ("GET", "/api/v1/configmaps/m", None, (405, "MethodNotAllowed")),
        ("OPTIONS", MAPS, None, (405, "MethodNotAllowed")),
        ("GET", f"{MAPS}/m/status", None, (404, "NotFound")),
        ("GET", "/api/v1/namespaces/default/nodes", None, (404, "NotFound")),
        ("GET", "/apis/nothing.example.org/v1/things", None, (404, "NotFound")),
        ("GET", "/nothing", None, (404, "NotFound")),
        ("POST", f"{PODS}/a/exec", {}, (404, "NotFound")),
        ("PUT", f"{PODS}/a/exec", {}, (405, "MethodNotAllowed")),
        ("POST", f"{PODS}/a/attach", {}, (501, "NotImplemented")),
        ("GET", f"{PODS}/a/portforward", None, (501, "NotImplemented")),
        ("POST", f"{PODS}/a/eviction", {}, (501, "NotImplemented")),
        ("GET", "/api/v1/nodes/n/proxy/pods", None, (501, "NotImplemented")),
        ("GET", "/api/v1/watch/pods", None, (501, "NotImplemented")),
        ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles", None, (501, "NotImplemented")),
    ],
)
async def test_refusals(
    api: Api, method: str, path: str, body: Any, wanted: tuple[int, str]
) -> None:
    status, answer = await api.call(method, path, body)
    assert (status, answer["reason"], answer["code"]) == (*wanted, wanted[0]), answer
    assert (answer["kind"], answer["status"]) == ("Status", "Failure")


async def test_a_body_may_be_yaml_but_not_anything(api: Api) -> None:
    text = yaml.safe_dump({"metadata": {"name": "m"}, "data": {"a": "1"}}).encode()
    assert (await api.ok("POST", MAPS, text, kind="application/yaml"))["data"] == {"a": "1"}
    protobuf = "application/vnd.kubernetes.protobuf"
    status, answer = await api.call("POST", MAPS, b"k8s\0", kind=protobuf)
    assert (status, answer["reason"]) == (415, "UnsupportedMediaType")
    status, answer = await api.call("POST", MAPS, b"a: [", kind="application/yaml")
    assert (status, answer["reason"]) == (400, "BadRequest")


async def test_a_body_has_a_limit(api: Api) -> None:
    status, answer = await api.call("POST", MAPS, b" " * (3 * 1024 * 1024 + 1))
    assert (status, answer["reason"]) == (413, "RequestEntityTooLarge")


async def test_tokens(apiserver: APIServer, api: Api) -> None:
    for wrong in ("Bearer wrong", "Bearer w\u00f6rong", "Basic YTpi"):
        api.session.headers["Authorization"] = wrong
        assert (await api.call("GET", PODS))[0] == 401
    status, answer = await api.call("GET", PODS)
    assert (status, answer["reason"], answer["message"]) == (401, "Unauthorized", "Unauthorized")
    api.session.headers["Authorization"] = ""
    status, answer = await api.call("POST", f"{PODS}", {})
    assert (status, answer["reason"]) == (403, "Forbidden")
    assert answer["message"] == (
        'pods is forbidden: User "system:anonymous" cannot create resource "pods" in API group "" '
        'in the namespace "default"'
    )
    assert (await api.call("GET", "/api"))[1]["message"] == (
        'forbidden: User "system:anonymous" cannot get path "/api"'
    )
    async with api.session.get("/readyz") as response:
        assert await response.text() == "ok"
    assert (await api.call("GET", "/version"))[1]["minor"] == "36"


@pytest.mark.parametrize("mode", ["Strict", "Warn", "Ignore", "Loud"])
async def test_unknown_fields_deep_in_a_patch(api: Api, mode: str) -> None:
    await api.create_pod("a")
    status, answer = await api.call(
        "PATCH",
        f"{PODS}/a/status",
        {"status": {"conditions": [{"type": "X", "status": "True", "bogus": 1}]}},
        kind="application/merge-patch+json",
        fieldValidation=mode,
    )
    warning = api.headers.get("Warning")
    place = "status.conditions[0].bogus"
    if mode == "Strict":
        assert status == 400
        assert answer["message"].endswith(f'strict decoding error: unknown field "{place}"')
    elif mode == "Loud":
        assert status == 400
    else:
        assert status == 200
        assert "bogus" not in json.dumps(answer)
        assert warning == (rf'299 - "unknown field \"{place}\""' if mode == "Warn" else None)


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"labels": {"a b": "c"}}, "metadata.labels"),
        ({"labels": {"a": "-"}}, "metadata.labels"),
        ({"labels": {"a": "x" * 64}}, "metadata.labels"),
        ({"annotations": {"UPPER/a": "c", "x y": ""}}, "metadata.annotations"),
        ({"annotations": {"a": "x" * 262_144}}, "metadata.annotations"),
        ({"finalizers": ["a/b/c"]}, "metadata.finalizers"),
        ({"ownerReferences": [{"kind": "Pod"}]}, "metadata.ownerReferences[0].apiVersion"),
        ({"name": "Upper"}, "metadata.name"),
        ({"name": "x" * 254}, "metadata.name"),
    ],
)
async def test_metadata_is_validated(api: Api, metadata: dict[str, Any], field: str) -> None:
    status, answer = await api.call("POST", MAPS, {"metadata": {"name": "m", **metadata}})
    assert (status, answer["reason"]) == (422, "Invalid")
    assert answer["details"]["causes"][0]["field"] == field
    assert await api.names(MAPS) == []
