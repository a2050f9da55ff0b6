"""The public failures of other systems' billing, one test each, by their number in the notes.

Pods are plain objects as the API server sends them; the meter's process is in test_crash.
"""

from __future__ import annotations

import copy
import random
from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete

from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.adjustments import Correction, adjust
from gpucloud_spawner.metering.lines import intervals
from gpucloud_spawner.metering.nodes import record_node
from gpucloud_spawner.metering.observe import (
    read_node,
    read_pod,
)
from gpucloud_spawner.metering.query import Query
from gpucloud_spawner.metering.recorder import (
    Recorded,
    record_gone,
    record_pods,
)
from gpucloud_spawner.metering.statements import usage
from gpucloud_spawner.metering.tables import INTERVAL, PRICE
from gpucloud_spawner.model.usage import rfc3339

from .objects import (
    GPUS,
    MONTH,
    STORY,
    T0,
    a_node,
    a_pod,
    beat,
    deleted,
    end,
    ended,
    pending,
    rows,
    running,
    seconds,
    tell,
)

# 1. Missed stop


def test_01_a_missed_stop_ends_with_the_containers_own_end(engine: Engine) -> None:
    """Found long after: the pod's status says when it was over."""
    tell(engine, running(a_pod(), T0 + 3))
    tell(engine, ended(a_pod(), T0 + 60, code=137), heartbeat=T0 + 5000, source="audit")
    assert end(engine) == (T0 + 60, "containers")


def test_01_a_vanished_pod_ends_at_the_last_heartbeat_never_now(engine: Engine) -> None:
    tell(engine, running(a_pod(), T0 + 3))
    with db.writing(engine).begin() as connection:
        record_gone(connection, ["u1"], heartbeat=T0 + 40, source="watch")
    assert end(engine) == (T0 + 40, "heartbeat")


def test_01_a_pod_on_a_dead_node_ends_with_the_node(engine: Engine) -> None:
    """In any order: the loss may be told before or after the pod's deletion."""
    for uid, first in (("u1", "loss"), ("u2", "deletion")):
        pod = running(a_pod(uid, node="x"), T0 + 3)
        pod["spec"]["nodeName"] = node = f"w-{uid}"
        tell(engine, pod)
        lost = a_node(node, ready="Unknown", at=T0 + 100)
        for what in (first, "deletion" if first == "loss" else "loss"):
            if what == "deletion":
                tell(engine, deleted(pod, T0 + 400, 0), gone=True)
            else:
                with db.writing(engine).begin() as connection:
                    record_node(connection, read_node(a_node(node), GPUS), T0)
                    record_node(connection, read_node(lost, GPUS), T0 + 120)
    assert [(r["end_at"], r["end_source"]) for r in rows(engine)] == [(T0 + 100, "node-loss")] * 2


def test_01_a_node_that_comes_back_ends_nothing(engine: Engine) -> None:
    tell(engine, running(a_pod(), T0 + 3))
    with db.writing(engine).begin() as connection:
        for node, at in (
            (a_node(), T0),
            (a_node(ready="Unknown", at=T0 + 100), T0 + 101),
            (a_node(ready="True", at=T0 + 200), T0 + 201),
        ):
            record_node(connection, read_node(node, GPUS), at)
    tell(engine, deleted(running(a_pod(), T0 + 3), T0 + 400, 0), gone=True)
    assert end(engine) == (T0 + 400, "deletion")


def test_01_an_evicted_pod_without_container_times_ends_with_its_status(engine: Engine) -> None:
    pod = running(a_pod(), T0 + 3)
    pod["status"] |= {"phase": "Failed", "reason": "Evicted", "containerStatuses": []}
    pod["status"]["conditions"].append(
        {"type": "Ready", "status": "False", "lastTransitionTime": rfc3339(T0 + 77)}
    )
    tell(engine, pod)
    assert end(engine) == (T0 + 77, "pod-status")


# 2. Hub or service restart


def test_02_an_open_interval_is_taken_up_again_by_its_uid(engine: Engine) -> None:
    tell(engine, running(a_pod(), T0 + 3))
    again = tell(engine, running(a_pod(), T0 + 3), source="audit")
    assert again == Recorded()
    assert seconds(engine, T0 + 50) == 50


# 3. Repeated, replayed and reordered events


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_03_events_commute_and_repeat(engine: Engine, data: st.DataObject) -> None:
    """Any order, any repetition, any batching, with some missing: the same line."""
    missing = data.draw(st.sets(st.sampled_from(range(len(STORY) - 1)), max_size=4))
    kept = [i for i in range(len(STORY)) if i not in missing]
    order = data.draw(st.permutations(kept + data.draw(st.lists(st.sampled_from(kept)))))
    with db.writing(engine).begin() as connection:
        connection.execute(delete(INTERVAL))
    while order:
        size = data.draw(st.integers(1, len(order)))
        batch, order = order[:size], order[size:]
        with db.writing(engine).begin() as connection:
            facts = [read_pod(STORY[i], GPUS, gone=i == len(STORY) - 1) for i in batch]
            record_pods(connection, facts, heartbeat=T0 + 1, source="watch")
    (row,) = rows(engine)
    found = {k: row[k] for k in ("start_at", "end_at", "end_source", "gpus", "owner", "gone")}
    assert found == {
        "start_at": T0,
        "end_at": T0 + 55,
        "end_source": "containers",
        "gpus": 1,
        "owner": "ada",
        "gone": True,
    }
    with db.writing(engine).begin() as connection:
        facts = [read_pod(STORY[i], GPUS, gone=i == len(STORY) - 1) for i in kept]
        again = record_pods(connection, facts, heartbeat=T0 + 9, source="audit")
    assert again == Recorded()
    assert rows(engine) == [row]


def test_03_hundreds_of_pods_in_one_batch(engine: Engine) -> None:
    pods = [ended(a_pod(f"u{i}"), T0 + 10) for i in range(1200)]
    random.Random(1).shuffle(pods)  # noqa: S311
    assert len(tell(engine, *pods, *pods).new) == 1200
    assert tell(engine, *pods) == Recorded()
    assert seconds(engine) == 12000


# 5. Clock skew


def test_05_an_end_before_the_start_is_no_time_not_negative_time(engine: Engine) -> None:
    tell(engine, ended(a_pod(), T0 - 30))
    assert end(engine) == (T0, "containers")
    assert seconds(engine) == 0


# 6. Pending time


def test_06_waiting_for_a_gpu_is_free_and_pulling_the_image_is_not(engine: Engine) -> None:
    tell(engine, pending(a_pod()))
    assert rows(engine) == []
    tell(engine, a_pod())  # bound: nobody else can have the GPU now
    assert seconds(engine, T0 + 20) == 20


def test_06_a_start_that_never_got_a_node_leaves_no_line(engine: Engine) -> None:
    tell(engine, pending(a_pod()), deleted(pending(a_pod()), T0, 0), gone=True)
    assert rows(engine) == []


# 7. Short pods


def test_07_a_pod_of_one_second_is_billed(engine: Engine) -> None:
    tell(engine, deleted(ended(a_pod(gpus=8), T0 + 1), T0 + 1, 0), gone=True)
    assert seconds(engine) == 8


# 8. Starts that were given up, orphans


def test_08_a_pod_that_outlives_its_start_is_billed_to_its_owner(engine: Engine) -> None:
    tell(engine, running(a_pod(), T0 + 3))
    line = intervals(engine, Query(MONTH)).lines[0]
    assert (line.names["user"], line.names["app"], line.running) == ("ada", "lab", True)


# 9. Pre-emption and restarts


def test_09_a_new_pod_is_a_new_line_a_restarted_container_is_not(engine: Engine) -> None:
    pod = a_pod()
    crashed = running(pod, T0 + 3)
    crashed["status"]["containerStatuses"][0]["state"] = {
        "terminated": {"exitCode": 1, "finishedAt": rfc3339(T0 + 20)}
    }
    tell(engine, running(pod, T0 + 3), crashed, running(pod, T0 + 21, restarts=1))
    assert [r["end_at"] for r in rows(engine)] == [None]
    tell(engine, running(a_pod("u2", at=T0 + 100), T0 + 101))
    assert len(rows(engine)) == 2


def test_09_a_pod_that_waits_for_its_restart_still_holds_its_gpu(engine: Engine) -> None:
    waiting = running(a_pod(), T0 + 3)
    waiting["status"]["containerStatuses"][0] = {
        "name": "c",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "finishedAt": rfc3339(T0 + 20)}},
    }
    tell(engine, waiting)
    assert rows(engine)[0]["end_at"] is None
    tell(engine, deleted(waiting, T0 + 300, 0), gone=True)
    assert rows(engine)[0]["end_at"] == T0 + 300


# 10. Price change


def test_10_a_price_change_splits_the_cost_and_rewrites_nothing(engine: Engine) -> None:
    tell(engine, ended(a_pod(gpus=2), T0 + 7200))
    with db.writing(engine).begin() as connection:
        connection.execute(
            PRICE.insert().values(
                kind="gpu", source="site", profile="tf", product="", nano=3 * 10**9,
                valid_from=T0 + 3600, entered_at=0, actor="a", reason="r",
            )
        )  # fmt: skip
    line = intervals(engine, Query(MONTH)).lines[0]
    assert [(p.end - p.start, p.price_nano) for p in line.parts] == [
        (3600, 1_500_000_000),
        (3600, 3_000_000_000),
    ]
    assert usage(engine, Query(MONTH)).total.cost == Decimal("9.00")
    assert rows(engine)[0]["price_nano"] == 1_500_000_000


# 11. Changed teams, renamed servers


def test_11_whose_it_is_stays_as_it_was_at_the_start(engine: Engine) -> None:
    tell(engine, running(a_pod(), T0 + 3))
    moved = running(a_pod(team="other", app="renamed", user="alan"), T0 + 3)
    moved["metadata"]["annotations"]["gpucloud.io/price-per-gpu-hour"] = "0"
    tell(engine, moved)
    (row,) = rows(engine)
    assert (row["team"], row["app"], row["owner"], row["price_nano"]) == (
        "vision", "lab", "ada", 1_500_000_000,
    )  # fmt: skip


# 12. GPU count and shares


def test_12_gpus_count_and_shares_are_a_resource_of_their_own(engine: Engine) -> None:
    mig = a_pod("mig")
    mig["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/mig-1g.5gb": "3"}}
    both = a_pod("sum", 2)
    both["spec"]["containers"].append(copy.deepcopy(both["spec"]["containers"][0]))
    other = a_pod("other")
    other["spec"]["containers"][0]["resources"] = {"limits": {"example.com/fpga": "3"}}
    none = a_pod("cpu")
    none["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "3"}}
    tell(engine, mig, both, other, none)
    assert {r["uid"]: (r["resource"], r["gpus"]) for r in rows(engine)} == {
        "mig": ("nvidia.com/mig-1g.5gb", 3),
        "sum": ("nvidia.com/gpu", 4),
        "other": ("", 0),
        "cpu": ("", 0),
    }


# 13. Jobs


def test_13_the_pods_of_a_job_add_up_to_the_job(engine: Engine) -> None:
    for uid, role in (("c", "chief"), ("w", "worker"), ("p", "ps")):
        pod = a_pod(uid, job="train-1")
        pod["metadata"]["labels"]["gpucloud.io/component"] = "job"
        pod["metadata"]["name"] = f"train-1-{role}"
        tell(engine, ended(pod, T0 + 100))
    with db.writing(engine).begin() as connection:
        beat(connection, T0 + 500)
    (row,) = usage(engine, Query(MONTH, ("job", "component"))).rows
    assert (row.group, row.gpu_seconds) == ({"job": "train-1", "component": "job"}, 300)
    assert len(intervals(engine, Query(MONTH, (), {"job": ("train-1",)})).lines) == 3


# 14. Rounding


def test_14_money_is_rounded_once(engine: Engine) -> None:
    """A hundred lines of a third of a cent are 33 cents, not nothing and not a hundred."""
    for index in range(100):
        tell(engine, ended(a_pod(f"u{index}"), T0 + 8))
    with db.writing(engine).begin() as connection:
        beat(connection, T0 + 500)
    assert usage(engine, Query(MONTH)).total.cost == Decimal("0.33")
    assert usage(engine, Query(MONTH, ("user",))).rows[0].cost == Decimal("0.33")


# 15. Corrections


def test_15_a_correction_is_a_line_of_its_own(engine: Engine) -> None:
    tell(engine, ended(a_pod(), T0 + 100))
    before = rows(engine)
    adjust(
        engine,
        Correction(gpu_seconds=-40, money="-0.02", interval_uid="u1"),
        actor="admin",
        reason="the node was broken",
    )
    assert rows(engine) == before
    total = usage(engine, Query(MONTH, (), {"user": ("ada",)})).total
    assert (total.gpu_seconds, total.cost) == (60, Decimal("0.02"))
    correction = intervals(engine, Query(MONTH)).lines[-1]
    assert (correction.kind, correction.gpu_seconds, correction.note) == (
        "adjustment", -40, "the node was broken",
    )  # fmt: skip
