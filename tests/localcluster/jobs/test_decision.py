"""What is decided for a Job at one look, where waiting for it would take too long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpucloud_spawner.localcluster.controllers.jobs.backoff import Backoff, Delays
from gpucloud_spawner.localcluster.controllers.jobs.decision import Decision, decide
from gpucloud_spawner.localcluster.indexes import format_indexes, known_indexes, parse_indexes
from tests.localcluster.support import job

from .support import Obj

NOW = datetime(2026, 11, 23, 7, 30, tzinfo=UTC)
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"


def a_job(**spec: Any) -> Obj:
    body = job("j", "true", **{"completions": 2, "parallelism": 2, **spec})
    body["metadata"] |= {"namespace": "default", "uid": "j-uid"}
    body["spec"] = {"completionMode": "Indexed", "suspend": False, **body["spec"]}
    return body


def a_pod(index: int, phase: str, ago: float = 0, code: int = 1, notes: Obj | None = None) -> Obj:
    """A pod that has ended so many seconds ago."""
    then = (datetime.now(UTC) - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = {"terminated": {"exitCode": code, "finishedAt": then}}
    annotations = {"batch.kubernetes.io/job-completion-index": str(index), **(notes or {})}
    meta = {
        "name": f"j-{index}",
        "namespace": "default",
        "uid": f"{index}-{phase}-{ago}",
        "annotations": annotations,
        "finalizers": ["batch.kubernetes.io/job-tracking"],
    }
    status: Obj = {"phase": phase}
    if phase == "Failed":
        status["containerStatuses"] = [{"name": "c", "state": ended}]
    return {"metadata": meta, "spec": {}, "status": status}


def look(body: Obj, *pods: Obj, backoff: Backoff | None = None) -> Decision:
    return decide(body, pods, backoff or Backoff(), Delays())


def notes_of(decision: Decision) -> list[Obj]:
    return [pod["metadata"]["annotations"] for pod in decision.create]


def test_a_failed_pod_is_replaced_after_ten_seconds_then_twenty_up_to_ten_minutes() -> None:
    delays = Delays()
    waits = [delays.remaining(count, NOW, NOW) for count in range(9)]
    assert waits == [0, 10, 20, 40, 80, 160, 320, 600, 600]
    assert delays.remaining(2, NOW - timedelta(seconds=15), NOW) == 5
    assert delays.remaining(10**6, NOW, NOW) == 600


def test_a_success_ends_the_row_of_failures() -> None:
    times = [NOW + timedelta(seconds=n) for n in range(4)]
    backoff = Backoff().after([], times[:2])
    assert backoff == Backoff(2, times[1])
    assert backoff.after([], [times[3]]) == Backoff(3, times[3])
    assert backoff.after([times[2]], []).failures == 0
    assert backoff.after([times[2]], [times[1], times[3]]) == Backoff(1, times[3])


def test_a_job_waits_before_it_replaces_a_pod() -> None:
    body = a_job(backoffLimit=6)
    decision = look(body, a_pod(0, "Failed"), a_pod(1, "Running"))
    assert decision.create == []
    assert decision.again is not None
    assert 5 < decision.again <= 10
    assert [p["metadata"]["name"] for p in decision.release] == ["j-0"]
    decision = look(body, a_pod(0, "Failed", ago=11), a_pod(1, "Running"))
    assert [p["spec"]["hostname"] for p in decision.create] == ["j-0"]


def test_a_failed_pod_is_held_until_its_successor_knows_how_often_its_index_failed() -> None:
    body = a_job(backoffLimit=99, backoffLimitPerIndex=5)
    early = a_pod(0, "Failed", notes={FAILURES: "1"})
    decision = look(body, early, a_pod(1, "Running"))
    assert (decision.create, decision.release) == ([], [])
    assert decision.again is not None
    assert 15 < decision.again <= 20  # its second failure
    late = a_pod(0, "Failed", ago=25, notes={FAILURES: "1"})
    decision = look(body, late, a_pod(1, "Running"))
    assert [note[FAILURES] for note in notes_of(decision)] == ["2"]
    assert decision.release == []
    successor = a_pod(0, "Running", notes={FAILURES: "2"})
    decision = look(body, late, successor, a_pod(1, "Running"))
    assert (decision.create, decision.release) == ([], [late])


def test_one_index_that_waits_holds_no_other_up() -> None:
    body = a_job(completions=4, backoffLimit=99, backoffLimitPerIndex=5)
    decision = look(body, a_pod(0, "Failed"), a_pod(1, "Running"))
    assert [p["spec"]["hostname"] for p in decision.create] == ["j-2"]


def test_what_is_ignored_does_not_use_up_an_index() -> None:
    rules = [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [9]}}]
    body = a_job(
        backoffLimit=99,
        backoffLimitPerIndex=0,
        podFailurePolicy={"rules": rules},
        podReplacementPolicy="Failed",
    )
    decision = look(body, a_pod(0, "Failed", ago=11, code=9), a_pod(1, "Running"))
    assert "failedIndexes" not in decision.status
    [note] = notes_of(decision)
    assert (note[FAILURES], note[IGNORED]) == ("0", "1")
    decision = look(body, a_pod(0, "Failed", ago=11, code=8), a_pod(1, "Running"))
    assert decision.status["failedIndexes"] == "0"
    assert decision.create == []


def test_the_last_word_waits_for_every_pod_that_is_still_ending() -> None:
    body = a_job(backoffLimit=0)
    ending = a_pod(1, "Running")
    decision = look(body, a_pod(0, "Failed"), ending)
    kinds = [c["type"] for c in decision.status["conditions"]]
    assert (kinds, decision.delete) == (["FailureTarget"], [ending])
    assert (decision.status["terminating"], decision.events) == (1, [])
    body["status"] = decision.status
    del ending["metadata"]["finalizers"]
    ending["metadata"]["deletionTimestamp"] = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    decision = look(body, ending)
    assert [c["type"] for c in decision.status["conditions"]] == ["FailureTarget"]
    body["status"] = decision.status
    decision = look(body)
    assert [c["type"] for c in decision.status["conditions"]] == ["FailureTarget", "Failed"]
    assert decision.status["failed"] == 2
    assert [event[1] for event in decision.events] == ["BackoffLimitExceeded"]


def test_a_second_pod_of_an_index_goes() -> None:
    pods = [a_pod(0, "Running"), {**a_pod(0, "Pending", ago=1)}, a_pod(1, "Running")]
    assert look(a_job(), *pods).drop == [pods[1]]


@pytest.mark.parametrize(
    ("indexes", "text"),
    [([], ""), ([0], "0"), ([0, 1], "0,1"), ([0, 1, 2], "0-2"), ([5, 1, 3, 2], "1-3,5")],
)
def test_indexes_are_written_as_kubernetes_writes_them(indexes: list[int], text: str) -> None:
    assert format_indexes(indexes) == text


@given(st.sets(st.integers(0, 200)))
def test_written_indexes_are_read_back(indexes: set[int]) -> None:
    text = format_indexes(indexes)
    assert known_indexes(text, 201) == indexes
    if indexes:
        assert parse_indexes(text, 201) == indexes
        top = max(indexes)
        assert known_indexes(text, top) == indexes - {top}


@given(st.text(alphabet="0123456789-, a"))
@example("9" * 5000)
def test_no_text_of_a_status_breaks_the_controller(text: str) -> None:
    assert known_indexes(text, 50) <= set(range(50))
