"""The API server's pure parts: quantities, ages, a pod's one word, merging, decoding."""

from __future__ import annotations

from typing import Any

import pytest

from gpucloud_spawner.localcluster import quantity
from gpucloud_spawner.localcluster.apiserver import patch, schema
from gpucloud_spawner.localcluster.apiserver.ages import human_duration
from gpucloud_spawner.localcluster.apiserver.pod_summary import pod_ready, pod_restarts, pod_status


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("0.5", "500m"),
        ("1", "1"),
        ("1000", "1k"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("128974848", "128974848"),
        ("129e6", "129e6"),
        ("129M", "129M"),
        ("0", "0"),
        ("-2000m", "-2"),
        (".5", "500m"),
        ("0.0000000001", "1n"),
        ("100Gi", "100Gi"),
    ],
)
def test_quantities_are_written_canonically(given: str, wanted: str) -> None:
    assert quantity.canonical(given) == wanted
    assert quantity.canonical(wanted) == wanted
    if given != "0.0000000001":  # rounded up to what Kubernetes can hold
        assert quantity.parse(given) == quantity.parse(wanted)


@pytest.mark.parametrize(
    "text", ["", "lots", "1 Gi", "Gi", "1GiB", "1e", "--1", "1.2.3", "1e99", "٣", "9" * 5000]
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(quantity.QuantityError):
        quantity.parse(text)


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (185, "3m5s"),
        (600, "10m"),
        (10_800, "3h"),
        (12_000, "3h20m"),
        (100_000, "27h"),
        (200_000, "2d7h"),
        (864_000, "10d"),
        (86_400 * 800, "2y70d"),
        (86_400 * 365 * 9, "9y"),
    ],
)
def test_ages(seconds: int, wanted: str) -> None:
    assert human_duration(seconds) == wanted


def container(ready: bool = False, restarts: int = 0, last: Any = None, **state: Any) -> Any:
    return {
        "name": "c",
        "ready": ready,
        "restartCount": restarts,
        "state": state,
        "lastState": {"terminated": last} if last else {},
    }


def made_pod(*statuses: Any, initial: Any = (), deleted: bool = False, **status: Any) -> Any:
    status = {"phase": "Pending", "containerStatuses": list(statuses), **status}
    if initial:
        status["initContainerStatuses"] = list(initial)
    return {
        "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {},
        "spec": {"containers": [{}, {}], "initContainers": [{} for _ in initial]},
        "status": status,
    }


RUNS = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}
READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("pod", "wanted"),
    [
        (made_pod(), "Pending"),
        (made_pod(container(waiting={"reason": "ContainerCreating"})), "ContainerCreating"),
        (made_pod(container(waiting={"reason": "ErrImagePull"})), "ErrImagePull"),
        (made_pod(container(True, **RUNS), phase="Running"), "Running"),
        (
            made_pod(container(waiting={"reason": "CrashLoopBackOff"}), phase="Running"),
            "CrashLoopBackOff",
        ),
        (made_pod(container(**DONE), phase="Succeeded"), "Completed"),
        (
            made_pod(container(terminated={"exitCode": 1, "reason": "Error"}), phase="Failed"),
            "Error",
        ),
        (made_pod(container(terminated={"exitCode": 137, "reason": "OOMKilled"})), "OOMKilled"),
        (made_pod(container(terminated={"exitCode": 3})), "ExitCode:3"),
        (made_pod(container(terminated={"exitCode": 0, "signal": 9})), "Signal:9"),
        (made_pod(container(**DONE), container(True, **RUNS), conditions=READY), "Running"),
        (made_pod(container(**DONE), container(True, **RUNS)), "NotReady"),
        (made_pod(container(True, **RUNS), phase="Running", deleted=True), "Terminating"),
        (made_pod(container(**DONE), phase="Succeeded", deleted=True), "Completed"),
        (made_pod(phase="Running", reason="NodeLost", deleted=True), "Unknown"),
        (made_pod(phase="Failed", reason="Evicted"), "Evicted"),
        (made_pod(initial=[container(**RUNS)]), "Init:0/1"),
        (made_pod(initial=[container(**DONE), container(**RUNS)]), "Init:1/2"),
        (made_pod(initial=[container(waiting={"reason": "PodInitializing"})]), "Init:0/1"),
        (made_pod(initial=[container(waiting={"reason": "ErrImagePull"})]), "Init:ErrImagePull"),
        (made_pod(initial=[container(terminated={"exitCode": 2})]), "Init:ExitCode:2"),
    ],
)
def test_a_pod_in_one_word(pod: Any, wanted: str) -> None:
    assert pod_status(pod) == wanted


def test_ready_and_restarts() -> None:
    last = {"exitCode": 1, "finishedAt": "2020-01-01T00:00:00Z"}
    pod = made_pod(container(True, 2, last, **RUNS), container(False, 1))
    assert pod_ready(pod) == "1/2"
    assert pod_restarts(pod).startswith("3 (")
    assert pod_restarts(pod).endswith("d ago)")
    assert pod_restarts(made_pod(container())) == "0"


def named(*names: str) -> list[dict[str, Any]]:
    return [{"name": name} for name in names]


@pytest.mark.parametrize(
    ("server", "change", "wanted"),
    [
        (named("a", "b"), {"containers": named("c")}, named("c", "a", "b")),
        (named("a", "b"), {"containers": named("b")}, named("a", "b")),
        (
            named("a", "b", "c"),
            {"$setElementOrder/containers": named("c", "a")},
            named("b", "c", "a"),
        ),
        (
            named("a", "b"),
            {"containers": [{"name": "a", "$patch": "delete"}]},
            named("b"),
        ),
        (
            named("a", "b"),
            {"containers": [{"$patch": "replace"}, *named("z")]},
            named("z"),
        ),
    ],
)
def test_lists_of_a_strategic_patch_keep_kubernetes_order(
    server: Any, change: Any, wanted: Any
) -> None:
    merged = patch.apply(patch.STRATEGIC, "Pod", {"spec": {"containers": server}}, {"spec": change})
    assert merged == {"spec": {"containers": wanted}}


def test_directives_of_a_strategic_patch() -> None:
    obj = {"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1", "y": "2"}}, "spec": {"k": 1}}
    change = {
        "metadata": {
            "$deleteFromPrimitiveList/finalizers": ["a"],
            "finalizers": ["c"],
            "labels": {"x": None, "z": "3"},
        },
        "spec": {"$patch": "replace", "restartPolicy": "Never"},
    }
    assert patch.apply(patch.STRATEGIC, "Pod", obj, change) == {
        "metadata": {"finalizers": ["c", "b"], "labels": {"y": "2", "z": "3"}},
        "spec": {"restartPolicy": "Never"},
    }
    assert obj["spec"] == {"k": 1}


def test_times_are_returned_as_kubernetes_writes_them() -> None:
    event, _ = schema.decode(
        "Event",
        {
            "firstTimestamp": "2026-01-01T02:00:00.5+02:00",
            "lastTimestamp": "2026-01-01T00:00:00Z",
            "eventTime": "2026-01-01T00:00:00Z",
        },
    )
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-01-01T00:00:00Z"
    assert event["eventTime"] == "2026-01-01T00:00:00.000000Z"
    for wrong in ("2026-01-01T00:00:00", "yesterday", "2026-13-01T00:00:00Z", 5):
        with pytest.raises(schema.SchemaError):
            schema.decode("Event", {"eventTime": wrong})


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (
            "Pod",
            {"spec": []},
            "cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec",
        ),
        (
            "Pod",
            {"spec": {"priority": "1"}},
            "string into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            "Pod",
            {"spec": {"hostNetwork": 1}},
            "number into Go struct field PodSpec.spec.hostNetwork of type bool",
        ),
        ("Secret", {"data": {"a": "%"}}, "illegal base64 data"),
        (
            "ConfigMap",
            {"data": {"a": True}},
            "bool into Go struct field ConfigMap.data of type string",
        ),
    ],
)
def test_wrong_types_are_told_as_go_does(kind: str, body: Any, message: str) -> None:
    with pytest.raises(schema.SchemaError) as refusal:
        schema.decode(kind, body)
    assert message in str(refusal.value)
