"""What no well-behaved client sends is refused with a Status that blames the client, and the server
goes on. Many cases share one server: each is quick, a server is not.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from gpucloud_spawner.localcluster.apiserver import APIServer, store

from .conftest import PODS, Api, pod

CONFIGS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"
NAN_DIGITS = "9" * 5000
DEEP = b'{"metadata":{"name":"d"},"data":' + b'{"a":' * 900 + b"1" + b"}" * 901


def with_spec(**fields: Any) -> dict[str, Any]:
    return pod("p", **fields)


def with_container(**fields: Any) -> dict[str, Any]:
    return pod("p", containers=[{"name": "c", "image": "busybox", **fields}])


def with_volume(**source: Any) -> dict[str, Any]:
    return pod("p", volumes=[{"name": "v", **source}])


async def refused(api: Api, method: str, path: str, body: Any = None, **options: str) -> str:
    """The message of a refusal that blames the client."""
    status, answer = await api.call(method, path, body, **options)
    assert 400 <= status < 500, (path, options, str(body)[:500], status, answer)
    assert answer["kind"] == "Status"
    return str(answer["message"])


QUERIES = [
    {"resourceVersion": "²"},
    {"resourceVersion": NAN_DIGITS},
    {"resourceVersion": "-1"},
    {"limit": NAN_DIGITS},
    {"limit": "1_0"},
    {"timeoutSeconds": "9" * 400, "watch": "1"},
    {"limit": "1", "continue": "eyJydiI6MWU0MDAsInN0YXJ0IjpbMSwyXX0"},
    {"limit": "1", "continue": "W10"},
    {"limit": "1", "continue": "bnVsbA"},
    {"limit": "1", "continue": "ÿ"},
    {"labelSelector": "a in (b"},
    {"labelSelector": "a=\ufffd"},
    {"labelSelector": "(((((("},
    {"labelSelector": "a=b\0"},
    {"labelSelector": "a>" + NAN_DIGITS},
    {"fieldSelector": "metadata.name"},
    {"fieldSelector": "=x"},
    {"watch": "\0"},
    {"resourceVersionMatch": "ÿ"},
]


async def test_queries(api: Api) -> None:
    for query in QUERIES:
        await refused(api, "GET", PODS, **query)


async def test_bytes_that_are_no_text(api: Api) -> None:
    for path in (f"{PODS}/%ff", f"{PODS}/%00", f"{PODS}/..%2f..%2fsecrets", f"{PODS}/%ED%A0%80"):
        await refused(api, "GET", path)
    for query in ("labelSelector=%ff", "fieldSelector=%ff=%fe", "continue=%ff", "limit=%ff"):
        async with api.session.get(URL(f"{PODS}?{query}", encoded=True)) as response:
            assert response.status < 500, await response.text()


BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe",
    b'{"metadata":{"name":"\\ud800"}}',
    b'{"metadata":{"name":"a\\u0000b"}}',
    b'{"metadata":[]}',
    b'{"metadata":{"name":5}}',
    b'{"metadata":{"name":"d","labels":{"a":{}}}}',
    b'{"kind":5}',
    b'{"apiVersion":{"a":1},"kind":["x"]}',
    b"[" * 5000,
    DEEP,
    b'{"metadata":{"name":"d","ownerReferences":[null]}}',
    b'{"metadata":{"name":"d","finalizers":[null]}}',
    b'{"metadata":{"name":"d","generateName":"' + b"x" * 300 + b'"},"data":5}',
]


async def test_bodies(api: Api) -> None:
    for body in BODIES:
        await refused(api, "POST", CONFIGS, body)
        await refused(api, "POST", CONFIGS, body, kind="application/yaml")


TEXTS = [
    # Every level doubles what the one before stands for.
    "a: &a [x, x]\n"
    + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghijklmnopqrstuvwxyz")
    ),
    "&a [*a]",
    "metadata: {name: '\\ud800'}\n--- {}",
    "? [a]\n: b",
    "!!python/object/apply:os.system [true]",
    "[" * 2000,
    "metadata: {name: d}\ndata: {k: 0x1f}",
    'metadata: {name: d}\ndata: {k: "\\ud800"}',
]


async def test_yaml(api: Api) -> None:
    for text in TEXTS:
        await refused(api, "POST", CONFIGS, text.encode(), kind="application/yaml")


async def test_yaml_as_kubernetes_reads_it(api: Api) -> None:
    text = "metadata: {name: d, annotations: {2024-01-01: '1'}}\ndata: {1: '2', when: '2024-01-01'}"
    made = await api.ok("POST", CONFIGS, text.encode(), kind="application/yaml")
    assert made["data"] == {"1": "2", "when": "2024-01-01"}
    assert made["metadata"]["annotations"] == {"2024-01-01": "1"}


SPECS = [
    with_container(resources={"limits": {"cpu": ""}}),
    with_container(resources={"limits": {"cpu": NAN_DIGITS}}),
    with_container(resources={"limits": {"cpu": "1e999999999"}}),
    with_container(name="../../x"),
    with_container(name="a\0b"),
    with_container(image=""),
    with_container(env=[{"name": "A\0"}]),
    with_container(env=[{"name": "A=B", "value": "x"}]),
    with_container(envFrom=[{"prefix": "A=", "secretRef": {"name": "s"}}]),
    with_container(volumeMounts=[{"name": "v", "mountPath": "/x"}]),
    with_container(ports=[{"containerPort": 99999}]),
    with_container(livenessProbe={"exec": {}}),
    with_container(livenessProbe={"httpGet": {"path": "/"}}),
    with_container(livenessProbe={"tcpSocket": {"port": 0}}),
    with_container(livenessProbe={}),
    with_container(livenessProbe={"exec": {"command": ["a"]}, "periodSeconds": -1}),
    with_container(lifecycle={"preStop": {}}),
    with_spec(terminationGracePeriodSeconds=-1),
    with_spec(activeDeadlineSeconds=0),
    with_spec(nodeName="../x"),
    with_spec(containers=[None]),
    with_spec(containers={}),
    with_spec(priority=2**40),
    with_spec(terminationGracePeriodSeconds=2**70),
    with_spec(nodeSelector={"a b": "c"}),
    with_volume(secret={"secretName": "s", "items": [{"key": "k", "path": "../x"}]}),
    with_volume(secret={"secretName": "s", "items": [{"key": "k", "path": "/x"}]}),
    with_volume(secret={"secretName": "s", "items": [{"key": "k", "path": "..data"}]}),
    with_volume(secret={"secretName": "s", "items": [{"key": "k"}]}),
    with_volume(configMap={"name": "m", "items": [{"path": "k"}]}),
    with_volume(downwardAPI={"items": [{"path": "a/../../x"}]}),
    with_volume(downwardAPI={"items": [{"path": "a"}]}),
    with_volume(projected={"sources": [{"secret": {"items": [{"key": "k", "path": "k"}]}}]}),
    with_volume(
        projected={"sources": [{"configMap": {"name": "m", "items": [{"key": "k", "path": "/k"}]}}]}
    ),
    with_spec(
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "x"}]}]
                }
            }
        }
    ),
    with_spec(
        affinity={
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"preference": {}}]
            }
        }
    ),
]


async def test_pods(api: Api) -> None:
    for body in SPECS:
        await refused(api, "POST", PODS, body)


async def test_keys_that_are_paths(api: Api) -> None:
    for key in ("..", ".", "..data", "a/b", "", "x" * 254, "a\0"):
        body = {"metadata": {"name": "s"}, "data": {key: ""}}
        await refused(api, "POST", SECRETS, body)
        await refused(api, "POST", CONFIGS, body)


PATCHES: list[tuple[str, Any]] = [
    ("json", [1]),
    ("json", [{"op": "add"}]),
    ("json", [{"op": "add", "path": 5, "value": 1}]),
    ("json", [{"op": "add", "path": "metadata", "value": 1}]),
    ("json", [{"op": "add", "path": "/metadata/labels/a/b", "value": "x"}]),
    ("json", [{"op": "add", "path": "/metadata/finalizers/-9", "value": "x"}]),
    ("json", [{"op": "replace", "path": "", "value": 5}]),
    ("json", [{"op": "copy", "from": 3, "path": "/x"}]),
    ("json", [{"op": "copy", "from": "/data", "path": f"/data/x{i}"} for i in range(64)]),
    ("json", [{"op": "test", "path": "/data/a", "value": "a"}] * 20_000),
    ("strategic", {"$patch": "explode"}),
    ("strategic", {"$retainKeys": 5}),
    ("strategic", {"metadata": {"$deleteFromPrimitiveList/finalizers": 5}}),
    ("strategic", {"metadata": {"$setElementOrder/finalizers": 5, "finalizers": ["a/b"]}}),
    ("strategic", {"metadata": {"ownerReferences": [5]}}),
    ("strategic", {"metadata": {"ownerReferences": [{"uid": {}}]}}),
    ("strategic", {"metadata": {"ownerReferences": [{"$patch": "replace"}, 5]}}),
    ("strategic", {"metadata": {"finalizers": [{"a": 1}]}}),
    ("merge", {"metadata": {"labels": 5}}),
    ("merge", {"metadata": {"resourceVersion": "²"}}),
    ("merge", {"data": {"a": 5}}),
    ("merge", []),
]


async def test_patches(api: Api) -> None:
    meta = {"name": "m", "labels": {"a": "b"}, "finalizers": ["a/b"]}
    await api.ok("POST", CONFIGS, {"metadata": meta, "data": {"a": "b"}})
    media = {"merge": "merge-patch", "strategic": "strategic-merge-patch", "json": "json-patch"}
    for kind, patch in PATCHES:
        await refused(api, "PATCH", f"{CONFIGS}/m", patch, kind=f"application/{media[kind]}+json")
        assert (await api.ok("GET", f"{CONFIGS}/m"))["data"] == {"a": "b"}


@pytest.mark.parametrize("kind", ["merge-patch", "strategic-merge-patch"])
async def test_deep_patches(api: Api, kind: str) -> None:
    await api.ok("POST", CONFIGS, {"metadata": {"name": "m"}})
    body = b'{"metadata":' + b'{"a":' * 1000 + b"1" + b"}" * 1001
    await refused(api, "PATCH", f"{CONFIGS}/m", body, kind=f"application/{kind}+json")


async def test_whatever_is_patched_away_the_object_keeps_its_form(api: Api) -> None:
    core = "/api/v1/namespaces/default"
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    volume = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}
    service = {"ports": [{"port": 80}]}
    classes, leases = "/apis/storage.k8s.io/v1", "/apis/coordination.k8s.io/v1/namespaces/default"
    objects = {
        f"{core}/pods": pod("x"),
        f"{core}/persistentvolumeclaims": {"spec": claim},
        f"{core}/secrets": {"data": {"a": "Yg=="}},
        f"{core}/configmaps": {"data": {"a": "b"}},
        f"{core}/services": {"spec": service},
        f"{core}/events": {"involvedObject": {"namespace": "default"}},
        f"{core}/serviceaccounts": {},
        f"{leases}/leases": {},
        f"{classes}/storageclasses": {"provisioner": "x/y"},
        "/api/v1/persistentvolumes": {"spec": volume},
        "/api/v1/nodes": {},
        "/api/v1/namespaces": {},
    }
    for path, obj in objects.items():
        before = await api.ok("POST", path, {**obj, "metadata": {"name": "x"}})
        for field, subresource, kind in itertools.product(
            ("metadata", "spec", "status", "data", "type", "provisioner"),
            ("", "/status"),
            ("merge-patch", "strategic-merge-patch"),
        ):
            media = f"application/{kind}+json"
            place = f"{path}/x{subresource}"
            status, answer = await api.call("PATCH", place, {field: None}, kind=media)
            assert status < 500, (place, field, answer)
        after = await api.ok("GET", f"{path}/x")
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        for part in ("spec", "status", "type"):
            assert (part in after) == (part in before), (path, part)
        await api.ok("DELETE", f"{path}/x", gracePeriodSeconds=str(10**17))


async def test_a_grace_period_beyond_the_calendar(api: Api) -> None:
    await api.create_pod("a", terminationGracePeriodSeconds=2**50)
    await api.bind("a")
    await api.ok("DELETE", f"{PODS}/a")
    left = await api.ok("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0})
    assert left["metadata"]["name"] == "a"


async def test_a_body_that_is_too_large(api: Api) -> None:
    big = json.dumps({"metadata": {"name": "m"}, "data": {"a": "x" * 4_000_000}}).encode()
    assert "too large" in await refused(api, "POST", CONFIGS, big)
    assert await api.names(CONFIGS) == []


async def test_a_taint_that_says_nothing(api: Api) -> None:
    await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
    for taint in ({"effect": "NoSchedule"}, {"key": "a"}, {"key": "a", "effect": "Never"}):
        patch = {"spec": {"taints": [taint]}}
        kind = "application/merge-patch+json"
        await refused(api, "PATCH", "/api/v1/nodes/n", patch, kind=kind)


async def test_gates_hold_a_pod_until_all_are_removed(api: Api) -> None:
    gates = [{"name": "example.org/a"}, {"name": "example.org/b"}]
    made = await api.create_pod("p", schedulingGates=gates)
    (told,) = made["status"]["conditions"]
    assert (told["type"], told["status"], told["reason"]) == (
        "PodScheduled",
        "False",
        "SchedulingGated",
    )
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}
    text = await refused(api, "POST", f"{PODS}/p/binding", binding)
    assert "non-empty .spec.schedulingGates" in text
    merge = "application/merge-patch+json"
    more = {"spec": {"schedulingGates": [*gates, {"name": "example.org/c"}]}}
    text = await refused(api, "PATCH", f"{PODS}/p", more, kind=merge)
    assert "only deletion is allowed, but found new scheduling gate 'example.org/c'" in text
    await api.patch(f"{PODS}/p", {"spec": {"schedulingGates": gates[:1]}})
    await api.patch(f"{PODS}/p", {"spec": {"schedulingGates": None}})
    await api.ok("POST", f"{PODS}/p/binding", binding)
    with_node = pod("q", schedulingGates=gates, nodeName="n")
    assert "until all schedulingGates" in await refused(api, "POST", PODS, with_node)


async def test_the_history_takes_no_more_memory_than_it_may(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "HISTORY_BYTES", 500_000)
    made = await api.ok("POST", CONFIGS, {"metadata": {"name": "m"}})
    first = made["metadata"]["resourceVersion"]
    for number in range(10):
        made = await api.patch(f"{CONFIGS}/m", {"data": {"a": str(number) * 100_000}})
    before = str(int(made["metadata"]["resourceVersion"]) - 1)
    async with api.watch(CONFIGS, resourceVersion=before) as watch:
        assert (await watch.next())["type"] == "MODIFIED"
    async with api.watch(CONFIGS, resourceVersion=first) as watch:
        event = await watch.next()
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


async def test_a_start_that_fails_leaves_nothing_open(apiserver: APIServer, tmp_path: Path) -> None:
    other = APIServer(tmp_path / "other", port=apiserver.port)
    with pytest.raises(OSError, match="address already in use"):
        await other.start()
    other.port = 0
    async with other:
        assert other.port != apiserver.port
