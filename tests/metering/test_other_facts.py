"""What is not the watch's word on a pod: stop records, late products, idle time, volumes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select

from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.idle import capacity
from gpucloud_spawner.metering.lease import database_time
from gpucloud_spawner.metering.nodes import record_node, record_node_gone
from gpucloud_spawner.metering.observe import (
    read_claim,
    read_node,
    read_pod,
    trim,
)
from gpucloud_spawner.metering.recorder import (
    Recorded,
    record_pods,
    record_product,
)
from gpucloud_spawner.metering.stops import mark_done, read_inbox, record_stop
from gpucloud_spawner.metering.tables import VOLUME
from gpucloud_spawner.metering.volumes import record_claims, record_gone_claims
from gpucloud_spawner.model.usage import rfc3339

from .objects import (
    GPUS,
    MONTH,
    STORY,
    T0,
    Object,
    a_node,
    a_pod,
    beat,
    deleted,
    end,
    ended,
    rows,
    running,
    tell,
)

# The other sources


def test_a_stop_record_tells_what_neither_watch_nor_list_saw(engine: Engine) -> None:
    last = deleted(ended(a_pod(), T0 + 60), T0 + 50, 0)
    last["spec"]["containers"][0]["env"] = [{"name": "SECRET", "value": "s3cret"}]
    assert "s3cret" not in str(trim(last))
    record_stop(engine, running(a_pod(), T0 + 3), gone=False)
    record_stop(engine, last, gone=True)
    with db.writing(engine).begin() as connection:
        now = database_time(connection)
        assert read_inbox(connection, GPUS, until=now - 60) == ([], [])  # the watch goes first
        ids, facts = read_inbox(connection, GPUS, until=now)
        recorded = record_pods(connection, facts, heartbeat=0, source="stop-record")
        mark_done(connection, ids, T0)
        assert read_inbox(connection, GPUS, until=now) == ([], [])
    assert recorded.new == ("u1",)
    assert end(engine) == (T0 + 60, "containers")
    assert tell(engine, last, gone=True) == Recorded()  # and the watch adds nothing to it


@pytest.mark.parametrize("gone", [True, False])
def test_trimming_loses_no_fact(gone: bool) -> None:
    for pod in STORY:
        assert read_pod(trim(pod), GPUS, gone=gone) == read_pod(pod, GPUS, gone=gone)


def test_a_product_that_is_learned_later_is_filled_in_once(engine: Engine) -> None:
    tell(engine, running(a_pod(), T0 + 3))
    with db.writing(engine).begin() as connection:
        record_product(connection, "w", "A100")
        record_product(connection, "w", "H100")
    assert rows(engine)[0]["product"] == "A100"


# Idle time


def test_used_and_idle_are_all_there_was(engine: Engine) -> None:
    with db.writing(engine).begin() as connection:
        beat(connection, T0 + 1000)
        record_node(connection, read_node(a_node(gpus=4), GPUS), T0)
        record_node(connection, read_node(a_node("v", 2, product="H100"), GPUS), T0)
    with db.writing(engine).begin() as connection:
        record_product(connection, "w", "A100")
        facts = [read_pod(ended(a_pod(gpus=3), T0 + 100), GPUS)]
        record_pods(connection, facts, heartbeat=0, source="watch")
        record_product(connection, "w", "A100")
        # grown to 8 GPUs, then gone
        record_node(connection, read_node(a_node(gpus=8), GPUS), T0 + 200)
        record_node_gone(connection, "uid-w", T0 + 300, "deletion")
    found = {
        row.group["product"]: (row.capacity_gpu_seconds, row.used_gpu_seconds, row.idle_gpu_seconds)
        for row in capacity(engine, MONTH).rows
    }
    there = 4 * 1200 + 8 * 100
    assert found == {"A100": (there, 300, there - 300), "H100": (2 * 2000, 0, 4000)}
    by_day = capacity(engine, MONTH, ("node",), by_day=True).rows
    assert sum(row.capacity_gpu_seconds for row in by_day) == there + 4000


def test_a_node_whose_end_nobody_saw_lived_as_long_as_its_pods(engine: Engine) -> None:
    with db.writing(engine).begin() as connection:
        beat(connection, T0 + 1000)
        record_node(connection, read_node(a_node(gpus=1), GPUS), T0)
        record_node_gone(connection, "uid-w", T0 + 50, "heartbeat")
        pod = read_pod(ended(a_pod(), T0 + 80), GPUS)
        record_pods(connection, [pod], heartbeat=0, source="watch")
        record_product(connection, "w", "A100")
    (row,) = capacity(engine, MONTH).rows
    assert (row.capacity_gpu_seconds, row.used_gpu_seconds) == (1080, 80)


# Volumes


def a_claim(size: str | None, *, gone_at: int | None = None) -> Object:
    meta: Object = {
        "uid": "c1", "name": "claim-ada", "namespace": "n", "creationTimestamp": rfc3339(T0),
        "annotations": {"gpucloud.io/user": "ada", "gpucloud.io/team": "vision"},
    }  # fmt: skip
    if gone_at is not None:
        meta |= {"deletionTimestamp": rfc3339(gone_at), "deletionGracePeriodSeconds": 0}
    status = {"phase": "Bound", "capacity": {"storage": size}} if size else {"phase": "Pending"}
    spec = {"resources": {"requests": {"storage": size or "10Gi"}}}
    return {"metadata": meta, "spec": spec, "status": status}


CLAIM_STORY = [
    (a_claim(None), T0, False),
    (a_claim("10Gi"), T0 + 2, False),
    (a_claim("20Gi"), T0 + 100, False),
    (a_claim("20Gi", gone_at=T0 + 150), T0 + 151, False),
    (a_claim("20Gi", gone_at=T0 + 150), T0 + 160, True),
]


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.permutations(range(len(CLAIM_STORY))), st.integers(1, 5))
def test_volumes_split_at_their_growth_in_any_order(
    engine: Engine, order: list[int], size: int
) -> None:
    with db.writing(engine).begin() as connection:
        connection.execute(delete(VOLUME))
        for at in range(0, len(order), size):
            facts = [
                read_claim(CLAIM_STORY[i][0], CLAIM_STORY[i][1], gone=CLAIM_STORY[i][2])
                for i in order[at : at + size]
            ]
            record_claims(connection, facts, heartbeat=T0)
            assert record_claims(connection, facts, heartbeat=T0) == 0
        query = select(VOLUME.c.gib, VOLUME.c.start_at, VOLUME.c.end_at).order_by(VOLUME.c.gib)
        assert connection.execute(query).all() == [
            (10, T0, T0 + 100),
            (20, T0 + 100, T0 + 150),
        ]


def test_a_claim_that_never_got_a_volume_costs_nothing(engine: Engine) -> None:
    with db.writing(engine).begin() as connection:
        claim = read_claim(a_claim(None, gone_at=T0 + 9), T0 + 10, gone=True)
        assert record_claims(connection, [claim], heartbeat=0) == 0


def test_a_vanished_claim_ends_at_the_heartbeat(engine: Engine) -> None:
    with db.writing(engine).begin() as connection:
        record_claims(connection, [read_claim(a_claim("1500Mi"), T0 + 1)], heartbeat=0)
        record_gone_claims(connection, ["c1"], heartbeat=T0 + 30)
        found = connection.execute(select(VOLUME.c.gib, VOLUME.c.end_at, VOLUME.c.end_source))
        assert found.all() == [(2, T0 + 30, "heartbeat")]
