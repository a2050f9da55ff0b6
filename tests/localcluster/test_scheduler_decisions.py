"""The scheduler's pure decisions: accounting, filters, messages, scores."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud_spawner.localcluster.quantity import amount
from gpucloud_spawner.localcluster.scheduling import Ledger, place, pod_requests

Obj = dict[str, Any]
GPU = "nvidia.com/gpu"
FULL = (
    "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. no new claims to deallocate, "
    "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
)


def node(name: str, room: Obj | None = None, **more: Obj) -> Obj:
    allocatable = {"cpu": "4", "memory": "8Gi", "pods": "10", GPU: "2", **(room or {})}
    meta = {"name": name, "labels": more.get("labels", {})}
    return {"metadata": meta, "spec": more.get("spec", {}), "status": {"allocatable": allocatable}}


def pod(*containers: Obj, **spec: Any) -> Obj:
    listed = [{"name": f"c{i}", "resources": {"requests": c}} for i, c in enumerate(containers)]
    return {"metadata": {"uid": "u"}, "spec": {"containers": listed, **spec}}


def ledger(*nodes: Obj) -> Ledger:
    result = Ledger()
    for each in nodes:
        result.set_node(each)
    return result


def decide(a_pod: Obj, *nodes: Obj) -> str:
    """The chosen node's name or the message."""
    decision = place(a_pod, pod_requests(a_pod), ledger(*nodes).nodes)
    return decision.node or decision.message


@pytest.mark.parametrize(
    ("resource", "text", "expected"),
    [
        ("cpu", "100m", 100),
        ("cpu", "1.5", 1500),
        ("cpu", "1n", 1),
        ("memory", "1Ki", 1024),
        ("memory", "1.5Gi", 3 * 2**29),
        ("memory", "2e3", 2000),
        ("memory", "1M", 10**6),
        (GPU, "2", 2),
    ],
)
def test_quantities(resource: str, text: str, expected: int) -> None:
    assert amount(resource, text) == expected


def test_requests_are_the_greediest_moment() -> None:
    a_pod = pod({"cpu": "1", GPU: "1"}, {"cpu": "500m"})
    a_pod["spec"]["initContainers"] = [
        {"name": "i0", "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}},
        {"name": "i1", "resources": {"requests": {"cpu": "100m"}}},
    ]
    a_pod["spec"]["overhead"] = {"cpu": "10m"}
    assert pod_requests(a_pod) == {"cpu": 2010, "memory": 2**30, GPU: 1, "pods": 1}


def test_a_sidecar_counts_beside_what_follows_it() -> None:
    a_pod = pod({"cpu": "1"})
    a_pod["spec"]["initContainers"] = [
        {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
        {"name": "i", "resources": {"requests": {"cpu": "2"}}},
    ]
    assert pod_requests(a_pod)["cpu"] == 2500


def test_a_limit_is_a_request_where_none_is_given() -> None:
    a_pod = pod({})
    a_pod["spec"]["containers"][0]["resources"] = {"limits": {GPU: "2", "cpu": "1"}}
    assert pod_requests(a_pod) == {GPU: 2, "cpu": 1000, "pods": 1}


def test_full_nodes_are_told_in_kube_schedulers_words() -> None:
    nodes = ledger(node("a"), node("b"))
    nodes.grant("x", "a", {GPU: 2})
    nodes.grant("y", "b", {GPU: 1})
    waiting = pod({GPU: "2"})
    assert place(waiting, pod_requests(waiting), nodes.nodes).message == FULL


def test_more_than_any_node_has_cannot_be_helped_by_preemption() -> None:
    message = decide(pod({GPU: "3", "cpu": "9"}), node("a"), node("b", {GPU: "0"}))
    assert message == (
        "0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient nvidia.com/gpu. no new claims "
        "to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for "
        "scheduling."
    )


def test_the_selector_message() -> None:
    message = decide(pod({}, nodeSelector={"x": "y"}), node("a"), node("b"))
    assert message == (
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. no new "
        "claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful "
        "for scheduling."
    )


def test_mixed_reasons_are_sorted_and_counted() -> None:
    message = decide(
        pod({GPU: "1"}),
        node("a", spec={"unschedulable": True}),
        node("b", spec={"taints": [{"key": "k", "effect": "NoSchedule"}]}),
        node("c", {GPU: "0"}),
    )
    assert message == (
        "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated "
        "taint(s), 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/3 "
        "nodes are available: 3 Preemption is not helpful for scheduling."
    )


def test_no_nodes_and_too_many_pods() -> None:
    assert decide(pod({})) == "no nodes available to schedule pods"
    nodes = ledger(node("a", {"pods": "1"}))
    nodes.grant("x", "a", {"pods": 1})
    assert "1 Too many pods." in place(pod({}), {"pods": 1}, nodes.nodes).message


TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_tolerations(toleration: Obj, tolerated: bool) -> None:
    result = decide(pod({}, tolerations=[toleration]), node("a", spec={"taints": [TAINT]}))
    assert (result == "a") == tolerated


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ({"key": "n", "operator": "In", "values": ["5", "6"]}, True),
        ({"key": "n", "operator": "In", "values": ["6"]}, False),
        ({"key": "n", "operator": "NotIn", "values": ["6"]}, True),
        ({"key": "missing", "operator": "NotIn", "values": ["6"]}, True),
        ({"key": "n", "operator": "Exists"}, True),
        ({"key": "n", "operator": "DoesNotExist"}, False),
        ({"key": "missing", "operator": "DoesNotExist"}, True),
        ({"key": "n", "operator": "Gt", "values": ["4"]}, True),
        ({"key": "n", "operator": "Gt", "values": ["5"]}, False),
        ({"key": "n", "operator": "Lt", "values": ["6"]}, True),
        ({"key": "missing", "operator": "Lt", "values": ["6"]}, False),
    ],
)
def test_required_affinity(expression: Obj, matches: bool) -> None:
    terms = [{"matchExpressions": [expression]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    result = decide(pod({}, affinity={"nodeAffinity": required}), node("a", labels={"n": "5"}))
    assert (result == "a") == matches


def test_terms_are_alternatives_and_empty_ones_match_nothing() -> None:
    def wanting(*terms: Obj) -> Obj:
        required = {"nodeSelectorTerms": list(terms)}
        rule = {"requiredDuringSchedulingIgnoredDuringExecution": required}
        return pod({}, affinity={"nodeAffinity": rule})

    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}
    never = {"matchExpressions": [{"key": "z", "operator": "Exists"}]}
    assert decide(wanting(never, by_name), node("a"), node("b")) == "b"
    assert "affinity" in decide(wanting({}), node("a"))


def test_preferences() -> None:
    expression = {"key": "z", "operator": "Exists"}
    prefer = [{"weight": 5, "preference": {"matchExpressions": [expression]}}]
    rule = {"preferredDuringSchedulingIgnoredDuringExecution": prefer}
    liking = pod({}, affinity={"nodeAffinity": rule})
    assert decide(liking, node("a"), node("b", labels={"z": ""})) == "b"
    soft = {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}
    assert decide(pod({}), node("a", spec=soft), node("b")) == "b"
    assert decide(pod({}), node("a", spec=soft)) == "a"


def test_cpu_spreads_but_gpus_pack() -> None:
    nodes = ledger(node("a"), node("b"))
    nodes.grant("x", "b", {"cpu": 1000, GPU: 1, "pods": 1})
    assert place(pod({}), {"cpu": 100, "pods": 1}, nodes.nodes).node == "a"
    # Packed, so that a later request for both GPUs of one node still fits.
    assert place(pod({}), {"cpu": 100, GPU: 1, "pods": 1}, nodes.nodes).node == "b"
    assert place(pod({}), {"cpu": 100, GPU: 2, "pods": 1}, nodes.nodes).node == "a"


operations = st.lists(
    st.tuples(
        st.sampled_from(["grant", "release"]),
        st.integers(0, 5),
        st.sampled_from(["a", "b"]),
        st.integers(0, 3),
    )
)


@given(operations)
def test_the_ledger_always_equals_the_sum_of_its_pods(steps: list[Any]) -> None:
    nodes = ledger(node("a"), node("b"))
    expected: dict[str, tuple[str, int]] = {}
    for kind, number, where, count in steps:
        uid = f"u{number}"
        if kind == "grant":
            nodes.grant(uid, where, {GPU: count, "pods": 1})
            expected[uid] = (where, count)
        else:
            assert nodes.release(uid) == (expected.pop(uid, None) is not None)
    for each in nodes.nodes:
        held = [count for where, count in expected.values() if where == each.name]
        assert each.granted[GPU] == sum(held)
        assert each.granted["pods"] == len(held)


@given(st.lists(st.integers(1, 3), max_size=12))
def test_no_node_is_ever_overcommitted(wishes: list[int]) -> None:
    nodes = ledger(node("a"), node("b"))
    for number, count in enumerate(wishes):
        requests = {GPU: count, "pods": 1}
        decision = place(pod({}), requests, nodes.nodes)
        free = [each.allocatable[GPU] - each.granted[GPU] for each in nodes.nodes]
        assert (decision.node is not None) == (max(free) >= count)
        if decision.node is not None:
            nodes.grant(f"u{number}", decision.node, requests)
    assert all(each.granted[GPU] <= 2 for each in nodes.nodes)


def test_a_node_that_leaves_and_returns_still_counts_its_pods() -> None:
    nodes = ledger(node("a"))
    nodes.grant("x", "a", {GPU: 2})
    nodes.remove_node("a")
    assert nodes.nodes == []
    nodes.set_node(node("a"))
    assert nodes.nodes[0].granted[GPU] == 2
    assert not nodes.set_node(node("a"))
    assert nodes.set_node(node("a", labels={"new": "1"}))
