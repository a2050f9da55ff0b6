"""Pods: defaults, rules, updates, binding, ways to end; and secrets, services, claims."""

from __future__ import annotations

import base64
import ipaddress
from datetime import datetime
from typing import Any

import pytest

from tests.localcluster.apiserver.conftest import PODS, Api, pod

CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
SECRETS = "/api/v1/namespaces/default/secrets"
SERVICES = "/api/v1/namespaces/default/services"


def with_container(**fields: Any) -> dict[str, Any]:
    body = pod("a")
    body["spec"]["containers"][0].update(fields)
    return body


async def test_images_without_a_fixed_tag_are_always_pulled(api: Api) -> None:
    for i, (image, policy) in enumerate(
        [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1.36", "IfNotPresent"),
            ("registry:5000/busybox", "Always"),
            ("registry:5000/busybox:2", "IfNotPresent"),
            ("busybox@sha256:" + "a" * 64, "IfNotPresent"),
        ]
    ):
        body = pod(f"p{i}")
        body["spec"]["containers"][0]["image"] = image
        made = await api.ok("POST", PODS, body)
        assert made["spec"]["containers"][0]["imagePullPolicy"] == policy, image


async def test_defaults_of_probes_volumes_ports_and_fields(api: Api) -> None:
    body = with_container(
        readinessProbe={"httpGet": {"port": 8888}},
        ports=[{"containerPort": 80}],
        env=[{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        volumeMounts=[{"name": "s", "mountPath": "/s"}],
    )
    body["spec"]["volumes"] = [{"name": "s", "secret": {"secretName": "x"}}, {"name": "e"}]
    spec = (await api.ok("POST", PODS, body))["spec"]
    container = spec["containers"][0]
    assert container["readinessProbe"] == {
        "httpGet": {"port": 8888, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert spec["volumes"] == [
        {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}},
        {"name": "e", "emptyDir": {}},
    ]


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ({}, "BestEffort"),
        ({"limits": {"nvidia.com/gpu": "1"}}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0.5"}}, "Burstable"),
    ],
)
async def test_quality_of_service(api: Api, resources: dict[str, Any], wanted: str) -> None:
    made = await api.ok("POST", PODS, with_container(resources=resources))
    assert made["status"]["qosClass"] == wanted


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (pod("a", restartPolicy="Sometimes"), "spec.restartPolicy: Unsupported value"),
        (with_container(name="Bad_Name"), "spec.containers[0].name: Invalid value"),
        (with_container(image=""), "spec.containers[0].image: Required value"),
        (
            with_container(volumeMounts=[{"name": "no", "mountPath": "/x"}]),
            'spec.containers[0].volumeMounts[0].name: Not found: "no"',
        ),
        (with_container(ports=[{"containerPort": 70000}]), "must be between 1 and 65535"),
        (with_container(env=[{"name": "A=B", "value": "x"}]), "spec.containers[0].env[0].name"),
        (
            with_container(resources={"limits": {"nvidia.com/gpu": "1500m"}}),
            "spec.containers[0].resources.requests[nvidia.com/gpu]: Invalid value",
        ),
        (
            with_container(resources={"requests": {"nvidia.com/gpu": "1"}}),
            "Limit must be set for non overcommitable resources",
        ),
        (
            with_container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            "must be less than or equal to cpu limit of 1",
        ),
        (with_container(resources={"requests": {"cpu": "-1"}}), "greater than or equal to 0"),
        (pod("a", nodeSelector={"a b": "c"}), "spec.nodeSelector: Invalid value"),
        (
            pod("a", volumes=[{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]),
            'spec.volumes[1].name: Duplicate value: "v"',
        ),
        (
            pod("a", volumes=[{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
            "may not specify more than 1 volume type",
        ),
        (pod("a", tolerations=[{"operator": "Equal"}]), "operator must be Exists when `key`"),
    ],
)
async def test_rules(api: Api, body: dict[str, Any], problem: str) -> None:
    status, answer = await api.call("POST", PODS, body)
    assert (status, answer["reason"]) == (422, "Invalid"), answer
    assert problem in answer["message"]
    assert await api.names() == []


async def test_several_problems_are_told_together(api: Api) -> None:
    status, answer = await api.call("POST", PODS, pod("a", restartPolicy="X", dnsPolicy="Y"))
    assert status == 422
    assert answer["message"].startswith('Pod "a" is invalid: [spec.restartPolicy: ')
    assert len(answer["details"]["causes"]) == 2


async def test_what_may_change_in_a_spec(api: Api) -> None:
    made = await api.create_pod("a")
    more = [*made["spec"]["tolerations"], {"key": "x", "operator": "Exists"}]
    changed = await api.patch(
        f"{PODS}/a", {"spec": {"tolerations": more, "activeDeadlineSeconds": 60}}
    )
    assert changed["metadata"]["generation"] == 2
    for spec in ({"tolerations": []}, {"nodeName": "n0"}, {"hostname": "h"}):
        status, answer = await api.call(
            "PATCH", f"{PODS}/a", {"spec": spec}, kind="application/merge-patch+json"
        )
        assert (status, answer["reason"]) == (422, "Invalid"), spec


async def test_the_status_has_its_own_endpoint(api: Api) -> None:
    made = await api.create_pod("a")
    body = {**made, "status": {"phase": "Running"}}
    assert (await api.ok("PUT", f"{PODS}/a", body))["status"]["phase"] == "Pending"
    body = {**made, "spec": {"containers": []}, "status": {"phase": "Running"}}
    running = await api.ok("PUT", f"{PODS}/a/status", body)
    assert running["status"] == {"phase": "Running"}
    assert running["spec"] == made["spec"]


async def test_a_pod_is_bound_once(api: Api) -> None:
    await api.create_pod("a")
    await api.bind("a", "n1")
    body = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n2"}}
    status, answer = await api.call("POST", f"{PODS}/a/binding", body)
    assert (status, answer["reason"]) == (409, "Conflict")
    assert 'pod a is already assigned to node "n1"' in answer["message"]
    assert (await api.call("POST", f"{PODS}/zzz/binding", body))[0] == 404


async def test_an_unbound_pod_vanishes_at_once(api: Api) -> None:
    await api.create_pod("a")
    answer = await api.ok("DELETE", f"{PODS}/a", gracePeriodSeconds="100")
    assert (answer["kind"], answer["metadata"]["deletionGracePeriodSeconds"]) == ("Pod", 0)
    assert await api.names() == []


async def test_a_bound_pod_waits_for_its_kubelet(api: Api) -> None:
    await api.create_pod("a", terminationGracePeriodSeconds=7)
    await api.bind("a")
    first = (await api.ok("DELETE", f"{PODS}/a"))["metadata"]
    assert first["deletionGracePeriodSeconds"] == 7
    longer = (await api.ok("DELETE", f"{PODS}/a", gracePeriodSeconds="60"))["metadata"]
    assert longer == first
    shorter = (await api.ok("DELETE", f"{PODS}/a", gracePeriodSeconds="2"))["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 2
    times = [datetime.fromisoformat(m["deletionTimestamp"]) for m in (first, shorter)]
    assert (times[0] - times[1]).total_seconds() == 5
    body = {"metadata": {"name": "a"}, "target": {"name": "n1"}}
    assert (await api.call("POST", f"{PODS}/a/binding", body))[0] == 409
    await api.ok("DELETE", f"{PODS}/a", gracePeriodSeconds="0")
    assert await api.names() == []


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_has_ended_vanishes_at_once(api: Api, phase: str) -> None:
    await api.create_pod("a")
    await api.bind("a")
    await api.status("a", phase=phase)
    await api.ok("DELETE", f"{PODS}/a")
    assert await api.names() == []


async def test_nothing_is_made_in_a_namespace_that_ends(api: Api) -> None:
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "x"}})
    await api.ok("DELETE", "/api/v1/namespaces/x")
    status, answer = await api.call("POST", "/api/v1/namespaces/x/pods", pod("a"))
    assert (status, answer["reason"]) == (403, "Forbidden")
    assert answer["message"] == (
        'pods "a" is forbidden: unable to create new content in namespace x because it is being '
        "terminated"
    )
    assert answer["details"]["causes"][0]["reason"] == "NamespaceTerminating"


async def test_secrets_fold_string_data_and_keep_their_type(api: Api) -> None:
    body = {"metadata": {"name": "s"}, "stringData": {"a": "1"}, "data": {"b": "Mg=="}}
    made = await api.ok("POST", SECRETS, body)
    assert made["type"] == "Opaque"
    assert {k: base64.b64decode(v) for k, v in made["data"].items()} == {"a": b"1", "b": b"2"}
    changed = await api.patch(f"{SECRETS}/s", {"stringData": {"b": "3"}})
    assert base64.b64decode(changed["data"]["b"]) == b"3"
    assert "stringData" not in changed
    for wrong, wanted in (({"type": "other"}, 422), ({"data": {"b": "%"}}, 400)):
        status, _ = await api.call(
            "PATCH", f"{SECRETS}/s", wrong, kind="application/merge-patch+json"
        )
        assert status == wanted
    assert (await api.call("POST", SECRETS, {"metadata": {"name": "t"}, "data": {"a/b": ""}}))[
        0
    ] == 422


async def test_services_get_addresses_of_their_own(api: Api) -> None:
    seen = set()
    for i in range(20):
        body = {"metadata": {"name": f"s{i}"}, "spec": {"ports": [{"port": 80}]}}
        spec = (await api.ok("POST", SERVICES, body))["spec"]
        assert ipaddress.ip_address(spec["clusterIP"]) in ipaddress.ip_network("10.96.0.0/12")
        seen.add(spec["clusterIP"])
    assert len(seen) == 20
    status, answer = await api.call(
        "PATCH",
        f"{SERVICES}/s0",
        {"spec": {"clusterIP": "10.96.0.5"}},
        kind="application/merge-patch+json",
    )
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "spec.clusterIPs[0]")
    body = {"metadata": {"name": "none"}, "spec": {}}
    assert (await api.call("POST", SERVICES, body))[1]["details"]["causes"][0]["field"] == (
        "spec.ports"
    )


async def test_claims_take_the_default_class_and_never_shrink(api: Api) -> None:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    made = await api.ok("POST", CLAIMS, {"metadata": {"name": "c"}, "spec": spec})
    assert made["spec"]["storageClassName"] == "standard"
    none: dict[str, Any] = {**spec, "storageClassName": ""}
    made = await api.ok("POST", CLAIMS, {"metadata": {"name": "d"}, "spec": none})
    assert made["spec"]["storageClassName"] == ""
    size = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    merge = "application/merge-patch+json"
    assert (await api.call("PATCH", f"{CLAIMS}/c", size, kind=merge))[0] == 422  # not bound yet
    bound = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
    for name in "cd":
        await api.patch(f"{CLAIMS}/{name}", {"spec": {"volumeName": f"pv-{name}"}})
        await api.patch(f"{CLAIMS}/{name}/status", bound)
    assert (await api.call("PATCH", f"{CLAIMS}/d", size, kind=merge))[0] == 403  # no class
    assert (await api.patch(f"{CLAIMS}/c", size))["status"]["capacity"] == {"storage": "1Gi"}
    size["spec"]["resources"]["requests"]["storage"] = "512Mi"
    status, answer = await api.call("PATCH", f"{CLAIMS}/c", size, kind=merge)
    assert status == 422
    assert "field can not be less than status.capacity" in answer["message"]
