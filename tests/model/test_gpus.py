from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud_spawner.model.gpus import (
    Request,
    judge,
    pod_gpus,
    take_inventory,
    words_for_free,
)

GPU = "nvidia.com/gpu"
PRODUCT = "nvidia.com/gpu.product"


def node(name: str, gpus: int, product: str = "A100", ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {PRODUCT: product}},
        "spec": {},
        "status": {
            "allocatable": {GPU: str(gpus), "cpu": "4"},
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
        },
    }


def pod(
    uid: str, gpus: int, on: str | None = None, phase: str = "Running", **selector: str
) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"resources": {"limits": {GPU: str(gpus)}}}]}
    if on:
        spec["nodeName"] = on
    if selector:
        spec["nodeSelector"] = {PRODUCT: selector["product"]}
    meta = {"uid": uid, "creationTimestamp": f"2026-11-01T00:00:{uid:0>2}Z"}
    return {"metadata": meta, "spec": spec, "status": {"phase": phase}}


TWO_BY_TWO = [node("n0", 2), node("n1", 2)]


def say(pods: list[dict[str, Any]], count: int, uid: str | None = None, **selector: str) -> str:
    inventory = take_inventory(GPU, TWO_BY_TWO, pods)
    fit = judge(inventory, Request(GPU, count, selector), uid)
    return f"{fit.kind}: {fit.message}"


def test_a_full_cluster_says_how_full_and_which_place_in_the_queue() -> None:
    running = [pod("1", 2, "n0"), pod("2", 2, "n1")]
    waiting = [pod("3", 1, phase="Pending"), pod("4", 1, phase="Pending")]
    assert say(running + waiting, 1, uid="4") == (
        "full: Waiting for a free GPU: 4 of 4 are in use; your request is number 2 in the queue"
    )


def test_free_gpus_on_different_machines_do_not_add_up() -> None:
    running = [pod("1", 1, "n0"), pod("2", 1, "n1")]
    assert say(running, 2) == (
        "full: Waiting for 2 free GPUs on one machine: 2 of 4 are in use; "
        "your request is number 1 in the queue"
    )


def test_a_free_gpu_fits() -> None:
    assert say([pod("1", 2, "n0")], 2).startswith("fits")


def test_ended_pods_hold_nothing_and_terminating_pods_still_do() -> None:
    ended = pod("1", 2, "n0", phase="Succeeded")
    terminating = pod("2", 2, "n1")
    terminating["metadata"]["deletionTimestamp"] = "2026-11-01T00:01:00Z"
    inventory = take_inventory(GPU, TWO_BY_TWO, [ended, terminating])
    assert [n.used for n in inventory.nodes] == [0, 2]


def test_more_than_any_machine_has_is_impossible() -> None:
    assert say([], 3) == (
        "impossible: You asked for 3 GPUs, but no machine has more than 2. Choose at most 2."
    )


def test_a_product_that_no_machine_carries_is_impossible() -> None:
    assert "No machine of this cluster carries the GPU" in say([], 1, **{PRODUCT: "H100"})


def test_a_cluster_without_gpus_is_told_as_such() -> None:
    fit = judge(take_inventory(GPU, [], []), Request(GPU, 1, {}))
    assert fit.kind == "impossible"
    assert "has nvidia.com/gpu" in fit.message


def test_a_machine_that_is_not_ready_is_no_free_one_but_may_come_back() -> None:
    inventory = take_inventory(GPU, [node("n0", 2, ready=False)], [])
    assert judge(inventory, Request(GPU, 1, {})).kind == "full"


def test_requests_for_other_products_are_not_ahead_in_the_queue() -> None:
    nodes = [node("n0", 1, "A100"), node("n1", 1, "H100")]
    pods = [
        pod("1", 1, "n0"),
        pod("2", 1, phase="Pending", product="H100"),
        pod("3", 1, phase="Pending", product="A100"),
    ]
    fit = judge(take_inventory(GPU, nodes, pods), Request(GPU, 1, {PRODUCT: "A100"}), uid="3")
    assert "1 of 1 is in use; your request is number 1" in fit.message


def test_what_is_free_is_told_for_the_product_that_a_profile_names() -> None:
    inventory = take_inventory(
        GPU, [node("n0", 4, "A100"), node("n1", 2, "H100")], [pod("1", 3, "n0")]
    )
    assert words_for_free(inventory, {PRODUCT: "A100"}) == "1 of 4 GPUs free now."
    assert words_for_free(inventory, {}) == "3 of 6 GPUs free now."
    assert words_for_free(inventory, {PRODUCT: "none"}) == "No such GPU in this cluster now."


@pytest.mark.parametrize(
    ("containers", "init", "gpus"),
    [
        ([{"limits": {GPU: "1"}}, {"limits": {GPU: "2"}}], [], 3),
        ([{"limits": {GPU: "1"}}], [{"limits": {GPU: "4"}}], 4),
        ([{"requests": {GPU: "2"}, "limits": {GPU: "2"}}], [], 2),
        ([{}], [], 0),
        ([{"limits": {"cpu": "4"}}], [], 0),
    ],
)
def test_a_pod_holds_its_effective_request(
    containers: list[Any], init: list[Any], gpus: int
) -> None:
    spec = {
        "containers": [{"resources": r} for r in containers],
        "initContainers": [{"resources": r} for r in init],
    }
    assert pod_gpus({"spec": spec}, GPU) == gpus


@given(st.lists(st.tuples(st.integers(1, 2), st.sampled_from(["n0", "n1", None]))))
def test_every_waiting_request_has_its_own_place(pods: list[tuple[int, str | None]]) -> None:
    made = [
        pod(str(i), gpus, where, "Running" if where else "Pending")
        for i, (gpus, where) in enumerate(pods)
    ]
    inventory = take_inventory(GPU, TWO_BY_TWO, made)
    assert sum(n.used for n in inventory.nodes) == sum(g for g, where in pods if where)
    said = [judge(inventory, w.request, w.uid).message for w in inventory.waiting]
    places = [s.rsplit("number ", 1)[1] for s in said if "number" in s]
    assert len(set(places)) == len(places)
