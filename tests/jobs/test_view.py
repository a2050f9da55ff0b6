"""What a job's objects say, in cases that no small cluster brings about at will."""

from __future__ import annotations

from typing import Any

import pytest

from gpucloud_spawner.jobs.objects import JobObjects
from gpucloud_spawner.jobs.view import at_the_end, look
from gpucloud_spawner.model.job_record import JobRecord, Replica, first_replicas
from gpucloud_spawner.model.jobs import JobSpec

NOON = "2026-11-23T12:00:00Z"


def later(seconds: int) -> str:
    return f"2026-11-23T12:{seconds // 60:02}:{seconds % 60:02}Z"


def record(started: int | None = None, **roles: int) -> JobRecord:
    replicas = {"chief": 0, "worker": 0, "ps": 0, "evaluator": 0, **roles}
    spec = JobSpec("t", ("x",), "a" * 64, replicas, "p", "i", "", 1, 0, "", 0)
    return JobRecord("t-1", spec, "ada", "ns", "b", "", 12000, 0, launched_at=1, started_at=started)


def pod(
    role: str,
    index: int,
    phase: str = "Running",
    *,
    uid: str = "",
    created: str = NOON,
    node: str = "node-0",
    scheduled: str = NOON,
    code: int | None = None,
    ended: str = NOON,
    message: str = "",
    disrupted: str = "",
    deleted: bool = False,
) -> dict[str, Any]:
    conditions = []
    if node:
        conditions.append(
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": scheduled}
        )
    if disrupted:
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": disrupted})
    status: dict[str, Any] = {"phase": phase, "conditions": conditions}
    if code is not None:
        end = {"exitCode": code, "finishedAt": ended, "message": message}
        status["containerStatuses"] = [{"name": "replica", "state": {"terminated": end}}]
    meta = {
        "uid": uid or f"{role}-{index}",
        "name": f"t-1-{role}-{index}-{uid or 'x'}",
        "creationTimestamp": created,
        "labels": {"gpucloud.io/role": role},
        "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
    }
    if deleted:
        meta["deletionTimestamp"] = ended
    return {"metadata": meta, "spec": {"nodeName": node or None}, "status": status}


def objects(*pods: dict[str, Any], failed: str = "", **roles: str) -> JobObjects:
    found = JobObjects(pods={p["metadata"]["name"]: p for p in pods})
    for role in {p["metadata"]["labels"]["gpucloud.io/role"] for p in pods} | set(roles):
        kind = roles.get(role)
        conditions = [{"type": kind, "status": "True", "reason": failed}] if kind else []
        found.jobs[f"t-1-{role}"] = {"spec": {}, "status": {"conditions": conditions}}
    return found


def test_the_first_to_fail_is_the_one_that_says_most() -> None:
    """Within one second: peers that were killed, or lost it, are not the cause."""
    held = objects(
        pod("worker", 0, "Failed", code=137),
        pod("worker", 1, "Failed", code=1),
        pod("worker", 2, "Failed", code=134, ended=later(9)),
        worker="Failed",
    )
    outcome = look(record(worker=3), held).outcome
    assert outcome is not None
    assert (outcome.replica, outcome.reason) == ("worker-1", "worker-1 failed: exit code 1.")


def test_an_evicted_peer_is_not_the_cause_either() -> None:
    held = objects(
        pod("worker", 0, "Failed", code=143, disrupted="EvictionByEvictionAPI"),
        pod("worker", 1, "Failed", code=1, ended=later(30)),
        worker="Failed",
    )
    outcome = look(record(worker=2), held).outcome
    assert outcome is not None
    assert outcome.replica == "worker-1"


def test_a_success_goes_before_a_failure_that_it_caused() -> None:
    """Servers that lose their coordinator may fail; the work is done."""
    held = objects(
        pod("chief", 0, "Succeeded", code=0),
        pod("ps", 0, "Failed", code=1),
        ps="Failed",
        chief="",
    )
    outcome = look(record(chief=1, ps=1), held).outcome
    assert outcome is not None
    assert outcome.state == "succeeded"


def test_a_script_that_ends_well_when_its_time_is_over_has_not_succeeded() -> None:
    held = objects(
        pod("worker", 0, "Succeeded", code=0), worker="FailureTarget", failed="DeadlineExceeded"
    )
    outcome = look(record(worker=1), held).outcome
    assert outcome is not None
    assert (outcome.state, outcome.reason) == ("failed", "It was not done within its time of 24 h.")


def test_no_pod_left_of_a_failure_is_told_in_kubernetes_words() -> None:
    outcome = look(record(worker=1), objects(worker="Failed", failed="MaxFailedIndexes")).outcome
    assert outcome is not None
    assert (outcome.pod, outcome.reason) == (
        None,
        "The replicas of role worker failed: MaxFailedIndexes.",
    )


@pytest.mark.parametrize(
    ("other", "incomplete"),
    [
        (pod("worker", 1, "Pending", node=""), True),  # waits for a machine
        (pod("worker", 1, "Pending"), True),  # has one, and starts
        (pod("worker", 1, "Failed", code=1), True),  # will start again
        (pod("worker", 1, "Running", deleted=True, disrupted="DeletionByTaintManager"), True),
        (pod("worker", 1), False),
        (pod("worker", 1, "Succeeded", code=0), False),
    ],
)
def test_whether_machines_are_held_in_vain(other: dict[str, Any], incomplete: bool) -> None:
    assert look(record(worker=2), objects(pod("worker", 0), other)).incomplete == incomplete


def test_a_pod_that_is_gone_lacks() -> None:
    assert look(record(started=5, worker=2), objects(pod("worker", 0))).incomplete


def test_training_that_runs_does_not_depend_on_an_evaluator() -> None:
    held = objects(pod("worker", 0), pod("evaluator", 0, "Pending", node=""))
    assert look(record(worker=1, evaluator=1), held).incomplete  # all or nothing, at first
    assert not look(record(started=5, worker=1, evaluator=1), held).incomplete


def test_who_holds_nothing_may_wait() -> None:
    waiting = [pod("worker", n, "Pending", node="") for n in range(2)]
    view = look(record(worker=2), objects(*waiting))
    assert (view.state, view.incomplete) == ("queued", False)


def test_a_pod_that_was_replaced_counts_also_when_it_is_gone() -> None:
    before = record(worker=1)
    seen = look(before, objects(pod("worker", 0, uid="a"))).replicas
    assert seen[0].restarts == 0
    after = JobRecord(**{**vars(before), "replicas": seen})
    again = look(after, objects(pod("worker", 0, uid="b"))).replicas
    assert again[0].restarts == 1
    stored = JobRecord(**{**vars(before), "replicas": again})
    assert look(stored, objects(pod("worker", 0, uid="b"))).replicas == again


def test_a_job_that_runs_stays_so_while_a_replica_starts_again() -> None:
    held = objects(pod("worker", 0), pod("worker", 1, "Pending", node=""))
    assert look(record(worker=2), held).state == "queued"
    assert look(record(started=5, worker=2), held).state == "running"


def test_what_still_ran_ends_with_the_job() -> None:
    running = (Replica("worker", 0, "running"), Replica("ps", 0, "pending"))
    assert [r.state for r in at_the_end(running, "succeeded")] == ["succeeded", "pending"]
    assert [r.state for r in at_the_end(running, "failed")] == ["failed", "pending"]


def test_pods_of_no_place_are_ignored() -> None:
    stray = pod("worker", 0)
    stray["metadata"]["annotations"] = {}
    view = look(record(worker=1), objects(stray))
    assert view.replicas == first_replicas(record(worker=1).spec)
